"""Packs images and their captions into shards."""
