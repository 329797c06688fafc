"""The targets of the fuzzer take good inputs, damaged ones, and all that it has found."""

from __future__ import annotations

import random

import pytest

from tests.fixtures.checkout import ROOT
from tests.fuzz.targets import TARGETS, seeds

_N_DAMAGED = 150
FINDINGS = sorted((ROOT / "tests" / "fuzz" / "findings").rglob("*-*"))


@pytest.mark.parametrize("target", TARGETS)
def test_good_and_damaged_inputs_are_taken(target: str) -> None:
    rng = random.Random(0)
    for seed in seeds(target):
        TARGETS[target](seed)
        for _ in range(_N_DAMAGED):
            TARGETS[target](damaged(seed, rng))


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: f"{path.parent.name}-{path.name[:16]}")
def test_what_the_fuzzer_found_is_taken(path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, or the end cut off, or a piece doubled."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    start, end = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
    return bytes(rng.choice([changed, changed[:end], changed[:end] + changed[start:]]))
