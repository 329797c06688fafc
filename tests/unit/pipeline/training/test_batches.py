"""Batches of training: what is drawn, what is packed, what is left out, and that they are made in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.training.denoising import Corruption
from model.training.label_tokens import label_token_ids
from model.training.objective import PackedLabels, pack_published, pack_restarting
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.errors import TagstreamError
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.shard import Shard
from pipeline.training.batches import BatchMaker, StepBatch
from pipeline.training.examples import Example, ExampleStream, Position
from pipeline.training.settings import TrainSettings
from tests.fixtures.corpus import encode
from tests.fixtures.recognizers.tiny_recognizer import save_tiny_recognizer

LABELS = ("red", "green", "traffic light")


@pytest.fixture(scope="module")
def labeler(tmp_path_factory: pytest.TempPathFactory) -> Labeler:
    model = save_tiny_recognizer(tmp_path_factory.mktemp("model"))
    return Labeler(LabelerConfig.of(model, LabelSettings(), dtype="float32", device="cpu", n_threads=1))


def example(shade: int, labels: tuple[str, ...] = LABELS) -> Example:
    """An image of one shade."""
    return Example(encode(Image.new("RGB", (32, 32), (shade, shade, shade)), "PNG"), labels)


def make(labeler: Labeler, images: list[Example], *, step: int = 0, rank: int = 0, **settings: Any) -> StepBatch:
    maker = BatchMaker(labeler, TrainSettings(batch_size=2 * len(images), **settings), rank, 2)
    return maker.make(step, images, Position(0, len(images)))


def texts(labeler: Labeler, packed: PackedLabels) -> list[list[str]]:
    """Of each image the labels that its sequence holds, in their order."""
    tokenizer = labeler.recognizer.tokenizer
    return [
        [tokenizer.decode(ids[segments == number].tolist()).strip() for number in range(1, 1 + int(segments.max()))]
        for ids, segments in zip(packed.token_ids_BT, packed.segment_BT, strict=True)
    ]


def prompts(packed: PackedLabels) -> list[tuple[int, ...]]:
    """Of each image the tokens of its prompt."""
    return [
        tuple(ids[segments == 0].tolist()) for ids, segments in zip(packed.token_ids_BT, packed.segment_BT, strict=True)
    ]


def drawn(labeler: Labeler, batch: StepBatch) -> list[Any]:
    """All that was left to chance."""
    return [(texts(labeler, each.packed), prompts(each.packed)) for each in batch.micro_batches]


class TestDraws:
    """Prompts and the order of labels."""

    IMAGES = [example(shade) for shade in range(8)]

    def test_they_depend_on_seed_step_and_worker_alone(self, labeler: Labeler) -> None:
        given = {"seed": 1, "step": 5, "rank": 1}
        first = drawn(labeler, make(labeler, self.IMAGES, **given))
        make(labeler, self.IMAGES, step=9)
        assert drawn(labeler, make(labeler, self.IMAGES, **given)) == first
        for changed in ({"seed": 2}, {"step": 6}, {"rank": 0}):
            assert drawn(labeler, make(labeler, self.IMAGES, **{**given, **changed})) != first

    def test_labels_come_in_any_order(self, labeler: Labeler) -> None:
        batch = make(labeler, [example(shade) for shade in range(60)])
        orders = Counter(tuple(found) for found in texts(labeler, batch.micro_batches[0].packed))
        # Each of six orders is missed by 60 draws with a probability of 2e-5.
        assert len(orders) == 6
        assert all(set(order) == set(LABELS) for order in orders)

    def test_of_more_labels_than_may_be_learned_a_random_choice_is(self, labeler: Labeler) -> None:
        batch = make(labeler, [example(shade) for shade in range(60)], max_labels=1)
        found = texts(labeler, batch.micro_batches[0].packed)
        assert {len(labels) for labels in found} == {1}
        assert {labels[0] for labels in found} == set(LABELS)

    def test_the_fixed_prompt_is_the_models_own(self, labeler: Labeler) -> None:
        batch = make(labeler, self.IMAGES, prompts="fixed")
        assert set(prompts(batch.micro_batches[0].packed)) == {tuple(labeler.recognizer.config.prompt_ids)}

    def test_paraphrases_are_all_used(self, labeler: Labeler) -> None:
        batch = make(labeler, [example(0, ("red",))] * 200)
        counts = Counter(prompts(batch.micro_batches[0].packed))
        # Each of ten is missed by 200 draws with a probability of 7e-10.
        assert len(counts) == 10
        assert tuple(labeler.recognizer.config.prompt_ids) in counts

    def test_paraphrases_of_a_foreign_prompt_are_an_error_that_says_what_to_do(self, labeler: Labeler) -> None:
        config = labeler.recognizer.config
        own = config.prompt_ids
        config.prompt_ids = own[:-1]
        try:
            with pytest.raises(TagstreamError, match=r'paraphrases need that, train with prompts = "fixed"'):
                make(labeler, self.IMAGES)
            assert make(labeler, self.IMAGES, prompts="fixed").n_images == 8
        finally:
            config.prompt_ids = own


class TestPacking:
    """What a worker computes with."""

    def test_images_stay_in_their_order_beside_their_labels(self, labeler: Labeler) -> None:
        images = [example(shade, (LABELS[shade % 3],)) for shade in range(7)]
        (batch,) = make(labeler, images).micro_batches
        assert batch.crops_BHWC.shape == (7, 28, 28, 3)
        assert batch.crops_BHWC.dtype == np.uint8
        assert [int(crop[0, 0, 0]) for crop in batch.crops_BHWC] == list(range(7))
        assert texts(labeler, batch.packed) == [[LABELS[shade % 3]] for shade in range(7)]

    def test_micro_batches_share_the_images_and_their_targets(self, labeler: Labeler) -> None:
        images = [example(shade, ("red", "green")) for shade in range(8)]
        batch = make(labeler, images, micro_batch_size=3)
        assert [len(each.crops_BHWC) for each in batch.micro_batches] == [3, 3, 2]
        assert [int(crop[0, 0, 0]) for each in batch.micro_batches for crop in each.crops_BHWC] == list(range(8))
        # Each label is one token and its delimiter.
        assert (batch.n_images, batch.n_targets, batch.position) == (8, 8 * 2 * 2, Position(0, 8))

    @pytest.mark.parametrize("objective", ["restarting", "published"])
    def test_the_setting_says_in_which_form(self, labeler: Labeler, objective: str) -> None:
        config, tokenizer = labeler.recognizer.config, labeler.recognizer.tokenizer
        given = [config.prompt_ids], [[label_token_ids(tokenizer, "red", config)]]
        sizes = config.delimiter_id, config.n_image_tokens
        if objective == "restarting":
            expected = pack_restarting(*given, *sizes)
        else:
            expected = pack_published(*given, *sizes, close_last=False)
        (batch,) = make(labeler, [example(0, ("red",))], objective=objective, prompts="fixed").micro_batches
        for name in ("token_ids_BT", "position_ids_BT", "segment_BT", "row_M", "target_M"):
            assert torch.equal(getattr(batch.packed, name), getattr(expected, name)), name

    def test_a_label_that_the_model_cannot_write_is_left_out(self, labeler: Labeler) -> None:
        (batch,) = make(labeler, [example(0, ("red", "red, green"))]).micro_batches
        assert texts(labeler, batch.packed) == [["red"]]
        # One token and its delimiter.
        assert batch.packed.n_targets == 2

    def test_a_step_is_shared_in_equal_parts(self, labeler: Labeler) -> None:
        with pytest.raises(TagstreamError, match=r"batch_size is 8; expected a multiple of the 3 workers"):
            BatchMaker(labeler, TrainSettings(batch_size=8), 0, 3)


class TestUnreadable:
    """Images that cannot be decoded."""

    def test_they_are_left_out_and_counted(self, labeler: Labeler) -> None:
        images = [example(1, ("red",)), Example(b"no image", ("green",)), example(3, ("traffic light",))]
        batch = make(labeler, images, micro_batch_size=2)
        assert (batch.n_images, batch.n_unreadable) == (2, 1)
        assert texts(labeler, batch.micro_batches[0].packed) == [["red"], ["traffic light"]]

    def test_a_step_of_them_alone_has_nothing_to_compute(self, labeler: Labeler) -> None:
        batch = make(labeler, [Example(b"no image", ("green",))] * 2)
        assert (batch.micro_batches, batch.n_images, batch.n_targets, batch.n_unreadable) == ([], 0, 0, 2)


class ShadedStream(ExampleStream):
    """A stream of one shard of 100 images in memory; what it draws and in which order is the real thing's."""

    def _examples(self, shards: list[Shard]) -> Iterator[Example]:
        yield from (example(number, ("red",)) for _ in shards for number in range(100))


