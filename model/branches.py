"""Branches that are decoded over shared prefixes: what sampling and scoring need of a decoder, whatever its model.

Shape suffixes: B images, M open branches of all images together, N branches that go on, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from model.decoder import BranchCache, BranchLayout, step_branches
from model.modeling import Prefix, RecognizerModel


class BranchDecoder(Protocol):
    """The prefilled prefixes of a batch of images, and the branches that are open over them.

    `open` starts branches, `step` feeds each one a token, `keep` says which of them go on. `open` may be called again.
    It then starts anew over the same prefixes.
    """

    first_logits_BV: Tensor
    """Logits of a label's first token, float32."""

    def open(self, image_M: Tensor) -> None:
        """Opens branches without tokens, and forgets those that were open.

        Args:
            image_M: the image of each branch, int64 [M], in ascending order.
        """

    def step(self, token_ids_M: Tensor) -> Tensor:
        """Feeds each open branch its next token, and returns the logits of the token behind it, float32 [M, V].

        The caller may overwrite the logits.
        """

    def keep(self, places_N: Tensor) -> None:
        """Goes on with the branches at these places, in this order, and drops all others.

        Args:
            places_N: int64 [N], places among the open branches. Their images must stay in ascending order. A place that
                is named several times becomes as many branches with the same tokens.
        """


class NxtpBranches:
    """Branches of an NXTP recognizer. A `BranchDecoder`."""

    def __init__(self, model: RecognizerModel, prefix: Prefix) -> None:
        self._model = model
        self._prefix = prefix
        self.first_logits_BV = model.token_logits(prefix.answer_BD)

    def open(self, image_M: Tensor) -> None:
        self._image_M = image_M
        self._cache = BranchCache()
        self._n_tokens = 0

    def step(self, token_ids_M: Tensor) -> Tensor:
        prefix = self._prefix.cache
        layout = BranchLayout.of(self._image_M, len(self.first_logits_BV))
        position = prefix.next_position + self._n_tokens
        hidden_MD = step_branches(self._model.decoder, token_ids_M, position, layout, prefix, self._cache)
        self._n_tokens += 1
        return self._model.token_logits(hidden_MD)

    def keep(self, places_N: Tensor) -> None:
        self._image_M = self._image_M[places_N]
        self._cache.keep(places_N)
