"""Branches of an NXTP recognizer: the paper's decoder behind the protocol that sampling and scoring need.

Shape suffixes: as in `model.branches`.
"""

from __future__ import annotations

from torch import Tensor

from model.branch_attention import BranchLayout
from model.ending import Ending
from model.nxtp.decoder import BranchCache, step_branches
from model.nxtp.modeling import Prefix, RecognizerModel
from model.sampling import Branches, sample_branches


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


def sample_one_shot(model: RecognizerModel, prefix: Prefix, top_k: int, max_label_tokens: int) -> Branches:
    """Decodes the top-k labels of every image over the shared prefix, by an NXTP recognizer.

    Args:
        prefix: what `model.prefill` returned for the images.
        top_k, max_label_tokens: as in `sample_branches`.
    """
    ending = Ending([model.config.delimiter_id], prefix.answer_BD.device)
    return sample_branches(NxtpBranches(model, prefix), ending, top_k, max_label_tokens)
