"""Reads the weights of the published NXTP model."""
