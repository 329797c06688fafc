"""Sends a command to a cluster and follows it there."""
