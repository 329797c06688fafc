"""What is trained and how fast: trainable parameters by pattern, AdamW's groups, the learning rate's schedule."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def choose_trainable(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freezes every parameter whose name matches none of the shell patterns; returns the names of the others.

    Raises ValueError for a pattern that matches nothing.
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"no parameter matches the pattern {pattern!r}; names look like {', '.join(names[:3])}")
    chosen = []
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
        if parameter.requires_grad:
            chosen.append(name)
    return chosen


def train_rows_only(embedding: nn.Embedding, rows: Iterable[int]) -> None:
    """Lets an embedding learn in the given rows alone: the gradient of all others is zero."""
    is_kept_V1 = torch.zeros(embedding.num_embeddings, 1, device=embedding.weight.device)
    is_kept_V1[list(rows)] = 1
    embedding.weight.requires_grad_(True)
    embedding.weight.register_hook(lambda gradient_VD: gradient_VD * is_kept_V1)  # type: ignore[no-untyped-call]


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """AdamW's groups: matrices decay; biases, norms and embeddings do not."""
    decaying: list[Tensor] = []
    others: list[Tensor] = []
    for module in modules:
        embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
        for parameter in module.parameters():
            if parameter.requires_grad:
                is_matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
                (decaying if is_matrix else others).append(parameter)
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def learning_rate(step: int, *, peak: float, warmup_steps: int, n_steps: int) -> float:
    """The learning rate of a step (0, 1, ...): linear warm-up, then half a cosine to zero."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, n_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
