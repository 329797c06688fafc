"""SQL over a store: its views, and what a query cannot do."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.catalog.connection import query_rows, run_query
from pipeline.catalog.views import open_store
from pipeline.errors import StoreError, TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.storage.files import open_filesystem
from pipeline.store.ownership import file_name
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from schemas import FORMER_IMAGES, IMAGES, IMAGES_OF_HASHES, LABELS, LISTED, REJECTED
from tests.fixtures.stored.tables import commit_shard, job_record, run_record, shard_tables

RUN = "run-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two shards of two images and two labels each."""
    store = Store(str(tmp_path / "store"))
    fill(store)
    return store


def fill(store: Store) -> None:
    store.create_run(run_record(RUN))
    store.run(RUN).write_job(job_record(RUN))
    for shard in ("a/0", "b/0"):
        commit_shard(store, RUN, shard)


def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    fetched: list[tuple[Any, ...]] = run_query(open_store(store.url), query).fetchall()
    return fetched


def refusal(store: Store, query: str) -> str:
    with pytest.raises(TagstreamError) as caught:
        rows(store, query)
    return str(caught.value)


class TestViews:
    """What a query sees."""

    def test_images_of_runs_of_before_do_not_tell_whether_they_are_flat(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "both"))
        for run, told, settings in (("before", {}, {}), ("today", {"flat": True}, {"pixel_rule": 2})):
            record = store.create_run(run_record(run, labelling={"top_k": 5, "ranking": "prob", **settings}))
            assert record.tells_flat == bool(told)
            images, labels = shard_tables("s", 1)
            images = images.set_column(images.num_columns - 1, "flat", [pa.array([told.get("flat")], pa.bool_())])
            images = images if told else images.select(FORMER_IMAGES.names)
            store.run(run).commit("s", images, labels, {})
        assert rows(store, "SELECT run, flat FROM images ORDER BY run") == [("before", None), ("today", True)]
        assert rows(store, "SELECT count(*) FROM labels JOIN images USING (run, image_id)") == [(4,)]

    @pytest.mark.parametrize(
        ("view", "columns"),
        [
            ("images", [*IMAGES_OF_HASHES.names, "run"]),
            ("labels", [*LABELS.names, "run", "view", "name", "kind", "list", "sensitive"]),
            ("listed_labels", [*LISTED.names, "list", "run"]),
        ],
    )
    def test_a_table_has_the_columns_of_its_schema_and_the_run(
        self, store: Store, view: str, columns: list[str]
    ) -> None:
        assert [row[0] for row in rows(store, f"DESCRIBE {view}")] == columns

    def test_images_and_labels_are_all_that_was_committed(self, store: Store) -> None:
        assert rows(store, "SELECT shard, count(*) FROM images GROUP BY ALL ORDER BY ALL") == [("a/0", 2), ("b/0", 2)]
        assert rows(store, "SELECT count(*), max(rank) FROM labels JOIN images USING (run, image_id)") == [(8, 2)]

    def test_a_run_that_looks_like_a_number_stays_text(self, store: Store) -> None:
        store.create_run(run_record("007"))
        commit_shard(store, "007", "a/0")
        assert rows(store, "SELECT DISTINCT run FROM labels ORDER BY run") == [("007",), (RUN,)]

    @pytest.mark.parametrize("folder", ["label=cat/env=prod", "run=other/shard=1"])
    @pytest.mark.parametrize("is_superseded", [False, True])
    def test_folders_above_the_store_that_look_like_columns_are_none(
        self, tmp_path: Path, folder: str, is_superseded: bool
    ) -> None:
        plain, store = Store(str(tmp_path / "store")), Store(str(tmp_path / folder / "store"))
        for filled in (plain, store):
            fill(filled)
            if is_superseded:
                compact_run(filled.run(RUN), read_vocabulary(None), lambda done, total: None)
                commit_shard(filled, RUN, "a/0", n_rows=1, replace=True)
        for view in ("images", "labels"):
            described = f"DESCRIBE {view}"
            assert rows(store, described) == rows(plain, described)
        # Times of commits differ; all else is equal.
        counted = (
            "SELECT i.run, i.shard, l.label, count(*) FROM images i JOIN labels l USING (run, image_id) GROUP BY ALL"
        )
        assert rows(store, f"{counted} ORDER BY ALL") == rows(plain, f"{counted} ORDER BY ALL") != []

    def test_a_condition_on_the_run_reads_the_files_of_that_run_alone(self, store: Store) -> None:
        store.create_run(run_record("other"))
        commit_shard(store, "other", "a/0")
        plan = str(rows(store, "EXPLAIN ANALYZE SELECT key FROM images WHERE run = 'other'"))
        assert "Scanning Files: 1/3" in plan

    def test_rejects_are_the_rejected_images(self, store: Store) -> None:
        images, labels = shard_tables("c", 2)
        status = pa.array([REJECTED, "labelled"])
        images = images.set_column(images.column_names.index("status"), IMAGES.field("status"), status)
        store.run(RUN).commit("c", images, labels, {})
        assert rows(store, 'SELECT shard, "index" FROM rejects') == [("c", 0)]

    def test_truth_has_one_row_a_given_label(self, store: Store) -> None:
        assert rows(store, "SELECT label, count(*) FROM truth GROUP BY ALL ORDER BY ALL") == [("cat", 4), ("dog", 4)]

    def test_runs_and_jobs_are_the_json_records(self, store: Store) -> None:
        assert rows(store, "SELECT run, labelling.top_k, versions.python FROM runs") == [(RUN, 5, "3.11")]
        assert rows(store, "SELECT run, outcome, seconds_by_stage.infer FROM jobs") == [(RUN, "done", 0.6)]

    def test_runs_of_different_settings_stand_side_by_side(self, store: Store) -> None:
        store.create_run(run_record("run-2", labelling={"top_k": 7, "new_setting": "x"}))
        assert rows(store, "SELECT labelling.top_k, labelling.new_setting FROM runs ORDER BY run") == [
            (5, None),
            (7, "x"),
        ]

    @pytest.mark.parametrize(
        ("name", "lookalike"),
        [("a[1]", "a1"), ("st*r", "stXr"), ("q?x", "qXx"), ("{b}", "b"), ("%41", "A"), ("it's", "its")]
        + [(name, "other") for name in ('quo"te', "$dollar", "sp ace", "größe")],
    )
    def test_the_path_of_a_store_may_hold_any_character(self, tmp_path: Path, name: str, lookalike: str) -> None:
        store = Store(str(tmp_path / name))
        for filled in (store, Store(str(tmp_path / lookalike))):
            fill(filled)
        assert rows(store, "SELECT count(*) FROM images") == [(4,)]


