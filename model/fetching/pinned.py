"""A model whose name means the same everywhere and later."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A model that can label."""

    name: str
    """For processes elsewhere and for later: an absolute path, a URL, `org/name@commit` of the hub, or `demo`."""
    missing_bytes: int = 0
    """Bytes of it that are still to be fetched to this machine."""
