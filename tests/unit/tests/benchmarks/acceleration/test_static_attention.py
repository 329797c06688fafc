"""Attention of rows among which there is padding: live rows see what they would see without it."""

from __future__ import annotations

import pytest
import torch

from model.branch_attention import BranchLayout, attend_from_branches
from tests.benchmarks.acceleration.static_attention import RowPlaces, attend_from_rows

N_IMAGES, N_PLACES, N_KV_HEADS, WIDTH, N_PREFIX = 3, 4, 2, 8, 5
IMAGES = torch.tensor([0, 0, 0, 2])
SLOTS = torch.tensor([0, 1, 2, 0])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_heads", [2, 6])
@pytest.mark.parametrize("n_padding", [0, 3])
@pytest.mark.parametrize(("n_seen", "n_own"), [(1, 1), (2, 2), (3, 8)])
def test_rows_attend_as_branches_do_whatever_fills_up(n_heads, n_padding, n_seen, n_own):
    n_rows = len(IMAGES) + n_padding
    query = random(n_rows, n_heads, WIDTH)
    own = [random(n_rows, n_own, N_KV_HEADS, WIDTH, seed=seed) for seed in (1, 2)]
    prefix = [random(N_IMAGES, N_KV_HEADS, N_PREFIX, WIDTH, seed=seed) for seed in (3, 4)]
    places = torch.cat((IMAGES * N_PLACES + SLOTS, torch.full((n_padding,), N_IMAGES * N_PLACES)))
    seen = torch.arange(n_own) < n_seen
    got = attend_from_rows(query, *own, seen, *prefix, RowPlaces(places, N_IMAGES, N_PLACES))

    live = slice(len(IMAGES))
    own_of_branches = [tokens[live, :n_seen].transpose(1, 2) for tokens in own]
    layout = BranchLayout.of(IMAGES, N_IMAGES)
    expected = attend_from_branches(query[live], *own_of_branches, *prefix, layout)
    torch.testing.assert_close(got[live], expected, rtol=1e-5, atol=1e-6)


def test_padding_takes_no_rows_place():
    places = RowPlaces(torch.tensor([0, 1, 2, 2]), n_images=1, n_places=2)
    rows = torch.tensor([1.0, 2.0, 9.0, 9.0])
    assert places.side_by_side(rows).tolist() == [[1, 2]]
    assert places.packed(places.side_by_side(rows))[:2].tolist() == [1, 2]
