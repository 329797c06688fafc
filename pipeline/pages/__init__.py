"""HTML pages that need no network: templates, styles, scripts."""
