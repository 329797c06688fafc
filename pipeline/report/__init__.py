"""A run to look at: pictures with their labels, charts with their numbers, in one file."""
