"""Branches with a copy of their image's prefix each: for models whose attention cannot share one.

Shape suffixes: M open branches of all images together, N branches that go on.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from transformers.cache_utils import Cache

from model.hub.branches import CachedBranches


class CopiedBranches(CachedBranches):
    """Branches of a model with any kind of cache that transformers can reorder. A `model.branches.BranchDecoder`.

    The same tokens and probabilities as of `HubBranches`. They take several times its time, and k prefixes an image.
    """

    def _open_cache(self, image_M: Tensor) -> Cache:
        copied = copy.deepcopy(self._prefix.cache)
        copied.reorder_cache(image_M)
        return copied

    def _keep_in_cache(self, places_N: Tensor) -> None:
        self._cache.reorder_cache(places_N)

    def _attention(self) -> AbstractContextManager[None]:
        return nullcontext()
