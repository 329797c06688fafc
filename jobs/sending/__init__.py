"""Sends a command to a Ray cluster and follows its log."""