class TestSteps:
    """Batches one after another, made ahead of the training."""

    def batches(self, labeler: Labeler, first_step: int, position: Position, n_steps: int) -> list[StepBatch]:
        settings = TrainSettings(batch_size=6)
        stream = ShadedStream([Shard("s", "/s.tar", "tar")], settings, 0, 1, None)
        return list(islice(BatchMaker(labeler, settings, 0, 1).steps(stream, first_step, position), n_steps))

    def test_they_come_in_order_each_with_the_position_behind_it(self, labeler: Labeler) -> None:
        batches = self.batches(labeler, 0, Position(), 5)
        assert [batch.position for batch in batches] == [Position(0, 6 * (step + 1)) for step in range(5)]

    def test_going_on_from_a_position_gives_the_batches_that_followed(self, labeler: Labeler) -> None:
        whole = self.batches(labeler, 0, Position(), 6)
        resumed = self.batches(labeler, 2, whole[1].position, 4)
        for got, expected in zip(resumed, whole[2:], strict=True):
            assert got.position == expected.position
            assert drawn(labeler, got) == drawn(labeler, expected)
            assert np.array_equal(got.micro_batches[0].crops_BHWC, expected.micro_batches[0].crops_BHWC)

    def test_an_error_of_the_making_is_raised_and_not_swallowed(
        self, labeler: Labeler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(BatchMaker, "_micro_batch", fail)
        with pytest.raises(ZeroDivisionError):
            self.batches(labeler, 0, Position(), 1)


class TestSpoiltPictures:
    """A share of the pictures is corrupted before it is encoded."""

    IMAGES = [example(20 * shade + 40) for shade in range(8)]

    def crops(self, labeler: Labeler, share: float, **given: Any) -> np.ndarray:
        batch = make(labeler, self.IMAGES, corruption=Corruption(picture_share=share), **given)
        return np.concatenate([each.crops_BHWC for each in batch.micro_batches])

    def test_the_share_decides_how_many(self, labeler: Labeler) -> None:
        clean = self.crops(labeler, 0.0)
        counts = [
            sum((self.crops(labeler, share, step=step) != clean).any(axis=(1, 2, 3)).sum() for step in range(20))
            for share in (0.25, 1.0)
        ]
        # Blur and JPEG leave some pictures of one shade as they are.
        assert 0.1 * 160 < counts[0] < 0.35 * 160
        assert counts[1] > 0.5 * 160

    def test_they_depend_on_seed_step_and_worker_alone(self, labeler: Labeler) -> None:
        given = {"seed": 1, "step": 5, "rank": 1}
        first = self.crops(labeler, 1.0, **given)
        self.crops(labeler, 1.0, step=9)
        assert np.array_equal(self.crops(labeler, 1.0, **given), first)
        for changed in ({"seed": 2}, {"step": 6}, {"rank": 0}):
            assert not np.array_equal(self.crops(labeler, 1.0, **{**given, **changed}), first)

    def test_micro_batches_see_what_a_whole_batch_sees(self, labeler: Labeler) -> None:
        assert np.array_equal(self.crops(labeler, 1.0, step=3, micro_batch_size=3), self.crops(labeler, 1.0, step=3))

    def test_prompts_and_labels_are_drawn_as_of_clean_ones(self, labeler: Labeler) -> None:
        for step in range(8):
            spoilt = make(labeler, self.IMAGES, step=step, corruption=Corruption(picture_share=1.0))
            assert drawn(labeler, spoilt) == drawn(labeler, make(labeler, self.IMAGES, step=step))