class TestUnfinished:
    """Stores that a job has not filled yet."""

    def test_a_place_without_a_store_is_an_error_that_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(
            StoreError, match=r"there is no store at .*nowhere; `tagstream label SOURCE --store .*nowhere`"
        ):
            open_store(str(tmp_path / "nowhere"))

    def test_a_run_without_commits_has_empty_tables_of_the_right_columns(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        for name in ("images", "labels", "rejects", "truth", "jobs"):
            assert rows(store, f"SELECT * FROM {name}") == []
        described = {name: kind for name, kind, *_ in rows(store, "DESCRIBE images")}
        assert (described["image_id"], described["truth"], described["run"]) == ("BIGINT", "VARCHAR[]", "VARCHAR")

    @pytest.mark.parametrize("name", ["records", "status", "rejects", "last_job"])
    def test_a_run_without_jobs_and_commits_can_be_asked_for_its_status(self, tmp_path: Path, name: str) -> None:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN))
        found = query_rows(open_store(store.url), name, {"run": RUN})
        assert len(found) == (1 if name == "records" else 0)

    def test_labels_whose_shard_is_not_committed_do_not_spoil_the_status(self, store: Store) -> None:
        commit_shard(store, RUN, "c")
        Path(store.layout.run(RUN).images(file_name("c"))).unlink()
        (status,) = query_rows(open_store(store.url), "status", {"run": None})
        assert (status["n_images"], status["n_labels"], status["n_label_rows"]) == (4, 8, 8)

    def test_status_counts_each_run_by_itself(self, store: Store) -> None:
        store.create_run(run_record("run-2"))
        commit_shard(store, "run-2", "a/0", n_rows=3, n_labels=1)
        found = query_rows(open_store(store.url), "status", {"run": None})
        assert [(row["run"], row["n_shards"], row["n_images"], row["n_label_rows"]) for row in found] == [
            (RUN, 2, 4, 8),
            ("run-2", 1, 3, 3),
        ]

    def test_the_last_job_is_the_newest(self, store: Store) -> None:
        store.run(RUN).write_job(job_record(RUN, started="2026-03-01T00:00:00", outcome="failed"))
        (job,) = query_rows(open_store(store.url), "last_job", {"run": RUN})
        assert job["outcome"] == "failed"

    def test_a_damaged_file_in_the_store_is_one_sentence(self, store: Store) -> None:
        for path in Path(store.root).rglob("*.parquet"):
            path.write_bytes(b"PAR1 and nothing else")
        with pytest.raises(StoreError, match=r"the store .* cannot be read: .*\.parquet") as caught:
            open_store(store.url)
        assert "\n" not in str(caught.value)


