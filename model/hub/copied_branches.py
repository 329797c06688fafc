"""Branches with a copy of their image's prefix each: for models whose attention cannot share one.

Shape suffixes: B images, M open branches of all images together, N branches that go on, V vocabulary.
"""

from __future__ import annotations

import copy

from torch import Tensor
from transformers import PreTrainedModel

from model.hub.prefill import HubPrefix, cache_argument


class CopiedBranches:
    """Branches of a model with any kind of cache that transformers can reorder. A `model.branches.BranchDecoder`.

    The same tokens and probabilities as of `HubBranches`. They take several times its time, and k prefixes an image.
    """

    def __init__(self, model: PreTrainedModel, prefix: HubPrefix) -> None:
        self._model = model
        self._prefix = prefix
        self._cache_argument = cache_argument(model)
        self.first_logits_BV = prefix.logits_BV

    def open(self, image_M: Tensor) -> None:
        self._image_M = image_M
        self._cache = copy.deepcopy(self._prefix.cache)
        self._cache.reorder_cache(image_M)
        self._n_tokens = 0

    def step(self, token_ids_M: Tensor) -> Tensor:
        inputs = self._model.prepare_inputs_for_generation(
            token_ids_M[:, None],
            next_sequence_length=1,
            is_first_iteration=False,
            use_cache=True,
            **{self._cache_argument: self._cache},
            **self._prefix.step_inputs(self._image_M, self._n_tokens),
        )
        logits_M1V = self._model(**inputs).logits
        self._n_tokens += 1
        return logits_M1V[:, -1].float()

    def keep(self, places_N: Tensor) -> None:
        self._image_M = self._image_M[places_N]
        self._cache.reorder_cache(places_N)
