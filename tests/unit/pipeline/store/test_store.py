"""The store: which runs it holds, and what they may be called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store.store import Store, check_run_name
from tests.fixtures.files import files_below
from tests.fixtures.stored.tables import commit_shard, job_record, run_record

RUN = "run-1"


class TestRuns:
    """Which runs there are, and who makes them."""

    def test_a_store_that_is_not_there_is_empty(self, any_store: Store) -> None:
        assert (any_store.exists(), any_store.run_names(), len(any_store.run(RUN).committed())) == (False, [], 0)
        assert (any_store.run(RUN).read_record(), any_store.run(RUN).read_jobs()) == (None, [])

    def test_the_first_who_makes_a_run_decides_what_it_is(self, any_store: Store) -> None:
        first = any_store.create_run(run_record(RUN, fingerprint="first"))
        second = any_store.create_run(run_record(RUN, fingerprint="second"))
        assert (first.fingerprint, second.fingerprint) == ("first", "first")
        assert any_store.run_names() == [RUN]

    def test_a_store_whose_path_looks_like_a_pattern_is_read_like_any_other(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "a[1]*{b}?"))
        store.create_run(run_record(RUN))
        store.run(RUN).write_job(job_record(RUN))
        commit_shard(store, RUN, "0")
        assert (store.run_names(), len(store.run(RUN).read_jobs()), len(store.run(RUN).committed())) == ([RUN], 1, 1)

    @pytest.mark.parametrize("run", ["", ".", "..", "a/b", "-x", "_x", "größe", "a b", "x" * 101, "a\n"])
    def test_a_run_name_that_cannot_be_part_of_a_path_is_refused(self, run: str) -> None:
        with pytest.raises(StoreError, match="cannot be used; expected letters"):
            check_run_name(run)

    def test_a_store_that_is_a_file_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("a file")
        with pytest.raises(StoreError, match="cannot write to the store"):
            Store(str(tmp_path / "store")).create_run(run_record(RUN))

    @pytest.mark.parametrize("run", ["../run-1", "a/b", ".", "-x", "x" * 101])
    def test_a_run_of_a_name_that_cannot_be_part_of_a_path_is_not_made(self, tmp_path: Path, run: str) -> None:
        with pytest.raises(StoreError, match=f"run name {re.escape(repr(run))} cannot be used"):
            Store(str(tmp_path / "store")).create_run(run_record(run))
        assert files_below(tmp_path) == []

    def test_a_run_name_of_100_letters_can_be_used(self, store: Store) -> None:
        assert store.create_run(run_record("x" * 100)).run == "x" * 100
        assert store.run_names() == ["x" * 100]
