"""How far the graphs of an exported recognizer agree with torch: logits and labels of the same images.

Shape suffixes: M branches of all images together, N branches that go on, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.branches import BranchDecoder
from model.ending import Ending
from model.exporting.graph_branches import Graphs
from model.nxtp.branches import NxtpBranches
from model.nxtp.recognizer import Recognizer
from model.ranking import Label
from model.sampling import SampledBatch, sample_branches

_BATCH = 32
_TOP_K = 20
_N_COMPARED = 10
# Of logits in float32, as a share of the largest where that is above 1.
_TOLERANCE = 1e-4


@dataclass(slots=True)
class Agreement:
    """What was found on the images that both labelled.

    n_images: how many.
    difference: the largest difference of two logits, over every token of every branch that torch opened.
    largest_logit: the largest absolute logit of torch.
    n_same: images with the same labels, in the same order.
    n_same_first: images with the same first label.
    n_common, n_compared: of torch's first ten labels of each image, those among the graphs' first ten, and all.
    """

    n_images: int = 0
    difference: float = 0.0
    largest_logit: float = 0.0
    n_same: int = 0
    n_same_first: int = 0
    n_common: int = 0
    n_compared: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether the logits are the same but for the rounding of float32."""
        return self.difference <= _TOLERANCE * max(1.0, self.largest_logit)

    def add_logits(self, expected: Tensor, given: Tensor) -> None:
        # A logit that is no number must not pass as no difference.
        difference = (expected - given).abs().nan_to_num(nan=torch.inf)
        self.difference = max(self.difference, float(difference.max()))
        self.largest_logit = max(self.largest_logit, float(expected.abs().max()))

    def add_labels(self, expected: Sequence[Label], given: Sequence[Label]) -> None:
        texts, other_texts = [label.text for label in expected], [label.text for label in given]
        self.n_images += 1
        self.n_same += texts == other_texts
        self.n_same_first += texts[:1] == other_texts[:1]
        self.n_common += len(set(texts[:_N_COMPARED]) & set(other_texts[:_N_COMPARED]))
        self.n_compared += len(texts[:_N_COMPARED])


class _Both:
    """Feeds two decoders the same tokens and compares what they say to them. Goes by the first."""

    def __init__(self, first: BranchDecoder, second: BranchDecoder, agreement: Agreement) -> None:
        self._first, self._second, self._agreement = first, second, agreement
        self.first_logits_BV = first.first_logits_BV
        agreement.add_logits(first.first_logits_BV, second.first_logits_BV)

    def open(self, image_M: Tensor) -> None:
        self._first.open(image_M)
        self._second.open(image_M)

    def step(self, token_ids_M: Tensor) -> Tensor:
        logits_MV = self._first.step(token_ids_M)
        self._agreement.add_logits(logits_MV, self._second.step(token_ids_M))
        return logits_MV

    def keep(self, places_N: Tensor) -> None:
        self._first.keep(places_N)
        self._second.keep(places_N)


@torch.inference_mode()
def compare_with_torch(recognizer: Recognizer, folder: Path, images: Sequence[bytes]) -> Agreement:
    """Labels images by a recognizer on the CPU in float32, and by the graphs in a folder.

    Args:
        images: encoded, as files have them.
    """
    graphs, agreement = Graphs(folder, torch.get_num_threads()), Agreement()
    config, module = recognizer.config, recognizer.module
    ending = Ending([config.delimiter_id])
    top_k = min(_TOP_K, config.text_config.vocab_size)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        pixel_values = recognizer.prepare([recognizer.preprocessor.view(image) for image in batch])
        prefix, of_graphs = module.prefill(pixel_values), graphs.open_images(pixel_values)
        both = _Both(NxtpBranches(module, prefix), of_graphs, agreement)
        found = [
            SampledBatch(sample_branches(decoder, ending, top_k, config.max_label_tokens), prefix.image_embeds_BND)
            for decoder in (both, of_graphs)
        ]
        for expected, given in zip(*map(recognizer.rank, found), strict=True):
            agreement.add_labels(expected, given)
    return agreement
