"""Verification finds every kind of damage, and after a repair the next job makes the tables what they were."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.store.parquet_file import read_file
from pipeline.store.run import Run
from pipeline.store.store import Store
from pipeline.upkeep.verification import runs_to_verify, verify_run
from schemas import SCHEMA_VERSION
from tests.fixtures.corpus import sample_members
from tests.fixtures.stored.damage import OF_A_COMPACTED_FILE, OF_A_SHARD, Damage, Damager
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import run_record
from tests.fixtures.stored.verified import FOUND, RUN, all_rows, compact, copy_store, kinds, relabelled, repair

Check = Callable[[Store, str, Damage], None]


LONG_AGO = time.time() - 2 * 86400


@pytest.fixture
def check_found_and_mended(source: Path, good_rows: dict[str, list[Any]]) -> Check:
    """Damages a file of a store, and goes on until its tables are checked to be good again."""

    def check(store: Store, name: str, damage: Damage) -> None:
        kind, break_it = damage
        break_it(Damager(store, RUN, name))
        found = verify_run(store.run(RUN))
        assert (kinds(found), found.is_whole) == ({kind}, False)
        assert any(finding.name == name for finding in found.findings)
        assert repair(store)
        assert verify_run(store.run(RUN)).findings == []
        label_source(store, RUN, str(source), FOUND)
        assert verify_run(store.run(RUN)).findings == []
        assert all_rows(store) == good_rows

    return check


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


Described = list[tuple[str, str, str | None]]


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
    (name,) = compacted.run(RUN).list_images()
    check_found_and_mended(compacted, name, OF_A_COMPACTED_FILE[what])


@pytest.mark.parametrize("is_compacted", [False, pytest.param(True, marks=pytest.mark.long)])
def test_damage_on_s3_is_found_and_mended(
    s3: str, tmp_path: Path, source: Path, check_found_and_mended: Check, is_compacted: bool
) -> None:
    store = Store(f"{s3}/{tmp_path.name}/store")
    label_source(store, RUN, str(source), FOUND)
    if is_compacted:
        compact(store)
        (name,) = store.run(RUN).list_images()
        check_found_and_mended(store, name, OF_A_COMPACTED_FILE["images are garbage"])
    else:
        check_found_and_mended(store, "00000.parquet", OF_A_SHARD["a bit of a page of labels flipped"])


class TestGoodStores:
    """What is whole has no findings."""

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    def test_everything_is_read_and_nothing_found(self, templates: dict[str, Path], kind: str) -> None:
        found = verify_run(Store(str(templates[kind])).run(RUN))
        assert found.findings == []
        assert (found.n_files, found.n_images, found.n_labels) == (3 if kind == "plain" else 1, 12, 30)

    def test_a_compacted_store_with_shards_labelled_again_is_whole(self, tmp_path: Path) -> None:
        store, _ = relabelled(tmp_path, "compacted")
        assert verify_run(store.run(RUN)).findings == []
        assert len(all_rows(store)["images"]) == 8 + 3

    def test_a_folder_of_images_in_generations_is_whole(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        for number in range(4):
            for name, data in sample_members(f"{number}", number):
                path = tmp_path / "photos" / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            label_source(store, RUN, str(tmp_path / "photos"), FOUND)
        assert verify_run(store.run(RUN)).findings == []
        assert len(store.run(RUN).committed()) == 4

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
        assert verify_run(right.run(RUN)).findings == []
        assert kinds(verify_run(wrong.run(RUN))) == (set() if ranking == "none" else {"rows"})

    def test_progress_is_told_file_by_file(self, store: Store) -> None:
        told: list[tuple[int, int]] = []
        verify_run(store.run(RUN), lambda done, total: told.append((done, total)))
        assert told == [(1, 3), (2, 3), (3, 3)]

    def test_a_shard_that_a_job_replaces_meanwhile_is_no_finding(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As where the images are read, and the labels are gone with them.
        list_images = Run.list_images
        gone = {"gone.parquet": {"mtime": LONG_AGO}}
        monkeypatch.setattr(Run, "list_images", lambda run: list_images(run) | gone)
        found = verify_run(store.run(RUN))
        assert (found.findings, found.n_files) == ([], 3)


@pytest.mark.parametrize("kind", ["plain", "compacted"])
@pytest.mark.parametrize("table", ["images", "labels"])
def test_no_flipped_bit_changes_what_is_read_unnoticed(
    templates: dict[str, Path], tmp_path: Path, kind: str, table: str
) -> None:
    store = copy_store(templates[kind], tmp_path)
    name = sorted(store.run(RUN).list_images())[-1]
    path = Path(store.root, table, f"run={RUN}", name)
    whole = path.read_bytes()
    expected = read_by_others(path)
    generator, n_found = random.Random(f"{kind} {table}"), 0
    for _ in range(60):
        content = bytearray(whole)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        if verify_run(store.run(RUN)).is_whole:
            # In the key of the digest itself.
            assert read_by_others(path) == expected
        else:
            n_found += 1
    assert n_found >= 58


class TestRecords:
    """The json records."""

    def test_a_damaged_record_of_a_job_is_deleted(self, store: Store, good_rows: dict[str, list[Any]]) -> None:
        (path,) = Path(store.root, "runs", RUN, "jobs").iterdir()
        path.write_text("{")
        assert kinds(verify_run(store.run(RUN))) == {"record"}
        repair(store)
        assert store.run(RUN).read_jobs() == []
        assert all_rows(store) == good_rows

    @pytest.mark.parametrize("content", [b"{", b"", run_record("other").to_json().encode(), None])
    def test_a_damaged_record_of_a_run_is_told_and_left_to_a_hand(self, store: Store, content: bytes | None) -> None:
        path = Path(store.root, "runs", RUN, "run.json")
        path.unlink() if content is None else path.write_bytes(content)
        found = verify_run(store.run(RUN))
        assert (kinds(found), found.n_files) == ({"record"}, 3)
        assert repair(store) == []

    def test_a_record_of_another_schema_version_is_told(self, store: Store) -> None:
        path = Path(store.root, "runs", RUN, "run.json")
        path.write_text(run_record(RUN, schema_version=SCHEMA_VERSION + 1).to_json())
        assert [(finding.kind, finding.path, finding.message) for finding in verify_run(store.run(RUN)).findings] == [
            ("record", f"runs/{RUN}/run.json", f"is of run {RUN}, schema version 3; expected {RUN}, 1 or 2")
        ]

    def test_without_the_record_of_the_run_damage_is_left(self, store: Store) -> None:
        Path(store.root, "runs", RUN, "run.json").unlink()
        Damager(store, RUN, "00000.parquet").flip("labels", 0.02)
        assert repair(store) == ["left"]

    def test_runs_without_any_record_are_verified_too(self, store: Store) -> None:
        shutil.rmtree(Path(store.root, "runs", RUN))
        assert runs_to_verify(store) == [RUN]
        assert kinds(verify_run(store.run(RUN))) == {"record"}


class TestWhatFilesSay:
    """Each file of a shard says which shard of which version it is of, and both say the same."""

    def messages(self, store: Store, changes: Described) -> list[tuple[str, str]]:
        """Table and message of what is found after changes to the last file of a store."""
        name = sorted(store.run(RUN).list_images())[-1]
        for table, key, value in changes:
            Damager(store, RUN, name).describe(table, key, value)
        found = verify_run(store.run(RUN)).findings
        assert all((finding.kind, finding.name) == ("metadata", name) for finding in found)
        return [(finding.path.split("/")[0], finding.message) for finding in found]

    @pytest.mark.parametrize("table", ["images", "labels"])
    @pytest.mark.parametrize("key", ["source_size", "source_etag"])
    def test_a_file_without_its_version_is_told(self, store: Store, table: str, key: str) -> None:
        found = self.messages(store, [(table, key, None)])
        assert (table, f"lacks {key}; expected the version of the source's file") in found

    def test_both_files_without_both_halves_of_their_version_are_told(self, store: Store) -> None:
        changes = [(table, key, None) for table in ("images", "labels") for key in ("source_etag", "source_size")]
        message = "lacks source_size and source_etag; expected the version of the source's file"
        assert self.messages(store, changes) == [("images", message), ("labels", message)]

    @pytest.mark.parametrize("size", ["-1", "1.5", "many"])
    def test_a_size_that_is_no_whole_number_is_told(self, store: Store, size: str) -> None:
        message = f"says the source's file had '{size}' bytes"
        changes: Described = [("images", "source_size", size), ("labels", "source_size", size)]
        assert self.messages(store, changes) == [("images", message), ("labels", message)]

    def test_a_source_of_unknown_size_is_no_finding(self, store: Store) -> None:
        assert self.messages(store, [("images", "source_size", ""), ("labels", "source_size", "")]) == []

    @pytest.mark.parametrize(("key", "value"), [("source_size", "1"), ("source_etag", "older")])
    def test_labels_of_another_version_than_their_images_are_told(self, store: Store, key: str, value: str) -> None:
        message = "were made from another version of the source's file than the images beside them"
        assert self.messages(store, [("labels", key, value)]) == [("labels", message)]

    @pytest.mark.parametrize("table", ["images", "labels"])
    @pytest.mark.parametrize("shard", ["00000", None])
    def test_a_file_of_another_shard_than_its_name_says_is_told(
        self, store: Store, table: str, shard: str | None
    ) -> None:
        message = f"is of the shard {shard!r}; expected the one that its name says"
        assert self.messages(store, [(table, "shard", shard)]) == [(table, message)]

    def test_a_compacted_file_that_lists_a_shard_twice_is_told(self, compacted: Store) -> None:
        listed = self.listed(compacted)
        twice = json.dumps([*listed, listed[0]])
        assert self.messages(compacted, [("images", "shards", twice), ("labels", "shards", twice)]) == [
            ("images", "lists 4 shards, 3 of them distinct; expected each once")
        ]

    def test_a_compacted_file_that_lists_no_shard_is_told(self, compacted: Store) -> None:
        assert self.messages(compacted, [("images", "shards", "[]"), ("labels", "shards", "[]")]) == [
            ("images", "lists 0 shards, 0 of them distinct; expected each once")
        ]

    def test_labels_that_list_other_shards_than_their_images_are_told(self, compacted: Store) -> None:
        fewer = json.dumps(self.listed(compacted)[1:])
        assert self.messages(compacted, [("labels", "shards", fewer)]) == [
            ("labels", "lists other shards than its file of images")
        ]

    def test_labels_that_list_no_shards_as_former_versions_wrote_them_are_no_finding(self, compacted: Store) -> None:
        assert self.messages(compacted, [("labels", "shards", None)]) == []

    def listed(self, store: Store) -> list[Any]:
        """What the compacted file says of its shards."""
        (name,) = store.run(RUN).list_images()
        _, described = read_file(store.filesystem, store.layout.run(RUN).images(name))
        listed: list[Any] = json.loads(described["shards"])
        return listed
