"""What a labelling actor does with a batch: decodes it, labels it, makes rows of it. Training builds the same class."""
