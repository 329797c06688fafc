"""A labelling job: what is pending, how it is labelled, committed and counted."""
