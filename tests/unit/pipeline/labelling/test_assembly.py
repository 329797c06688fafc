"""Putting a shard's rows together again, in whatever order its batches come back."""

from __future__ import annotations

import gc
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.actor.rows import FAILED_SHARD, LABELLED_ROWS
from pipeline.errors import TagstreamError
from pipeline.labelling.assembly import ShardAssembler, WholeShard, make_whole
from schemas import FORMER_IMAGES, IMAGES, LABELLED, LABELS, REJECTED, image_id


def row(shard: str, index: int, n_labels: int = 0, **changed: Any) -> dict[str, Any]:
    """One labelled row as the labelling pool gives it."""
    labels = [
        {"label": f"{shard}-{index}-{place}", "score": 1 / (1 + place), "first_token_prob": 0.5, "n_tokens": place + 1}
        for place in range(n_labels)
    ]
    values = {"shard": shard, "index": index, "key": f"k{index}", "status": LABELLED, "n_unfinished": 1}
    return {**values, "labels": labels, "read_s": 0.5, "decode_s": 0.25, "infer_s": 2.0, **changed}


def shard_rows(shard: str, n_rows: int) -> list[dict[str, Any]]:
    """All rows of a shard, with none to three labels each; the last tells of the whole."""
    rows = [row(shard, index, n_labels=index % 4) for index in range(n_rows)]
    rows[-1] |= {"n_samples": n_rows, "source_size": 100 + n_rows, "source_etag": f"etag-{shard}"}
    return rows


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=LABELLED_ROWS)


def assemble(rows: list[dict[str, Any]]) -> WholeShard:
    (whole,) = ShardAssembler().add(table(rows))
    return whole


class TestTables:
    """What is committed of a shard."""

    def test_the_tables_have_the_schemas_of_the_store(self) -> None:
        whole = assemble(shard_rows("s", 5))
        assert (whole.images.schema, whole.labels.schema) == (IMAGES, LABELS)

    def test_images_of_a_run_of_before_have_its_columns(self) -> None:
        (whole,) = ShardAssembler(FORMER_IMAGES).add(table(shard_rows("s", 5)))
        assert (whole.images.schema, whole.n_flat) == (FORMER_IMAGES, 0)

    def test_every_row_is_one_image_row(self) -> None:
        given = row(
            "s", 0, n_labels=2, key="x", width=3, height=4, n_bytes=5, content_hash="h", caption="c", truth=["t"]
        )
        (image,) = assemble([{**given, "n_samples": 1}]).images.to_pylist()
        expected = {name: given.get(name) for name in IMAGES.names}
        assert image == {**expected, "image_id": image_id("s", "x"), "n_labels": 2}

    def test_every_label_is_one_row_ranked_from_one(self) -> None:
        labels = assemble(shard_rows("s", 4)).labels.to_pylist()
        assert [(label["index"], label["rank"], label["label"], label["n_tokens"]) for label in labels] == [
            (1, 1, "s-1-0", 1),
            (2, 1, "s-2-0", 1),
            (2, 2, "s-2-1", 2),
            (3, 1, "s-3-0", 1),
            (3, 2, "s-3-1", 2),
            (3, 3, "s-3-2", 3),
        ]

    def test_a_label_has_the_id_of_its_image(self) -> None:
        whole = assemble(shard_rows("s", 9))
        ids = dict(zip(whole.images["index"].to_pylist(), whole.images["image_id"].to_pylist(), strict=True))
        assert whole.labels["image_id"].to_pylist() == [ids[index] for index in whole.labels["index"].to_pylist()]

    def test_rows_of_a_repeated_key_have_ids_of_their_own(self) -> None:
        rows = [row("s", index, key="x") for index in range(3)]
        rows[-1]["n_samples"] = 3
        assert assemble(rows).images["image_id"].to_pylist() == [image_id("s", "x", number) for number in range(3)]

    def test_a_shard_of_rejects_alone_has_no_labels(self) -> None:
        rejected = {"status": REJECTED, "stage": "read", "error": "NoImage", "message": "m", "n_unfinished": 0}
        rows = [row("s", index, **rejected) for index in range(2)]
        rows[-1]["n_samples"] = 2
        whole = assemble(rows)
        assert (whole.n_labelled, whole.images.num_rows, whole.labels.num_rows) == (0, 2, 0)
        assert whole.labels.schema == LABELS

    def test_labelled_rows_are_counted(self) -> None:
        rows = [row("s", 0), row("s", 1, status=REJECTED), row("s", 2, n_samples=3)]
        assert assemble(rows).n_labelled == 2

    def test_long_images_are_counted_that_were_labelled(self) -> None:
        sides = [(300, 200), (200, 300), (250, 200), (249, 200), (200, 200), (None, None)]
        rows = [row("s", index, width=width, height=height) for index, (width, height) in enumerate(sides)]
        rejected = row("s", len(sides), status=REJECTED, width=300, height=200, n_samples=len(sides) + 1)
        assert assemble([*rows, rejected]).n_long == 3

    def test_version_and_seconds_are_those_of_the_whole_shard(self) -> None:
        whole = assemble(shard_rows("s", 4))
        assert (whole.name, whole.source_size, whole.source_etag) == ("s", 104, "etag-s")
        assert whole.seconds == {"read": 2.0, "decode": 1.0, "infer": 8.0}

    def test_a_source_without_a_version_has_none(self) -> None:
        whole = assemble([row("s", 0, n_samples=1)])
        assert (whole.source_size, whole.source_etag) == (None, None)


