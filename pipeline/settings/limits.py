"""Limits of one sample."""

from __future__ import annotations

# Defaults of the settings max_sample_bytes and max_sample_s. A larger file is refused unread: one sample must not
# exhaust a worker's memory, nor keep it busy for ever.
MAX_SAMPLE_BYTES = 256 << 20
MAX_SAMPLE_S = 60.0
MAX_SIDE_FILE_BYTES = 16 << 20