class TestConfinement:
    """A query reads the store and nothing else, and writes nothing."""

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM '/etc/passwd.csv'",
            "SELECT * FROM read_text('{root}/../secret.txt')",
            "SELECT * FROM read_text('{root}-other/secret.txt')",
            "SELECT * FROM glob('/etc/*')",
            "SELECT * FROM read_parquet('https://example.org/x.parquet')",
            "WITH x AS (SELECT * FROM read_blob('/etc/passwd')) SELECT * FROM x",
        ],
    )
    def test_another_file_cannot_be_read(self, store: Store, tmp_path: Path, query: str) -> None:
        (tmp_path / "secret.txt").write_text("secret")
        (tmp_path / "store-other").mkdir()
        (tmp_path / "store-other/secret.txt").write_text("secret")
        assert "disabled by configuration" in refusal(store, query.replace("{root}", store.root))

    @pytest.mark.parametrize(
        "statement",
        [
            "COPY (SELECT 1) TO '{root}/evil.parquet'",
            "COPY images TO '/tmp/evil.csv'",
            "CREATE TABLE evil AS SELECT 1",
            "INSERT INTO runs SELECT * FROM runs",
            "DELETE FROM runs",
            "DROP TABLE runs",
            "SET threads = 1",
        ],
    )
    def test_a_statement_that_writes_is_refused_and_so_is_its_explanation(self, store: Store, statement: str) -> None:
        connection = open_store(store.url)
        for prefix in ("", "EXPLAIN ", "explain  analyze ", "EXPLAIN (FORMAT json) ", "EXPLAIN ANALYZE (FORMAT json) "):
            with pytest.raises(TagstreamError):
                run_query(connection, prefix + statement.replace("{root}", store.root))
        assert run_query(connection, "SELECT count(*) FROM runs").fetchall() == [(1,)]
        assert not list(Path(store.root).rglob("evil*"))

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            ("ATTACH '{root}/x.db'", "ATTACH statements are not run"),
            ("INSTALL httpfs", "LOAD statements are not run"),
            ("LOAD httpfs", "LOAD statements are not run"),
            ("PRAGMA threads = 1", "statements are not run"),
            ("SET enable_external_access = true", "SET statements are not run"),
            ("CALL pragma_version()", "statements are not run"),
            ("SELECT 1; DROP TABLE runs", "got 2 SQL statements; expected one query"),
            ("EXPLAIN SELECT 1; DROP TABLE runs", "got 2 SQL statements"),
            ("", "got 0 SQL statements"),
            ("-- nothing", "got 0 SQL statements"),
            ("SELEC 1", "the query failed"),
            ("SELECT nothing FROM images", "the query failed"),
            ("SELECT * FROM store", "the query failed"),
        ],
    )
    def test_what_is_no_single_query_is_refused_with_the_reason(self, store: Store, query: str, sentence: str) -> None:
        assert sentence in refusal(store, query.replace("{root}", store.root))

    @pytest.mark.parametrize("setting", ["enable_external_access = true", "allowed_directories = ['/']", "threads = 1"])
    def test_the_settings_of_the_connection_are_locked(self, store: Store, setting: str) -> None:
        import duckdb

        with pytest.raises(duckdb.Error, match="locked"):
            open_store(store.url).execute(f"SET {setting}")

    @pytest.mark.parametrize(
        "query",
        [
            "FROM runs",
            "VALUES (1)",
            "DESCRIBE images",
            "SHOW TABLES",
            "SUMMARIZE labels",
            "WITH x AS (SELECT 1 AS n) SELECT * FROM x",
            "EXPLAIN SELECT count(*) FROM images",
            "EXPLAIN ANALYZE SELECT count(*) FROM images",
            "SELECT * FROM read_parquet('{root}/images/run=*/*.parquet')",
            "SELECT 1;",
        ],
    )
    def test_every_kind_of_reading_is_allowed(self, store: Store, query: str) -> None:
        assert rows(store, query.replace("{root}", store.root))