class TestOrder:
    """Batches come back as they please."""

    @settings(max_examples=40)
    @given(st.data())
    def test_batches_in_any_order_and_mixture_give_the_same_tables(self, data: st.DataObject) -> None:
        shards = {name: shard_rows(name, n_rows) for name, n_rows in (("a", 7), ("b", 1), ("c", 4))}
        rows = data.draw(st.permutations([row for rows in shards.values() for row in rows]))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), max_size=6)))
        assembler, whole = ShardAssembler(), {}
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            for shard in assembler.add(table(rows[start:end])):
                assert shard.name not in whole
                whole[shard.name] = shard
        assert (set(whole), assembler.n_open) == (set(shards), 0)
        for name, in_order in shards.items():
            expected = assemble(in_order)
            assert whole[name].images.equals(expected.images)
            assert whole[name].labels.equals(expected.labels)

    def test_a_shard_is_whole_only_when_its_last_row_is_there(self) -> None:
        rows, assembler = shard_rows("s", 3), ShardAssembler()
        assert assembler.add(table(rows[2:])) == []
        assert assembler.add(table(rows[:1])) == []
        assert assembler.n_open == 1
        assert len(assembler.add(table(rows[1:2]))) == 1

    def test_a_part_of_a_larger_table_is_taken_as_it_is(self) -> None:
        rows = shard_rows("a", 4) + shard_rows("b", 4)
        (whole,) = ShardAssembler().add(table(rows).slice(4))
        assert whole.labels.equals(assemble(shard_rows("b", 4)).labels)

    def test_what_came_of_a_shard_that_cannot_be_read_on_is_dropped_whenever_it_comes(self) -> None:
        rows, assembler = shard_rows("a", 3) + shard_rows("b", 1), ShardAssembler()
        failure = {
            "shard": "a",
            "index": FAILED_SHARD,
            "key": "",
            "status": REJECTED,
            "message": "m",
            "n_unfinished": 0,
        }
        assert assembler.add(assembler.without_failed(table(rows[:2]))) == []
        assert assembler.without_failed(table([failure])).num_rows == 0
        (whole,) = assembler.add(assembler.without_failed(table(rows[2:])))
        assert (whole.name, assembler.n_open, assembler.failures) == ("b", 0, {"a": "m"})

    @pytest.mark.parametrize("indices", [[0, 0, 2], [0, 1, 3], [1, 2, 3], [0, 1, 1]])
    def test_missing_and_repeated_rows_are_an_error(self, indices: list[int]) -> None:
        with pytest.raises(TagstreamError, match="shard s came back with rows missing or repeated"):
            make_whole("s", table([row("s", index) for index in indices]))

    def test_a_batch_that_comes_twice_never_makes_a_whole_shard(self) -> None:
        rows, assembler = shard_rows("s", 3), ShardAssembler()
        assembler.add(table(rows[:2]))
        assert assembler.add(table(rows[:2])) == []
        assert assembler.add(table(rows[2:])) == []
        assert assembler.n_open == 1

    def test_nothing_is_kept_of_a_shard_that_became_whole(self) -> None:
        assembler = ShardAssembler()
        # What other tests left is not given back in between.
        gc.collect()
        before = pa.total_allocated_bytes()
        for number in range(3):
            rows = shard_rows(f"s{number}", 50)
            rows[30]["caption"] = "x" * 1_000_000
            assembler.add(table(rows[20:]))
            assert pa.total_allocated_bytes() - before >= 1_000_000
            (whole,) = assembler.add(table(rows[:20]))
        del whole
        gc.collect()
        assert pa.total_allocated_bytes() - before < 1_000_000
        assert assembler.n_open == 0
