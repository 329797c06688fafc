"""What can be labelled: how a source is listed, and how its shards are read."""
