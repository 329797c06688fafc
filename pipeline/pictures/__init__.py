"""Pictures for pages, made from what a run labelled."""
