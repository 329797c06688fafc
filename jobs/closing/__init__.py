"""How a verb ends: its outcome, `--summary` and `--notify`."""
