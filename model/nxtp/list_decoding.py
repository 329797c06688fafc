"""The paper's baselines: one list of labels an image, decoded token by token with `generate()`.

Shape suffixes: B images, L tokens of the prefix and the list, N image tokens, D decoder width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from model.nxtp.modeling import RecognizerModel
from model.ranking import SampledLabel

ListSampling = Literal["greedy", "beam"]
N_BEAMS = 3


class EnoughDelimiters(StoppingCriteria):
    """Stops a list once it holds `n_labels` delimiters."""

    def __init__(self, n_prefix: int, delimiter_id: int, n_labels: int) -> None:
        self.n_prefix, self.delimiter_id, self.n_labels = n_prefix, delimiter_id, n_labels

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return (input_ids[:, self.n_prefix :] == self.delimiter_id).sum(dim=1) >= self.n_labels


def decode_lists(
    model: RecognizerModel, image_embeds_BND: Tensor, sampling: ListSampling, n_labels: int, max_label_tokens: int
) -> list[list[SampledLabel]]:
    """A list of labels an image, in the order they were written: (token ids, probabilities, finished) each.

    The ids include the delimiter. Here a label's tokens are conditioned on the labels before it, as in the paper's
    comparison of sampling methods. The last label is unfinished where the list was cut off inside it.
    """
    prefix_ids_BL = model.placeholder_ids(len(image_embeds_BND))
    n_prefix, delimiter_id = prefix_ids_BL.shape[1], model.config.delimiter_id
    sequences_BL = model.generate(
        input_ids=prefix_ids_BL,
        attention_mask=torch.ones_like(prefix_ids_BL),
        image_embeds=image_embeds_BND,
        do_sample=False,
        num_beams=N_BEAMS if sampling == "beam" else 1,
        max_new_tokens=n_labels * (max_label_tokens + 1),
        eos_token_id=None,
        pad_token_id=delimiter_id,
        stopping_criteria=StoppingCriteriaList([EnoughDelimiters(n_prefix, delimiter_id, n_labels)]),
    )
    lists = []
    for padded_L, image_ND in zip(sequences_BL, image_embeds_BND, strict=True):
        # Beam search fills lists shorter than the batch's longest with -1.
        ids_L = padded_L[padded_L >= 0]
        probs = score_list(model, ids_L, image_ND, n_prefix)
        lists.append(split_list(ids_L[n_prefix:].tolist(), probs.tolist(), delimiter_id, n_labels))
    return lists


def score_list(model: RecognizerModel, ids_L: Tensor, image_ND: Tensor, n_prefix: int) -> Tensor:
    """Probability of every token behind the prefix given all before it, float32 [L - n_prefix]."""
    logits_LV = model(input_ids=ids_L[None], image_embeds=image_ND[None]).logits[0].float()
    log_probs_LV = logits_LV[n_prefix - 1 : -1].log_softmax(dim=-1)
    return log_probs_LV.gather(1, ids_L[n_prefix:, None])[:, 0].exp()


def split_list(ids: list[int], probs: list[float], delimiter_id: int, n_labels: int) -> list[SampledLabel]:
    """Cuts a decoded list behind each delimiter, at most `n_labels` of them."""
    labels: list[SampledLabel] = []
    start = 0
    for end, token_id in enumerate(ids, start=1):
        if len(labels) == n_labels:
            return labels
        if token_id == delimiter_id:
            labels.append((tuple(ids[start:end]), tuple(probs[start:end]), True))
            start = end
    if start < len(ids) and len(labels) < n_labels:
        labels.append((tuple(ids[start:]), tuple(probs[start:]), False))
    return labels
