"""What labelling and training share of Ray Data: reading shards, and the pool of actors that label them."""
