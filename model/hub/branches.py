"""Branches of a vision-language model of the hub over the shared prefixes of a batch.

Shape suffixes: B images, M open branches of all images together, N branches that go on, V vocabulary.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from model.branch_attention import BranchLayout
from model.hub.branch_cache import keep_branches, open_cache
from model.hub.prefill import HubPrefix, cache_argument
from model.hub.prefix_attention import PREFIX_ATTENTION, branch_step


def share_prefixes(model: PreTrainedModel) -> None:
    """Sets the model to the attention that `HubBranches` needs. It generates as before."""
    model.set_attn_implementation(PREFIX_ATTENTION)


class CachedBranches:
    """Branches that are rows of the model's own forward pass, one token each. Subclasses say what their cache is."""

    def __init__(self, model: PreTrainedModel, prefix: HubPrefix) -> None:
        self._model = model
        self._prefix = prefix
        self._cache_argument = cache_argument(model)
        self.first_logits_BV = prefix.logits_BV

    def open(self, image_M: Tensor) -> None:
        self._image_M = image_M
        self._cache = self._open_cache(image_M)
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
        with self._attention():
            logits_M1V = self._model(**inputs).logits
        self._n_tokens += 1
        return logits_M1V[:, -1].float()

    def keep(self, places_N: Tensor) -> None:
        self._image_M = self._image_M[places_N]
        self._keep_in_cache(places_N)

    def _open_cache(self, image_M: Tensor) -> Cache:
        raise NotImplementedError

    def _keep_in_cache(self, places_N: Tensor) -> None:
        raise NotImplementedError

    def _attention(self) -> AbstractContextManager[None]:
        """While this is open, the model attends as branches need it."""
        raise NotImplementedError


class HubBranches(CachedBranches):
    """Branches of a model that `share_prefixes` has set. A `model.branches.BranchDecoder`.

    The prefix of their image is not copied. Raises NotImplementedError where the model's attention is of a kind that
    branches cannot share.
    """

    def _open_cache(self, image_M: Tensor) -> Cache:
        return open_cache(self._prefix.cache, self._prefix.n_slots, image_M)

    def _keep_in_cache(self, places_N: Tensor) -> None:
        keep_branches(self._cache, places_N)

    def _attention(self) -> AbstractContextManager[None]:
        return branch_step(self._cache, BranchLayout.of(self._image_M, len(self.first_logits_BV)))
