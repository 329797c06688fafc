"""What users choose by name.

Apart from the code that does it: a command checks what it was told before it spends seconds on loading torch.
"""

from __future__ import annotations

from typing import Literal, get_args

# As model.ranking has it, which would import torch: reading a store takes no seconds of that.
LOWEST_FIRST = frozenset({"ppl", "sim"})
PROBABILITIES = frozenset({"prob", "none"})

Ranking = Literal["prob", "ppl", "sim", "none"]
RANKINGS: tuple[str, ...] = get_args(Ranking)
Sampling = Literal["one_shot", "greedy", "beam"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
# As torch names them.
DTYPES = ("float32", "bfloat16", "float16")
