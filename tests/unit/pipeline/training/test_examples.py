"""The order of training examples, and the labels an image is to get."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TagstreamError
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from pipeline.training.examples import Example, ExampleStream, Position, read_tables, shuffled, target_labels
from pipeline.training.settings import TrainSettings
from tests.fixtures.corpus import write_tars

PER_SHARD = 7
BUFFER = 10
DEFAULTS = TrainSettings()


class ListedStream(ExampleStream):
    """A stream whose shards are lists in memory; what it draws and in which order is the real thing's."""

    n_per_shard = PER_SHARD

    def _examples(self, shards: list[Shard]) -> Iterator[Example]:
        examples = [example_of(shard, place) for shard in shards for place in range(self.n_per_shard)]
        yield from examples if self._shares_by_shard else examples[self._rank :: self._n_ranks]


class EmptyStream(ListedStream):
    """A stream of images that have no labels."""

    n_per_shard = 0


def example_of(shard: Shard, place: int) -> Example:
    return Example(f"{shard.name}/{place}".encode(), ("thing",))


def stream_of(
    n_shards: int,
    rank: int = 0,
    n_ranks: int = 1,
    *,
    seed: int = 0,
    buffer: int = BUFFER,
    cls: type[ExampleStream] = ListedStream,
) -> ExampleStream:
    shards = [Shard(name=f"s{number}", url=f"/s{number}.tar", kind="tar") for number in range(n_shards)]
    return cls(shards, TrainSettings(seed=seed, shuffle_buffer=buffer), rank, n_ranks, None)


def drawn(stream: ExampleStream, n_examples: int, position: Position = Position()) -> list[bytes]:  # noqa: B008
    return [batch[0].data for batch, _ in islice(stream.batches(1, position), n_examples)]


@pytest.mark.usefixtures("shared_ray")
class TestReading:
    """Shards as Ray Data reads them."""

    def test_tables_come_in_the_order_of_the_shards(self, tmp_path: Path) -> None:
        write_tars(tmp_path / "source", 5, 70)
        shards = find_source(str(tmp_path / "source")).shards[::-1]
        batches = [row for table in read_tables(shards) for row in table.select(["shard", "samples"]).to_pylist()]
        assert [(row["shard"], len(row["samples"])) for row in batches] == [
            (shard.name, n_samples) for shard in shards for n_samples in (64, 6)
        ]

    def test_what_is_left_early_has_no_thread_that_goes_on(self, tmp_path: Path) -> None:
        write_tars(tmp_path / "source", 8, 70)
        before = set(threading.enumerate())
        tables = read_tables(find_source(str(tmp_path / "source")).shards)
        next(tables)
        tables.close()  # type: ignore[attr-defined]
        left = set(threading.enumerate()) - before
        for thread in left:
            thread.join(20)
        assert [thread.name for thread in left if thread.is_alive()] == []


def everything(n_shards: int) -> set[bytes]:
    return {f"s{shard}/{place}".encode() for shard in range(n_shards) for place in range(PER_SHARD)}


def numbered(n: int) -> list[Example]:
    return [Example(str(number).encode(), ()) for number in range(n)]


class TestShuffled:
    """The shuffle buffer."""

    @pytest.mark.parametrize("n", [0, 1, 5, 6, 50])
    @pytest.mark.parametrize("buffer", [0, 1, 5, 50, 500])
    def test_each_example_comes_exactly_once(self, n: int, buffer: int) -> None:
        mixed = list(shuffled(numbered(n), buffer, np.random.default_rng(0)))
        assert sorted(mixed, key=lambda example: example.data) == sorted(numbered(n), key=lambda example: example.data)

    def test_the_same_seed_gives_the_same_order(self) -> None:
        first, second = (list(shuffled(numbered(50), 8, np.random.default_rng(3))) for _ in range(2))
        assert first == second

    def test_another_seed_gives_another_order(self) -> None:
        first, second = (list(shuffled(numbered(50), 8, np.random.default_rng(seed))) for seed in (3, 4))
        assert first != second

    def test_without_a_buffer_the_order_stays(self) -> None:
        assert list(shuffled(numbered(20), 0, np.random.default_rng(0))) == numbered(20)

    def test_no_example_comes_earlier_than_the_buffer_allows(self) -> None:
        mixed = list(shuffled(numbered(200), 8, np.random.default_rng(0)))
        assert all(int(example.data) <= place + 8 for place, example in enumerate(mixed))

    def test_no_more_is_read_than_the_buffer_holds_and_one(self) -> None:
        n_read = 0

        def counted() -> Iterator[Example]:
            nonlocal n_read
            for example in numbered(100):
                n_read += 1
                yield example

        next(shuffled(counted(), 8, np.random.default_rng(0)))
        assert n_read == 9

    def test_a_buffer_for_everything_can_put_any_example_first(self) -> None:
        firsts = {next(shuffled(numbered(4), 10, np.random.default_rng(seed))).data for seed in range(60)}
        # Each of four is missed by 60 draws with a probability of 3e-8.
        assert firsts == {b"0", b"1", b"2", b"3"}


