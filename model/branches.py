"""Branches that are decoded over shared prefixes: what sampling and scoring need of a decoder, whatever its model.

Shape suffixes: B images, M open branches of all images together, N branches that go on, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


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
