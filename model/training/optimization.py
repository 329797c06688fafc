"""What is trained and how fast: trainable parameters by pattern, AdamW's groups, the learning rate's schedule."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

Optimizer = Literal["adamw", "muon"]


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


def make_optimizers(
    modules: Sequence[nn.Module],
    name: Optimizer,
    *,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
) -> list[torch.optim.Optimizer]:
    """What updates the trainable parameters; the learning rate is set at every step.

    Args:
        modules: what is trained.
        name: "adamw", or "muon": Muon (Jordan et al. 2024) for the matrices of the encoder's and the decoder's blocks,
            at the scale of AdamW's updates (Liu et al. 2025, arXiv:2502.16982), AdamW for all else.
        weight_decay: of matrices.
        betas, eps: AdamW's.
    """
    groups = parameter_groups(modules, weight_decay)
    optimizers: list[torch.optim.Optimizer] = []
    if name == "muon":
        hidden = _hidden_matrices(modules)
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in hidden]
        if hidden:
            matrices = list(hidden.values())
            optimizers.append(torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    if any(group["params"] for group in groups):
        optimizers.append(torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True))
    return optimizers


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
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


def _hidden_matrices(modules: Iterable[nn.Module]) -> dict[int, nn.Parameter]:
    """The trainable matrices of transformer blocks, by id(): what lies between embeddings and logits."""
    return {
        id(parameter): parameter
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and ".layers." in name
    }


def learning_rate(step: int, *, peak: float, warmup_steps: int, n_steps: int) -> float:
    """The learning rate of a step (0, 1, ...): linear warm-up, then half a cosine to zero."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, n_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
