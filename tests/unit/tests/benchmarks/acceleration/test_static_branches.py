"""Steps of few shapes find the labels that the product's steps find, run or replayed."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from model.nxtp.branches import sample_one_shot
from tests.benchmarks.acceleration.fast_model import FastModel, Recipe
from tests.benchmarks.acceleration.graphs import GraphReplay
from tests.benchmarks.acceleration.static_branches import slots_of
from tests.unit.model.oracle import assert_same_branches, fast_branches, slow_branches

# Padding and the order of sums change the last digits.
PROBABILITY = {"rtol": 1e-4, "atol": 1e-6}


class Recording(TorchDispatchMode):
    """The operations of a step, run again as a CUDA graph is: over the same memory, whatever Python would do now."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, output))
        return output

    def replay(self):
        now = {}

        def current(tensor):
            return now.get(id(tensor), tensor)

        for function, args, kwargs, output in self.calls:
            again = function(
                *tree_map_only(torch.Tensor, current, args), **tree_map_only(torch.Tensor, current, kwargs)
            )
            if isinstance(output, torch.Tensor):
                now[id(output)] = again
            elif isinstance(output, (tuple, list)):
                now |= {id(before): after for before, after in zip(output, again, strict=True)}


class RecordedReplay:
    """Replays steps of shapes that came before."""

    def __init__(self):
        self.recordings = {}

    def __call__(self, shape, step):
        if shape in self.recordings:
            self.recordings[shape].replay()
        else:
            with Recording() as self.recordings[shape]:
                step()


class Shapes:
    """Runs steps and notes their shapes."""

    def __init__(self):
        self.seen = []

    def __call__(self, shape, step):
        self.seen.append(shape)
        step()


@torch.inference_mode()
def assert_same(recognizer, model: FastModel, pixels, top_k: int, max_label_tokens: int = 16) -> None:
    prefix = recognizer.module.prefill(pixels)
    expected = sample_one_shot(recognizer.module, prefix, top_k, max_label_tokens)
    found = model.sample(prefix, top_k, max_label_tokens)
    assert torch.equal(found.token_ids_BKT, expected.token_ids_BKT)
    assert torch.equal(found.finished_BK, expected.finished_BK)
    torch.testing.assert_close(found.token_probs_BKT, expected.token_probs_BKT, **PROBABILITY)


@pytest.mark.parametrize("n_images", [1, 3])
@pytest.mark.parametrize("top_k", [1, 7])
def test_branches_equal_scoring_each_alone(recognizer, make_pixels, top_k, n_images):
    pixels = make_pixels(n_images)
    model = FastModel(recognizer.module, Recipe(fused=True))
    with torch.inference_mode():
        found = model.sample(model.prefill(model.encode(pixels)), top_k, 16)
    assert_same_branches(fast_branches(found), slow_branches(recognizer.module, pixels, top_k, 16))


@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_grouped_query_attention_finds_the_same(build_recognizer, make_pixels, n_kv_heads):
    recognizer = build_recognizer(n_heads=8, n_kv_heads=n_kv_heads)
    assert_same(recognizer, FastModel(recognizer.module, Recipe()), make_pixels(3), 10)


def test_labels_that_never_end_fill_all_tokens(endless_recognizer, make_pixels):
    model = FastModel(endless_recognizer.module, Recipe())
    for max_label_tokens in (1, 5, 16):
        assert_same(endless_recognizer, model, make_pixels(2), 5, max_label_tokens)


def test_replayed_steps_find_what_run_ones_find_in_every_batch(recognizer, make_pixels):
    replay = RecordedReplay()
    model = FastModel(recognizer.module, Recipe(fused=True), lambda: replay)
    for seed in range(3):
        assert_same(recognizer, model, make_pixels(3, seed=seed), 20, 4)
    n_recordings = len(replay.recordings)
    for seed in range(3):
        assert_same(recognizer, model, make_pixels(3, seed=seed), 20, 4)
    assert len(replay.recordings) == n_recordings


def test_what_was_recorded_for_batches_of_one_size_is_not_replayed_for_another(recognizer, make_pixels):
    model = FastModel(recognizer.module, Recipe(), RecordedReplay)
    for n_images, top_k in [(3, 20), (2, 20), (3, 10), (3, 20)]:
        assert_same(recognizer, model, make_pixels(n_images), top_k, 2)


def test_shapes_of_steps_are_buckets(recognizer, make_pixels):
    shapes = Shapes()
    model = FastModel(recognizer.module, Recipe(), lambda: shapes)
    for seed in range(5):
        assert_same(recognizer, model, make_pixels(3, seed=seed), 20)
    assert all(shape.n_rows in (16, 32, 48, 60) for shape in shapes.seen)
    assert all(shape.n_places in (1, 2, 4, 8, 16, 20) for shape in shapes.seen)
    assert {shape.n_tokens for shape in shapes.seen} <= {1, 2, 4, 8, 16}


def test_branches_are_numbered_within_their_image():
    slots, n_slots = slots_of(torch.tensor([0, 0, 2, 2, 2]), n_images=4)
    assert (slots.tolist(), n_slots) == ([0, 1, 0, 1, 2], 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_recorded_steps_find_what_the_products_steps_find(build_recognizer, make_pixels):
    recognizer = build_recognizer()
    recognizer.module.to("cuda")
    graphs = GraphReplay()
    model = FastModel(recognizer.module, Recipe(fused=True), lambda: graphs)
    for seed in (0, 1, 0, 1):
        assert_same(recognizer, model, make_pixels(3, seed=seed).cuda(), 20)
    assert len(graphs) > 0
