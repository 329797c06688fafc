"""Where everything lies in a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.store.layout import TABLES, Layout
from pipeline.store.store import Store
from tests.fixtures.files import files_below
from tests.fixtures.stored.tables import commit_shard, job_record, run_record

STORE = Layout("s3://corpus/store")
RUN = STORE.run("run-1")


def test_everything_lies_where_stores_of_before_have_it() -> None:
    assert STORE.runs == "s3://corpus/store/runs"
    assert STORE.embeddings("0123") == "s3://corpus/store/embeddings/0123.parquet"
    assert RUN.record == "s3://corpus/store/runs/run-1/run.json"
    assert RUN.lock(7) == "s3://corpus/store/runs/run-1/lock-7.json"
    assert RUN.images("a.parquet") == "s3://corpus/store/images/run=run-1/a.parquet"
    assert RUN.labels("a.parquet") == "s3://corpus/store/labels/run=run-1/a.parquet"
    assert RUN.spellings("a.parquet") == "s3://corpus/store/spellings/run=run-1/a.parquet"


@pytest.mark.parametrize("table", TABLES)
def test_the_folder_of_a_run_lies_in_that_of_the_table(table: str) -> None:
    assert RUN.folder(table) == f"{STORE.table(table)}/run=run-1"
    assert RUN.file(table, "a.parquet") == f"{RUN.folder(table)}/a.parquet"


def test_a_job_has_a_file_that_every_file_system_takes() -> None:
    assert RUN.job("2026-01-01T10:20:30.123+00:00") == f"{RUN.jobs}/2026-01-01T10-20-30.123+00-00.json"


def test_a_temporary_file_is_hidden_and_known_for_one() -> None:
    assert RUN.temporary("clock") == "s3://corpus/store/runs/run-1/.clock.tmp"


class TestBelow:
    """Paths as messages name them."""

    def test_a_path_is_named_relative_to_the_store(self) -> None:
        assert RUN.below(RUN.images("a.parquet")) == "images/run=run-1/a.parquet"

    @pytest.mark.parametrize(
        "path", ["s3://corpus/store2/images/a.parquet", "other/s3://corpus/store/x", "s3://corpus/store"]
    )
    def test_a_path_outside_the_store_stays_as_it_is(self, path: str) -> None:
        assert RUN.below(path) == path


def test_a_run_writes_nothing_elsewhere(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    store.run("run-1").write_job(job_record("run-1", started="2026-01-01T10:20:30"))
    commit_shard(store, "run-1", "0")
    assert files_below(tmp_path) == [
        "store/images/run=run-1/0.parquet",
        "store/labels/run=run-1/0.parquet",
        "store/runs/run-1/jobs/2026-01-01T10-20-30.json",
        "store/runs/run-1/run.json",
    ]