class TestS3:
    """Stores on S3."""

    @pytest.fixture
    def remote(self, s3: str, tmp_path: Path) -> Store:
        store = Store(f"{s3}/{tmp_path.name}/store")
        fill(store)
        return store

    def test_a_store_is_read_as_a_local_one(self, remote: Store, store: Store) -> None:
        there, here = open_store(remote.url), open_store(store.url)
        for name in ("images", "labels", "runs", "jobs", "truth"):
            query = f"SELECT * FROM {name} ORDER BY ALL"
            assert run_query(there, query).fetchall() == run_query(here, query).fetchall()

    def test_another_object_of_the_bucket_cannot_be_read(self, remote: Store, s3: str, tmp_path: Path) -> None:
        filesystem, path = open_filesystem(f"{s3}/{tmp_path.name}/secret.txt")
        filesystem.pipe_file(path, b"secret")
        assert "disabled by configuration" in refusal(remote, f"SELECT * FROM read_text('s3://{path}')")

    def test_a_query_reads_the_columns_that_it_names_and_little_else(self, remote: Store, s3_reads: list[int]) -> None:
        size = commit_large(remote, RUN)
        s3_reads.clear()
        assert rows(remote, "SELECT sum(n_labels) FROM images") == [(2008,)]
        # DuckDB reads files of up to a megabyte whole.
        assert size > 4 << 20
        assert 0 < sum(s3_reads) < size // 20

    def test_a_query_reads_the_run_that_it_names_alone(self, remote: Store, s3_reads: list[int]) -> None:
        remote.create_run(run_record("run-2"))
        size = commit_large(remote, "run-2")
        s3_reads.clear()
        assert rows(remote, f"SELECT count(caption) FROM images WHERE run = '{RUN}'") == [(4,)]
        assert 0 < sum(s3_reads) < size // 20


def commit_large(store: Store, run: str) -> int:
    """Commits a shard of long captions; returns the size of its images' file in bytes."""
    images, labels = shard_tables("large", 1000)
    generator = random.Random(0)
    captions = pa.array(generator.randbytes(5000).hex() for _ in range(1000))
    images = images.set_column(images.column_names.index("caption"), IMAGES.field("caption"), captions)
    store.run(run).commit("large", images, labels, {})
    return int(store.filesystem.size(store.layout.run(run).images(file_name("large"))))
