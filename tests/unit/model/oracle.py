"""One-shot sampling done slowly, to compare the fast one with.

Every branch is scored alone, and every step runs its whole sequence again through the stock `LlamaForCausalLM.forward`
without any cache. Nothing of model.nxtp.decoder or model.sampling is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from model.nxtp.modeling import RecognizerModel
from model.sampling import Branches

# Two ways through the same float32 network differ by about 1e-6; a wrong mask or position by far more than this.
PROBABILITY_REL = 1e-4


@dataclass(frozen=True, slots=True)
class SlowBranch:
    """Token ids and probabilities of one branch, its delimiter included, and whether it closed."""

    token_ids: list[int]
    token_probs: list[float]
    finished: bool


@dataclass(frozen=True, slots=True)
class MergedImage:
    """An image's tokens [N, D], their positions, how many patches each stands for, and how many there are in all."""

    image_ND: Tensor
    positions: list[float]
    sizes: list[int]
    n_patches: int


def whole_image(image_ND: Tensor) -> MergedImage:
    """An image whose tokens stand for a patch each."""
    n_patches = len(image_ND)
    return MergedImage(image_ND, [float(place) for place in range(n_patches)], [1] * n_patches, n_patches)


def next_token_probs(model: RecognizerModel, image: Tensor | MergedImage, label_ids: list[int]) -> Tensor:
    """Probabilities of the token behind image, prompt and label, float32 [V]."""
    merged = image if isinstance(image, MergedImage) else whole_image(image)
    image_ND = merged.image_ND
    text_ids = torch.tensor([*model.config.prompt_ids, *label_ids])
    embeds_LD = torch.cat((image_ND, model.get_input_embeddings()(text_ids)))
    n_image, places_L = len(image_ND), torch.arange(len(embeds_LD))
    row_L1, column_1L = places_L[:, None], places_L[None]
    may_attend_LL = (column_1L <= row_L1) | ((row_L1 < n_image) & (column_1L < n_image))
    bias_L = torch.tensor([*map(math.log, merged.sizes), *[0.0] * len(text_ids)])
    mask_LL = torch.where(may_attend_LL, bias_L, torch.finfo(torch.float32).min)
    text_positions = range(merged.n_patches, merged.n_patches + len(text_ids))
    output = model.decoder(
        inputs_embeds=embeds_LD[None],
        attention_mask=mask_LL[None, None],
        position_ids=torch.tensor([[*merged.positions, *text_positions]]),
        use_cache=False,
    )
    return output.logits[0, -1].float().softmax(dim=-1)


@torch.inference_mode()
def slow_branches(
    model: RecognizerModel,
    pixel_values_BCHW: Tensor,
    top_k: int,
    max_label_tokens: int,
    merge: Callable[[Tensor], MergedImage] = whole_image,
) -> list[list[SlowBranch]]:
    """The branches of every image, in order of their first token's probability."""
    images = []
    for image in map(merge, model.encode_images(pixel_values_BCHW)):
        first_probs, first_ids = next_token_probs(model, image, []).sort(descending=True)
        pairs = zip(first_ids[:top_k].tolist(), first_probs[:top_k].tolist(), strict=True)
        images.append([_close_branch(model, image, token, prob, max_label_tokens) for token, prob in pairs])
    return images


def _close_branch(
    model: RecognizerModel, image: MergedImage, first_id: int, first_prob: float, max_label_tokens: int
) -> SlowBranch:
    delimiter_id = model.config.delimiter_id
    ids, probs = [first_id], [first_prob]
    while ids[-1] != delimiter_id:
        prob, token_id = next_token_probs(model, image, ids).max(dim=-1)
        if len(ids) == max_label_tokens and token_id != delimiter_id:
            return SlowBranch(ids, probs, finished=False)
        ids.append(int(token_id))
        probs.append(float(prob))
    return SlowBranch(ids, probs, finished=True)


def fast_branches(branches: Branches) -> list[list[SlowBranch]]:
    """The branches that `sample_one_shot` returned, in the oracle's form."""
    n_images, n_branches = branches.n_tokens_BK.shape
    images = []
    for image in range(n_images):
        rows = []
        for branch in range(n_branches):
            n = int(branches.n_tokens_BK[image, branch])
            ids = branches.token_ids_BKT[image, branch, :n].tolist()
            probs = branches.token_probs_BKT[image, branch, :n].tolist()
            rows.append(SlowBranch(ids, probs, bool(branches.finished_BK[image, branch])))
        images.append(rows)
    return images


def assert_same_branches(got: list[list[SlowBranch]], expected: list[list[SlowBranch]]) -> None:
    assert [[branch.token_ids for branch in image] for image in got] == [
        [branch.token_ids for branch in image] for image in expected
    ]
    assert [[branch.finished for branch in image] for image in got] == [
        [branch.finished for branch in image] for image in expected
    ]
    for got_image, expected_image in zip(got, expected, strict=True):
        for got_branch, expected_branch in zip(got_image, expected_image, strict=True):
            assert got_branch.token_probs == pytest.approx(expected_branch.token_probs, rel=PROBABILITY_REL)
