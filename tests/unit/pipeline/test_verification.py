"""Verification finds every kind of damage, and after a repair the next job makes the tables what they were."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import repair as repair_module
from pipeline.analysis.vocabulary import read_vocabulary
from pipeline.catalog import open_store
from pipeline.compaction import compact_run
from pipeline.repair import repair_run
from pipeline.shard_files import file_name
from pipeline.store import Store
from pipeline.verification import Verification, runs_to_verify, verify_run
from tests.fixtures.corpus import jpeg, sample_members, shard_bytes, tar_bytes, write_tars
from tests.fixtures.labelled import label_source
from tests.fixtures.tables import job_record, run_record

RUN = "run-1"
FOUND = [("dog", 0.5), ("tree", 0.25), ("sky", 0.125)]
LONG_AGO = time.time() - 2 * 86400


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards: two of good samples, one with a repeated key and a sample without an image."""
    folder = tmp_path_factory.mktemp("source")
    write_tars(folder, 2, 4)
    odd = [*sample_members("a", 90), *sample_members("b", 91), ("a.jpg", b"again"), ("c.txt", b"no image")]
    (folder / "odd.tar").write_bytes(tar_bytes(odd))
    return folder


@pytest.fixture(scope="module")
def templates(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good stores, to be copied: one as jobs leave it, one compacted."""
    folder = tmp_path_factory.mktemp("stores")
    for kind in ("plain", "compacted"):
        store = Store(str(folder / kind))
        label_source(store, RUN, str(source), FOUND)
        store.write_job(job_record(RUN))
        if kind == "compacted":
            compact(store)
    return {kind: folder / kind for kind in ("plain", "compacted")}


@pytest.fixture(scope="module")
def good_rows(templates: dict[str, Path]) -> dict[str, list[Any]]:
    return all_rows(Store(str(templates["plain"])))


@pytest.fixture
def store(templates: dict[str, Path], tmp_path: Path) -> Store:
    return copied(templates["plain"], tmp_path)


@pytest.fixture
def compacted(templates: dict[str, Path], tmp_path: Path) -> Store:
    return copied(templates["compacted"], tmp_path)


def copied(template: Path, tmp_path: Path) -> Store:
    shutil.copytree(template, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def compact(store: Store) -> None:
    compact_run(store, RUN, read_vocabulary(None), lambda done, total: None)


def all_rows(store: Store) -> dict[str, list[Any]]:
    """Every row of the store, in an order of its own."""
    connection = open_store(store.url)
    tables = ("images", "stored_labels", "spellings")
    return {table: connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall() for table in tables}


def kinds(verification: Verification) -> set[str]:
    return {finding.kind for finding in verification.findings}


def repair(store: Store) -> list[str]:
    """Repairs and returns what was done."""
    return [repaired.what for repaired in repair_run(store, verify_run(store, RUN))]


class Damager:
    """Damages one shard's files, or those of the compacted file."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name

    def path(self, table: str, name: str | None = None) -> str:
        return f"{self.store.root}/{table}/run={RUN}/{name or self.name}"

    def content(self, table: str, name: str | None = None) -> bytes:
        return self.store.filesystem.cat_file(self.path(table, name))

    def write(self, table: str, content: bytes, name: str | None = None) -> None:
        self.store.filesystem.pipe_file(self.path(table, name), content)

    def delete(self, table: str) -> None:
        self.store.filesystem.rm_file(self.path(table))

    def flip(self, table: str, where: float) -> None:
        """Changes one bit, at a part of the file's length."""
        content = bytearray(self.content(table))
        content[int(where * len(content))] ^= 1
        self.write(table, bytes(content))

    def flip_footer(self, table: str) -> None:
        content = bytearray(self.content(table))
        size = int.from_bytes(content[-8:-4], "little")
        content[-8 - size + 1] ^= 0x55
        self.write(table, bytes(content))

    def swap(self, *tables: str) -> None:
        """Exchanges the files of the first two shards."""
        for table in tables:
            first, second = self.content(table), self.content(table, "00001.parquet")
            self.write(table, second)
            self.write(table, first, "00001.parquet")

    def edit(self, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Rewrites a file with other rows, as no digest tells."""
        before = pq.read_table(io.BytesIO(self.content(table)))
        sink = io.BytesIO()
        pq.write_table(change(before), sink)
        self.write(table, sink.getvalue())

    def edit_rows(self, table: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Rewrites a file with its rows changed in place."""

        def changed(before: pa.Table) -> pa.Table:
            rows = before.to_pylist()
            change(rows)
            return pa.Table.from_pylist(rows, schema=before.schema)

        self.edit(table, changed)

    def describe(self, table: str, key: str, value: str | None) -> None:
        """Changes or removes what a file says of itself."""

        def changed(before: pa.Table) -> pa.Table:
            metadata = {k: v for k, v in before.schema.metadata.items() if k != f"tagstream.{key}".encode()}
            if value is not None:
                metadata[f"tagstream.{key}".encode()] = value.encode()
            return before.replace_schema_metadata(metadata)

        self.edit(table, changed)


def put(row: int, column: str, value: object) -> Callable[[list[dict[str, Any]]], None]:
    return lambda rows: rows[row].update({column: value})


def exchange(first: int, second: int, column: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[first][column], rows[second][column] = rows[second][column], rows[first][column]

    return change


def drop_column(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def cast_column(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, name, table.column(name).cast(kind))

    return change


def label_of_a_rejected_image(damage: Damager) -> None:
    damage.edit_rows("images", put(0, "status", "rejected"))
    damage.edit_rows("images", lambda rows: rows[0].update({"stage": "decode", "error": "ImageUnreadable"}))


def forget_a_row(damage: Damager) -> None:
    """Takes an image with its labels out of the middle."""
    damage.edit_rows("images", lambda rows: rows.pop(1))
    damage.edit("labels", lambda table: table.filter(pa.compute.not_equal(table["index"], 1)))


def forget_a_shard(damage: Damager) -> None:
    """A compacted file lists two shards, and has the rows of three."""
    shards = json.loads(pq.read_schema(io.BytesIO(damage.content("images"))).metadata[b"tagstream.shards"])
    damage.describe("images", "shards", json.dumps(shards[:-1]))


def list_a_shard_twice(damage: Damager) -> None:
    shards = json.loads(pq.read_schema(io.BytesIO(damage.content("images"))).metadata[b"tagstream.shards"])
    damage.describe("images", "shards", json.dumps([*shards, shards[0]]))


Damage = tuple[str, Callable[[Damager], object]]
Check = Callable[[Store, str, Damage], None]
OF_A_SHARD: dict[str, Damage] = {
    "images cut short": ("unreadable", lambda d: d.write("images", d.content("images")[:-20])),
    "images empty": ("unreadable", lambda d: d.write("images", b"")),
    "images are garbage": ("unreadable", lambda d: d.write("images", b"PAR1" + bytes(500) + b"PAR1")),
    "a bit of a page of images flipped": ("unreadable", lambda d: d.flip("images", 0.02)),
    "footer of images changed": ("unreadable", lambda d: d.flip_footer("images")),
    "a bit of a page of labels flipped": ("unreadable", lambda d: d.flip("labels", 0.02)),
    "footer of labels changed": ("unreadable", lambda d: d.flip_footer("labels")),
    "labels cut short": ("unreadable", lambda d: d.write("labels", d.content("labels")[:100])),
    "labels empty": ("unreadable", lambda d: d.write("labels", b"")),
    "labels deleted": ("missing", lambda d: d.delete("labels")),
    "labels of two shards swapped": ("metadata", lambda d: d.swap("labels")),
    "images of two shards swapped": ("metadata", lambda d: d.swap("images")),
    "two shards swapped": ("metadata", lambda d: d.swap("images", "labels")),
    "fingerprint of images": ("metadata", lambda d: d.describe("images", "fingerprint", "other")),
    "fingerprint of labels": ("metadata", lambda d: d.describe("labels", "fingerprint", None)),
    "schema version": ("metadata", lambda d: d.describe("images", "schema_version", "2")),
    "name of the shard": ("metadata", lambda d: d.describe("images", "shard", None)),
    "version of the source": ("metadata", lambda d: d.describe("images", "source_etag", None)),
    "size of the source": ("metadata", lambda d: d.describe("images", "source_size", "many")),
    "labels of another version": ("metadata", lambda d: d.describe("labels", "source_etag", "older")),
    "a column missing": ("schema", lambda d: d.edit("images", drop_column("caption"))),
    "a column of another type": ("schema", lambda d: d.edit("labels", cast_column("rank", pa.int32()))),
    "a column of another name": ("schema", lambda d: d.edit("labels", lambda t: t.rename_columns({"score": "scroe"}))),
    "no rows at all": ("rows", lambda d: [d.edit(table, lambda t: t.slice(0, 0)) for table in ("images", "labels")]),
    "an image forgotten": ("rows", forget_a_row),
    "an index twice": ("rows", lambda d: d.edit_rows("images", put(1, "index", 0))),
    "another image_id": ("rows", lambda d: d.edit_rows("images", put(1, "image_id", 5))),
    "another key": ("rows", lambda d: d.edit_rows("images", put(1, "key", "other"))),
    "another shard in a row of images": ("rows", lambda d: d.edit_rows("images", put(1, "shard", "00001"))),
    "another shard in a row of labels": ("rows", lambda d: d.edit_rows("labels", put(1, "shard", "x"))),
    "an unknown status": ("rows", lambda d: d.edit_rows("images", put(1, "status", "maybe"))),
    "a count of labels": ("rows", lambda d: d.edit_rows("images", put(1, "n_labels", 2))),
    "a count of unfinished branches": ("rows", lambda d: d.edit_rows("images", put(1, "n_unfinished", -1))),
    "labels of a rejected image": ("rows", label_of_a_rejected_image),
    "a label forgotten": ("rows", lambda d: d.edit_rows("labels", lambda rows: rows.pop())),
    "all labels forgotten": ("rows", lambda d: d.edit("labels", lambda t: t.slice(0, 0))),
    "a label doubled": ("rows", lambda d: d.edit_rows("labels", lambda rows: rows.append(rows[-1]))),
    "a label twice at an image": ("rows", lambda d: d.edit_rows("labels", put(1, "label", "dog"))),
    "labels of another image": ("rows", lambda d: d.edit_rows("labels", put(0, "index", 1))),
    "an image_id of a label": ("rows", lambda d: d.edit_rows("labels", put(0, "image_id", 5))),
    "ranks from 0": ("rows", lambda d: d.edit_rows("labels", put(0, "rank", 0))),
    "a gap in the ranks": ("rows", lambda d: d.edit_rows("labels", put(2, "rank", 4))),
    "scores that rise": ("rows", lambda d: d.edit_rows("labels", exchange(0, 1, "score"))),
    "a score that is no number": ("rows", lambda d: d.edit_rows("labels", put(1, "score", float("nan")))),
    "a probability of 2": ("rows", lambda d: d.edit_rows("labels", put(0, "first_token_prob", 2.0))),
    "a negative probability": ("rows", lambda d: d.edit_rows("labels", put(0, "first_token_prob", -0.5))),
}  # fmt: skip
OF_A_COMPACTED_FILE: dict[str, Damage] = {
    "images are garbage": ("unreadable", lambda d: d.write("images", b"PAR1" + bytes(500) + b"PAR1")),
    "images cut short": ("unreadable", lambda d: d.write("images", d.content("images")[:-20])),
    "images and labels are garbage": ("unreadable", lambda d: [d.write(t, b"?" * 99) for t in ("images", "labels")]),
    "a bit of a page of labels flipped": ("unreadable", lambda d: d.flip("labels", 0.02)),
    "labels deleted": ("missing", lambda d: d.delete("labels")),
    "the list of shards deleted": ("metadata", lambda d: d.describe("images", "shards", None)),
    "the list of shards is none": ("metadata", lambda d: d.describe("images", "shards", "[{}]")),
    "a shard forgotten": ("metadata", forget_a_shard),
    "a shard listed twice": ("metadata", list_a_shard_twice),
    "a rank": ("rows", lambda d: d.edit_rows("labels", put(0, "rank", 7))),
    "spellings deleted": ("missing", lambda d: d.delete("spellings")),
    "spellings are garbage": ("unreadable", lambda d: d.write("spellings", b"?")),
    "a spelling forgotten": ("spellings", lambda d: d.edit("spellings", lambda t: t.slice(1))),
    "another spelling": ("spellings", lambda d: d.edit_rows("spellings", put(0, "label", "cat"))),
    "spellings of another run": ("metadata", lambda d: d.describe("spellings", "fingerprint", "other")),
}


@pytest.fixture
def check_found_and_mended(source: Path, good_rows: dict[str, list[Any]]) -> Check:
    """Damages a file of a store, and goes on until its tables are checked to be good again."""

    def check(store: Store, name: str, damage: Damage) -> None:
        kind, break_it = damage
        break_it(Damager(store, name))
        found = verify_run(store, RUN)
        assert (kinds(found), found.is_whole) == ({kind}, False)
        assert any(finding.name == name for finding in found.findings)
        assert repair(store)
        assert verify_run(store, RUN).findings == []
        label_source(store, RUN, str(source), FOUND)
        assert verify_run(store, RUN).findings == []
        assert all_rows(store) == good_rows

    return check


@pytest.mark.parametrize("what", OF_A_SHARD)
def test_damage_of_a_shard_is_found_and_mended(store: Store, check_found_and_mended: Check, what: str) -> None:
    check_found_and_mended(store, "00000.parquet", OF_A_SHARD[what])


def test_a_reject_without_its_reason_is_found_and_mended(store: Store, check_found_and_mended: Check) -> None:
    def forget(damage: Damager) -> None:
        damage.edit_rows("images", lambda rows: [row.update({"error": None}) for row in rows])

    check_found_and_mended(store, "odd.parquet", ("rows", forget))


@pytest.mark.parametrize("what", OF_A_COMPACTED_FILE)
def test_damage_of_a_compacted_file_is_found_and_mended(
    compacted: Store, check_found_and_mended: Check, what: str
) -> None:
    (name,) = compacted.list_images(RUN)
    check_found_and_mended(compacted, name, OF_A_COMPACTED_FILE[what])


@pytest.mark.parametrize("is_compacted", [False, True])
def test_damage_on_s3_is_found_and_mended(
    s3: str, tmp_path: Path, source: Path, check_found_and_mended: Check, is_compacted: bool
) -> None:
    store = Store(f"{s3}/{tmp_path.name}/store")
    label_source(store, RUN, str(source), FOUND)
    if is_compacted:
        compact(store)
        (name,) = store.list_images(RUN)
        check_found_and_mended(store, name, OF_A_COMPACTED_FILE["images are garbage"])
    else:
        check_found_and_mended(store, "00000.parquet", OF_A_SHARD["a bit of a page of labels flipped"])


class TestGoodStores:
    """What is whole has no findings."""

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    def test_everything_is_read_and_nothing_found(self, templates: dict[str, Path], kind: str) -> None:
        found = verify_run(Store(str(templates[kind])), RUN)
        assert found.findings == []
        assert (found.n_files, found.n_images, found.n_labels) == (3 if kind == "plain" else 1, 12, 30)

    def test_a_compacted_store_with_shards_labelled_again_is_whole(self, tmp_path: Path) -> None:
        store, _ = relabelled(tmp_path, "compacted")
        assert verify_run(store, RUN).findings == []
        assert len(all_rows(store)["images"]) == 8 + 3

    def test_a_folder_of_images_in_generations_is_whole(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        for number in range(4):
            for name, data in sample_members(f"{number}", number):
                path = tmp_path / "photos" / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            label_source(store, RUN, str(tmp_path / "photos"), FOUND)
        assert verify_run(store, RUN).findings == []
        assert len(store.committed(RUN)) == 4

    @pytest.mark.parametrize(
        ("ranking", "scores"),
        [
            ("prob", (0.5, 0.5, 0.1)),
            ("ppl", (1, 1.5, float("inf"))),
            ("sim", (0.1, 0.2, 0.2)),
            ("none", (0.1, 0.5, 0.2)),
        ],
    )
    def test_scores_are_in_the_order_of_their_ranking(
        self, source: Path, tmp_path: Path, ranking: str, scores: tuple[float, ...]
    ) -> None:
        found = [(f"label {score_number}", score) for score_number, score in enumerate(scores)]
        right, wrong = Store(str(tmp_path / "right")), Store(str(tmp_path / "wrong"))
        label_source(right, RUN, str(source), found, ranking=ranking)
        label_source(wrong, RUN, str(source), found[::-1], ranking=ranking)
        assert verify_run(right, RUN).findings == []
        assert kinds(verify_run(wrong, RUN)) == (set() if ranking == "none" else {"rows"})

    def test_progress_is_told_file_by_file(self, store: Store) -> None:
        told: list[tuple[int, int]] = []
        verify_run(store, RUN, lambda done, total: told.append((done, total)))
        assert told == [(1, 3), (2, 3), (3, 3)]

    def test_a_shard_that_a_job_replaces_meanwhile_is_no_finding(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As where the images are read, and the labels are gone with them.
        list_images = store.list_images
        monkeypatch.setattr(store, "list_images", lambda run: list_images(run) | {"gone.parquet": {"mtime": LONG_AGO}})
        found = verify_run(store, RUN)
        assert (found.findings, found.n_files) == ([], 3)


@pytest.mark.parametrize("kind", ["plain", "compacted"])
@pytest.mark.parametrize("table", ["images", "labels"])
def test_no_flipped_bit_changes_what_is_read_unnoticed(
    templates: dict[str, Path], tmp_path: Path, kind: str, table: str
) -> None:
    store = copied(templates[kind], tmp_path)
    name = sorted(store.list_images(RUN))[-1]
    path = Path(store.root, table, f"run={RUN}", name)
    whole = path.read_bytes()
    expected = read_by_others(path)
    generator, n_found = random.Random(f"{kind} {table}"), 0
    for _ in range(60):
        content = bytearray(whole)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        if verify_run(store, RUN).is_whole:
            # In the key of the digest itself.
            assert read_by_others(path) == expected
        else:
            n_found += 1
    assert n_found >= 58


def read_by_others(path: Path) -> list[Any]:
    """Answers of DuckDB, some of which come from the footer's statistics alone, and of pyarrow."""
    column = "rank" if "/labels/" in str(path) else "n_labels"
    queries = ("SELECT *", "SELECT count(*)", f"SELECT min({column}), max({column})", "SELECT * WHERE index = 1")
    with duckdb.connect() as connection:
        found = [
            connection.execute(
                query.replace("WHERE", f"FROM '{path}' WHERE") if "WHERE" in query else f"{query} FROM '{path}'"
            ).fetchall()
            for query in queries
        ]
    return [*found, pq.read_table(path).to_pylist()]


def relabelled(tmp_path: Path, kind: str) -> tuple[Store, Path]:
    """A store in which a shard was labelled again, over its former rows, which still lie there."""
    source, store = tmp_path / "source", Store(str(tmp_path / "store"))
    write_tars(source, 3, 4)
    label_source(store, RUN, str(source), FOUND)
    if kind == "compacted":
        compact(store)
    (source / "00001.tar").write_bytes(shard_bytes(7, 3))
    if kind == "plain":
        kept = {table: Damager(store, "00001.parquet").content(table) for table in ("images", "labels")}
    label_source(store, RUN, str(source), FOUND, changed="relabel")
    if kind == "plain":
        for table, content in kept.items():
            Damager(store, "00001.parquet").write(table, content)
    return store, source


class TestSource:
    """Nothing is deleted that nobody could label anew."""

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    def test_damage_of_a_shard_that_is_no_longer_at_the_source_is_left(self, tmp_path: Path, kind: str) -> None:
        source, store = tmp_path / "source", Store(str(tmp_path / "store"))
        write_tars(source, 2, 4)
        label_source(store, RUN, str(source), FOUND)
        if kind == "compacted":
            compact(store)
        name = sorted(store.list_images(RUN))[0]
        Damager(store, name).flip("labels", 0.02)
        (source / "00000.tar").unlink()
        (left,) = repair_run(store, verify_run(store, RUN))
        assert (left.what, left.is_mended) == ("left", False)
        assert "1 of its shards are no longer at the source, the first is 00000" in left.path
        assert not verify_run(store, RUN).is_whole

    def test_damage_is_left_where_the_source_cannot_be_looked_at(self, tmp_path: Path) -> None:
        write_tars(tmp_path / "source", 2, 4)
        store = Store(str(tmp_path / "store"))
        label_source(store, RUN, str(tmp_path / "source"), FOUND)
        Damager(store, "00000.parquet").flip("labels", 0.02)
        shutil.rmtree(tmp_path / "source")
        assert repair(store) == ["left"]
        assert len(store.committed(RUN)) == 2

    @pytest.mark.parametrize("damaged", [["bucket-0000-of-0001"], ["bucket-0000-of-0001+1"], [""]])
    def test_damage_of_a_generation_of_a_folder_is_mended_and_no_image_is_there_twice(
        self, tmp_path: Path, damaged: list[str]
    ) -> None:
        store, photos = Store(str(tmp_path / "store")), tmp_path / "photos"
        photos.mkdir()
        for number in range(3):
            (photos / f"{number}.jpg").write_bytes(jpeg(number))
            label_source(store, RUN, str(photos), FOUND)
        before = all_rows(store)
        for name in list(store.list_images(RUN)):
            if damaged == [""] or name.removesuffix(".parquet") in damaged:
                Damager(store, name).flip("images", 0.02)
        repair(store)
        label_source(store, RUN, str(photos), FOUND)
        after = all_rows(store)
        assert [row[3] for row in sorted(after["images"], key=lambda row: row[3])] == ["0.jpg", "1.jpg", "2.jpg"]
        # Of a folder all of whose generations are open the next job makes one.
        assert damaged == [""] or after == before


class TestFormerRows:
    """A repair never uncovers rows of a shard's former version."""

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    def test_they_do_not_count_after_their_successor_was_taken_out(self, tmp_path: Path, kind: str) -> None:
        store, source = relabelled(tmp_path, kind)
        before = all_rows(store)
        damage = Damager(store, file_name("00001", 1))
        damage.flip("labels", 0.02)
        assert "unreadable" in kinds(verify_run(store, RUN))
        repair(store)
        assert "00001" not in store.committed(RUN)
        assert {row[1] for row in all_rows(store)["images"]} == {"00000", "00002"}
        label_source(store, RUN, str(source), FOUND)
        assert verify_run(store, RUN).findings == []
        assert all_rows(store) == before

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    @pytest.mark.parametrize("step", range(1, 8))
    def test_killed_at_any_step_a_repair_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: int
    ) -> None:
        store, source = relabelled(tmp_path, kind)
        before = all_rows(store)
        Damager(store, file_name("00001", 1)).write("images", b"PAR1")
        Damager(store, "00000.parquet").write("labels", b"") if kind == "plain" else None
        with monkeypatch.context() as patched:
            _die_at(patched, store, step)
            try:
                repair(store)
            except KeyboardInterrupt:
                pass
            else:
                assert step > 4
        former = store.committed(RUN).by_stem.get("00001")
        assert former is None or former.generation == 1
        repair(store)
        label_source(store, RUN, str(source), FOUND)
        assert verify_run(store, RUN).is_whole
        assert all_rows(store) == before


def _die_at(monkeypatch: pytest.MonkeyPatch, store: Store, step: int) -> None:
    """Interrupts before the n-th file is deleted or rewritten."""
    count = [0]

    def counting(operation: Any) -> Any:
        def operate(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == step:
                raise KeyboardInterrupt
            return operation(*arguments, **options)

        return operate

    rewrite = counting(repair_module.rewrite_without_superseded)
    monkeypatch.setattr(repair_module, "rewrite_without_superseded", rewrite)
    monkeypatch.setattr(store.filesystem, "rm_file", counting(store.filesystem.rm_file))


class TestLeftovers:
    """What lies in the folders and is no part of the run."""

    def leave(self, store: Store, path: str, modified: float | None = None) -> Path:
        """Makes a file below the store."""
        file = Path(store.root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"PAR1")
        if modified is not None:
            os.utime(file, (modified, modified))
        return file

    @pytest.mark.parametrize(
        "path",
        [
            f"labels/run={RUN}/open.parquet",
            f"labels/run={RUN}/00000!g1.parquet",
            f"labels/run={RUN}/compacted!000009-0123456789ab.parquet",
            f"spellings/run={RUN}/compacted!000009-0123456789ab.parquet",
            f"images/run={RUN}/.open.parquet.0123.tmp",
            f"labels/run={RUN}/.open.parquet.0123.tmp",
            f"runs/{RUN}/jobs/.x.json.0123.tmp",
            f"runs/{RUN}/.run.json.0123.tmp",
            f"images/run={RUN}/.compacting-x/labels",
        ],
    )
    def test_what_was_left_long_ago_is_told_and_deleted(self, store: Store, path: str) -> None:
        store.write_job(job_record(RUN, started="2026-01-02T00:00:00+00:00", outcome="running"))
        before = all_rows(store)
        file = self.leave(store, path, LONG_AGO)
        os.utime(file.parent, (LONG_AGO, LONG_AGO))
        found = verify_run(store, RUN)
        assert (kinds(found), found.is_whole) == ({"leftover"}, True)
        assert repair(store) == ["deleted"]
        assert not file.exists()
        assert all_rows(store) == before

    def test_what_a_running_job_may_own_is_neither_told_nor_deleted(self, store: Store) -> None:
        started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 3600))
        store.write_job(job_record(RUN, started=started, outcome="running"))
        names = ("open.parquet", "00000!g1.parquet", ".open.parquet.0123.tmp")
        left = [self.leave(store, f"labels/run={RUN}/{name}") for name in names]
        left.append(self.leave(store, f"labels/run={RUN}/compacted!000009-0123456789ab.parquet"))
        left.append(self.leave(store, f"images/run={RUN}/.compacting-x/labels"))
        assert verify_run(store, RUN).findings == []
        assert repair(store) == []
        assert all(file.exists() for file in left)

    def test_what_is_older_than_all_running_jobs_is_of_one_that_died(self, store: Store) -> None:
        started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        store.write_job(job_record(RUN, started=started, outcome="running"))
        self.leave(store, f"labels/run={RUN}/open.parquet", time.time() - 3600)
        assert kinds(verify_run(store, RUN)) == {"leftover"}

    def test_images_that_own_nothing_are_deleted_with_their_labels(self, tmp_path: Path) -> None:
        store, _ = relabelled(tmp_path, "plain")
        before = all_rows(store)
        found = verify_run(store, RUN)
        assert [finding.path for finding in found.findings] == [f"images/run={RUN}/00001.parquet"]
        assert repair(store) == ["deleted"]
        assert len(store.list_labels(RUN)) == len(store.list_images(RUN)) == 3
        assert all_rows(store) == before

    def test_files_of_others_are_told_and_left_alone(self, store: Store) -> None:
        names = (f"images/run={RUN}/notes.txt", f"labels/run={RUN}/sub/x.parquet", f"spellings/run={RUN}/0.parquet")
        files = [self.leave(store, name, LONG_AGO) for name in names]
        found = verify_run(store, RUN)
        assert (kinds(found), len(found.findings), found.is_whole) == ({"foreign"}, 3, True)
        assert repair(store) == []
        assert all(file.exists() for file in files)

    def test_images_that_were_deleted_make_their_shard_open(
        self, store: Store, source: Path, good_rows: dict[str, list[Any]]
    ) -> None:
        Damager(store, "00000.parquet").delete("images")
        assert kinds(verify_run(store, RUN)) == {"leftover"}
        repair(store)
        label_source(store, RUN, str(source), FOUND)
        assert all_rows(store) == good_rows


class TestRecords:
    """The json records."""

    def test_a_damaged_record_of_a_job_is_deleted(self, store: Store, good_rows: dict[str, list[Any]]) -> None:
        (path,) = Path(store.root, "runs", RUN, "jobs").iterdir()
        path.write_text("{")
        assert kinds(verify_run(store, RUN)) == {"record"}
        repair(store)
        assert store.read_jobs(RUN) == []
        assert all_rows(store) == good_rows

    @pytest.mark.parametrize("content", [b"{", b"", run_record("other").to_json().encode(), None])
    def test_a_damaged_record_of_a_run_is_told_and_left_to_a_hand(self, store: Store, content: bytes | None) -> None:
        path = Path(store.root, "runs", RUN, "run.json")
        path.unlink() if content is None else path.write_bytes(content)
        found = verify_run(store, RUN)
        assert (kinds(found), found.n_files) == ({"record"}, 3)
        assert repair(store) == []

    def test_without_the_record_of_the_run_damage_is_left(self, store: Store) -> None:
        Path(store.root, "runs", RUN, "run.json").unlink()
        Damager(store, "00000.parquet").flip("labels", 0.02)
        assert repair(store) == ["left"]

    def test_runs_without_any_record_are_verified_too(self, store: Store) -> None:
        shutil.rmtree(Path(store.root, "runs", RUN))
        assert runs_to_verify(store) == [RUN]
        assert kinds(verify_run(store, RUN)) == {"record"}
