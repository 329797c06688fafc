"""Images of one content are labelled once: which are known by their hash, and whose labels they get."""
