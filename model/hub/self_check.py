"""A loaded model's branches against its own generate(), before any image is labelled.

A wrong mask or position need not raise: it shifts probabilities, and all labels with them. Two pictures of different
sizes show it, since one of them is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from model.branches import BranchDecoder
from model.hub.branches import HubBranches
from model.hub.copied_branches import CopiedBranches
from model.hub.prefill import HubPrefix, prefill

N_BRANCHES, N_TOKENS = 2, 3
# Differences of log probabilities. Mistakes were measured at 0.1 and above, rounding in float32 at 1e-5, and in
# half precision at 0.002 to 0.34.
_EXACT = 1e-3
_HALF_PRECISION, _HALF_PRECISION_AT_MOST = 0.5, 1.0
_TIMES_COPIED = 3

MakeBranches = Callable[[PreTrainedModel, HubPrefix], BranchDecoder]


@dataclass(frozen=True, slots=True)
class BranchChoice:
    """How a model decodes branches.

    make: what opens branches over a prefix.
    is_shared: whether branches share their image's prefix; else each has a copy.
    difference: the largest difference to generate() that was seen, of log probabilities.
    why_copied: why the prefix cannot be shared; None where it is.
    """

    make: MakeBranches
    is_shared: bool
    difference: float
    why_copied: str | None = None


class _Forced(LogitsProcessor):
    """Lets generate() write these tokens."""

    def __init__(self, tokens: Sequence[int], n_prompt: int) -> None:
        self._tokens, self._n_prompt = tokens, n_prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._tokens[input_ids.shape[1] - self._n_prompt]] = 0
        return forced


@torch.inference_mode()
def choose_branches(
    model: PreTrainedModel, images: Sequence[Mapping[str, Tensor]], both: Mapping[str, Tensor]
) -> BranchChoice:
    """How the model's branches are to be decoded: over shared prefixes, or over copies where those would be wrong.

    Args:
        images: inputs of single images, of different sizes.
        both: inputs of them as one batch, in the same order.

    Raises NotImplementedError where neither gives what the model's generate() gives.
    """
    prefix = prefill(model, both)
    try:
        shared, why = largest_difference(model, HubBranches(model, prefix), images), None
    except NotImplementedError as error:
        shared, why = torch.inf, str(error)
    if model.dtype == torch.float32 and shared <= _EXACT:
        return BranchChoice(HubBranches, True, shared)
    copied = largest_difference(model, CopiedBranches(model, prefill(model, both)), images)
    limit = _EXACT if model.dtype == torch.float32 else _HALF_PRECISION_AT_MOST
    if model.dtype != torch.float32 and shared <= max(_HALF_PRECISION, _TIMES_COPIED * copied):
        return BranchChoice(HubBranches, True, shared)
    if copied <= limit:
        why = why or f"probabilities over shared prefixes differ by a factor of e^{shared:.2g} from the model's own"
        return BranchChoice(CopiedBranches, False, copied, why)
    raise NotImplementedError(
        f"{type(model).__name__} gives other probabilities to labels that are decoded together than to each alone"
        f" (log probabilities differ by {copied:.2g}; at most {limit:g} is allowed)"
    )


def largest_difference(model: PreTrainedModel, decoder: BranchDecoder, images: Sequence[Mapping[str, Tensor]]) -> float:
    """Largest difference of log probabilities, for a few branches' tokens, to those that generate() gives them."""
    ids_MT, log_probs_MT = _greedy(decoder)
    differences = []
    for branch, (ids, log_probs) in enumerate(zip(ids_MT.tolist(), log_probs_MT, strict=True)):
        inputs = dict(images[branch // N_BRANCHES])
        with _plain_generation(model):
            generated: Any = model.generate(
                **inputs,
                max_new_tokens=len(ids),
                logits_processor=LogitsProcessorList([_Forced(ids, inputs["input_ids"].shape[1])]),
                return_dict_in_generate=True,
                output_logits=True,
            )
        alone_TV = torch.stack([logits[0].float() for logits in generated.logits]).log_softmax(dim=-1)
        alone_T = alone_TV.gather(1, torch.tensor(ids, device=alone_TV.device)[:, None])[:, 0]
        differences.append((alone_T - log_probs).abs().max())
    # Not Python's max, which passes over what is no number.
    return float(torch.stack(differences).max())


@contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Meanwhile generate() takes token for token, without the ends, beams and stop strings of the model's own settings.

    They cannot be unset by arguments: what those leave out comes from the model's settings.
    """
    of_model = model.generation_config
    model.generation_config = GenerationConfig(do_sample=False, num_beams=1)
    try:
        yield
    finally:
        model.generation_config = of_model


def _greedy(decoder: BranchDecoder) -> tuple[Tensor, Tensor]:
    """Tokens and their log probabilities of a few branches an image, [M, T] each."""
    first_BV = decoder.first_logits_BV.log_softmax(dim=-1)
    log_probs_BK, ids_BK = first_BV.topk(N_BRANCHES, dim=-1)
    images_M = torch.arange(len(first_BV), device=first_BV.device).repeat_interleave(N_BRANCHES)
    decoder.open(images_M)
    ids, log_probs = [ids_BK.flatten()], [log_probs_BK.flatten()]
    for _ in range(N_TOKENS - 1):
        best = decoder.step(ids[-1]).log_softmax(dim=-1).max(dim=-1)
        ids.append(best.indices)
        log_probs.append(best.values)
    return torch.stack(ids, dim=1), torch.stack(log_probs, dim=1)
