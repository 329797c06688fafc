"""Training: Ray Data feeds the labelling actors' class, whose recognizer learns."""