class TestOrder:
    """Waves of epochs, their order, and the share of each worker."""

    def test_each_example_comes_exactly_once_an_epoch(self) -> None:
        # From 64 shards on a wave is one epoch.
        assert Counter(drawn(stream_of(64), 64 * PER_SHARD)) == Counter(everything(64))

    def test_the_next_epoch_begins_when_all_examples_came(self) -> None:
        names = drawn(stream_of(70), 2 * 70 * PER_SHARD)
        assert set(names[: 70 * PER_SHARD]) == set(names[70 * PER_SHARD :]) == everything(70)

    def test_the_examples_of_a_small_source_come_equally_often_in_a_wave(self) -> None:
        # Three shards are read 22 times a wave.
        counts = Counter(drawn(stream_of(3), 22 * 3 * PER_SHARD))
        assert counts == dict.fromkeys(everything(3), 22)

    def test_the_same_seed_gives_the_same_order(self) -> None:
        assert drawn(stream_of(5, seed=3), 200) == drawn(stream_of(5, seed=3), 200)

    def test_another_seed_gives_another_order(self) -> None:
        assert drawn(stream_of(5, seed=3), 200) != drawn(stream_of(5, seed=4), 200)

    def test_another_wave_has_another_order(self) -> None:
        n = 64 * PER_SHARD
        names = drawn(stream_of(64), 2 * n)
        assert names[:n] != names[n:]

    def test_another_epoch_has_its_shards_in_another_order(self) -> None:
        names = drawn(stream_of(64, buffer=0), 2 * 64 * PER_SHARD)
        shards = [name.partition(b"/")[0] for name in names[::PER_SHARD]]
        assert sorted(shards[:64]) == sorted(shards[64:])
        assert shards[:64] != shards[64:]

    @pytest.mark.parametrize(("n_shards", "n_ranks"), [(64, 2), (128, 2), (3, 3), (5, 3), (2, 4), (1, 3)])
    def test_the_workers_draw_every_example_of_a_wave_once_and_none_twice(self, n_shards: int, n_ranks: int) -> None:
        n_epochs = -(-64 * n_ranks // n_shards)
        counts: Counter[bytes] = Counter()
        for rank in range(n_ranks):
            stream = stream_of(n_shards, rank, n_ranks)
            counts.update(example.data for example in stream._wave(0))
        assert counts == dict.fromkeys(everything(n_shards), n_epochs)

    def test_of_as_many_shards_as_an_epoch_needs_no_two_workers_read_the_same(self) -> None:
        read = [set(drawn(stream_of(128, rank, 2), 64 * PER_SHARD)) for rank in range(2)]
        assert not read[0] & read[1]
        assert read[0] | read[1] == everything(128)

    def test_where_shards_are_fewer_than_workers_these_share_the_examples_of_each(self) -> None:
        read = [set(drawn(stream_of(1, rank, 3), 30)) for rank in range(3)]
        assert set.union(*read) == everything(1)

    def test_workers_mix_in_different_ways(self) -> None:
        # With one shard of three examples a worker, equal draws would give equal places.
        places = [
            [name.partition(b"/")[2] for name in drawn(stream_of(128, rank, 2, buffer=50), 100)] for rank in range(2)
        ]
        assert places[0] != places[1]


class TestBatches:
    """Batches, and going on from a position."""

    @pytest.mark.parametrize("size", [1, 4, 13, 500])
    def test_every_batch_is_full_across_the_end_of_a_wave_too(self, size: int) -> None:
        sizes = [len(batch) for batch, _ in islice(stream_of(3).batches(size, Position()), 600 // size + 1)]
        assert set(sizes) == {size}

    def test_the_size_of_the_batches_does_not_change_the_order(self) -> None:
        batches = islice(stream_of(3).batches(13, Position()), 40)
        assert [example.data for batch, _ in batches for example in batch] == drawn(stream_of(3), 40 * 13)

    @pytest.mark.parametrize(("size", "n_ranks"), [(7, 1), (13, 1), (33, 1), (500, 1), (13, 2), (13, 8)])
    def test_going_on_from_any_position_gives_the_batches_that_followed(self, size: int, n_ranks: int) -> None:
        # A wave of four shards has 448 examples of this worker: the batches reach into its third one.
        n_batches = 1000 // size + 2
        whole = list(islice(stream_of(4, 0, n_ranks).batches(size, Position()), n_batches))
        assert whole[-1][1].wave >= 2
        for done in range(n_batches - 2):
            resumed = islice(stream_of(4, 0, n_ranks).batches(size, whole[done][1]), 2)
            assert list(resumed) == whole[done + 1 : done + 3], f"after batch {done}"

    def test_a_position_counts_the_examples_drawn_from_its_wave(self) -> None:
        positions = [position for _, position in islice(stream_of(64).batches(200, Position()), 4)]
        # 448 examples a wave.
        assert positions == [Position(0, 200), Position(0, 400), Position(1, 152), Position(1, 352)]

    def test_going_on_from_the_end_of_a_wave_begins_the_next(self) -> None:
        n = 64 * PER_SHARD
        assert drawn(stream_of(64), 5, Position(0, n)) == drawn(stream_of(64), 5, Position(1, 0))

    def test_a_source_with_nothing_to_learn_from_is_an_error_that_says_where_labels_come_from(self) -> None:
        with pytest.raises(
            TagstreamError, match=r"the source has no image with labels to learn from; .* setting targets"
        ):
            next(stream_of(3, cls=EmptyStream).batches(4, Position()))

    def test_a_source_smaller_than_a_batch_is_read_again_until_it_is_full(self) -> None:
        batch, _ = next(stream_of(1).batches(1000, Position()))
        assert len(batch) == 1000
        assert {example.data for example in batch} == everything(1)


class TestTargetLabels:
    """Labels of an image, from its description or its caption."""

    @pytest.mark.parametrize(
        ("targets", "expected"), [("labels", ("sky",)), ("captions", ("dog", "ball")), ("any", ("sky",))]
    )
    def test_the_setting_says_whether_labels_or_nouns_are_learned(
        self, targets: str, expected: tuple[str, ...]
    ) -> None:
        assert target_labels(["sky"], "a dog with a ball", TrainSettings(targets=targets)) == expected

    @pytest.mark.parametrize("truth", [None, []])
    @pytest.mark.parametrize(("targets", "expected"), [("labels", ()), ("captions", ("dog",)), ("any", ("dog",))])
    def test_where_no_labels_are_given_the_caption_may_stand_in(
        self, truth: list[str] | None, targets: str, expected: tuple[str, ...]
    ) -> None:
        assert target_labels(truth, "a dog", TrainSettings(targets=targets)) == expected

    @pytest.mark.parametrize("caption", [None, "", "of the"])
    def test_an_image_without_either_has_none(self, caption: str | None) -> None:
        assert target_labels(None, caption, DEFAULTS) == ()

    def test_labels_stay_as_given_but_for_blanks_in_their_order(self) -> None:
        assert target_labels([" Hot \n dog", "Zebra", "apple"], None, DEFAULTS) == ("Hot dog", "Zebra", "apple")

    def test_each_label_comes_once(self) -> None:
        assert target_labels(["sky", "dog", " sky ", "dog"], None, DEFAULTS) == ("sky", "dog")

    def test_blank_labels_are_none(self) -> None:
        assert target_labels(["", "  ", "\n", "dog"], None, DEFAULTS) == ("dog",)

    def test_noise_words_are_left_out_of_captions(self) -> None:
        assert target_labels(None, "a photo of a dog", DEFAULTS) == ("dog",)

    def test_noise_words_can_be_others(self) -> None:
        settings = TrainSettings(noise_words=("dog",))
        assert target_labels(None, "a photo of a dog", settings) == ("photo",)

    def test_a_noise_word_that_is_given_as_a_label_stays(self) -> None:
        assert target_labels(["photo", "person"], None, DEFAULTS) == ("photo", "person")
