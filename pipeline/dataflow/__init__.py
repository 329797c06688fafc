"""What labelling and training share of Ray Data: reading, decoding, the pool of labelers."""
