"""Dtypes of weights by their names."""

from __future__ import annotations

from typing import cast

import torch

from model.choices import DTYPES


def find_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype | str:
    """The dtype to load weights in, as transformers takes it: `auto` is the one that they are stored in."""
    if dtype is None:
        dtype = "float32" if device.type == "cpu" else "stored"
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "stored":
        return "auto"
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}, stored")
    return cast(torch.dtype, getattr(torch, dtype))
