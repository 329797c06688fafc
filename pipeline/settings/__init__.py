"""Settings of labelling, and how settings are read from TOML."""
