"""Keeps a store small and whole: compaction, verification, repair."""
