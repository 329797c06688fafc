"""The index of known images as tasks of any node read it: in Ray's object store, once a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from pipeline.reuse.known_images import KnownImages


@dataclass(frozen=True, slots=True)
class KnownRemotely:
    """Gives what is known in a task. Arrays are not copied out of the node's object store."""

    parts: tuple[Any, ...]
    """Ray's references to them."""
    n_shards: int

    def __call__(self) -> KnownImages:
        return KnownImages(tuple(ray.get(list(self.parts))), self.n_shards)


class SharedParts:
    """Puts each part into the object store once. Parts that are no longer among what is known leave it."""

    def __init__(self) -> None:
        self._shared: dict[int, tuple[np.ndarray, Any]] = {}

    def __call__(self, known: KnownImages) -> KnownRemotely:
        """What gives this in a task of any node."""
        # The part is kept beside its reference, so that no other gets its id.
        self._shared = {
            id(part): self._shared.get(id(part)) or (part, ray.put(np.asarray(part))) for part in known.parts
        }
        return KnownRemotely(tuple(reference for _, reference in self._shared.values()), known.n_shards)
