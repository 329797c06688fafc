"""A run's images and labels in the formats of other tools: one module a format, and what they share."""
