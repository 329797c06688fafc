"""What a labelling job over a whole source will take, from a sample of it."""
