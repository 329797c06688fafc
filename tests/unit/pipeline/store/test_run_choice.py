"""Which run is meant: by name, by the beginning of a name, as the latest, or by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store.run_choice import choose_run, choose_run_to_change, match_run
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, job_record, run_record

LABELLED = {"truth": ["dog"], "labels": ["dog"]}
REJECTED = {"truth": ["dog"], "labels": [], "status": "rejected"}


def make(folder: Path, *names: str) -> Store:
    """A store with these runs, none of which labelled anything."""
    store = Store(str(folder / "store"))
    for name in names:
        store.create_run(run_record(name))
    return store


def day(number: int) -> str:
    return f"2026-01-{number:02}T00:00:00.000+00:00"


class TestByName:
    """A name, or as much of it as is of one run alone."""

    @pytest.mark.parametrize(
        ("given", "run"), [("nxtp-1a", "nxtp-1a"), ("demo-2b", "demo-2b"), ("d", "demo-2b"), ("nxtp-1", "nxtp-1a")]
    )
    def test_a_name_or_its_beginning_means_one_run(self, tmp_path: Path, given: str, run: str) -> None:
        choice = choose_run(make(tmp_path, "demo-2b", "nxtp-1a"), given)
        assert (choice.run, choice.note) == (run, None)

    def test_a_whole_name_is_meant_also_where_another_one_begins_with_it(self, tmp_path: Path) -> None:
        assert choose_run(make(tmp_path, "demo", "demo-2"), "demo").run == "demo"

    def test_the_beginning_of_several_names_is_refused_with_these(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"^2 runs of the store .* begin with demo \(demo-1, demo-2\)$"):
            choose_run(make(tmp_path, "demo-1", "demo-2", "nxtp"), "demo")

    @pytest.mark.parametrize("given", ["emo-1", ""])
    def test_a_wrong_name_is_answered_with_the_runs_that_there_are(self, tmp_path: Path, given: str) -> None:
        with pytest.raises(StoreError, match=rf"^there is no run {given} in the store .*; it holds demo-1, nxtp$"):
            choose_run(make(tmp_path, "demo-1", "nxtp"), given)

    def test_of_many_runs_the_first_ten_are_named(self, tmp_path: Path) -> None:
        store = make(tmp_path, *(f"run-{number:02}" for number in range(12)))
        with pytest.raises(StoreError, match=r"; it holds run-00, .*, run-09 and 2 more$"):
            choose_run(store, "demo")

    def test_a_store_that_is_not_there_is_told_of(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"^there is no store at .*; `tagstream label SOURCE --store"):
            choose_run(Store(str(tmp_path / "nowhere")), None)

    def test_the_command_that_makes_a_store_can_be_pasted(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"`tagstream label SOURCE --store '.*/my tags'` makes one$"):
            choose_run(Store(str(tmp_path / "my tags")), None)

    def test_a_run_without_a_record_is_told_of(self, tmp_path: Path) -> None:
        (tmp_path / "store" / "runs" / "lost").mkdir(parents=True)
        with pytest.raises(StoreError, match=r"there is no run lost in the store .*: its record is lost"):
            choose_run(make(tmp_path, "other"), "lost")

    def test_a_run_without_a_record_can_be_matched(self, tmp_path: Path) -> None:
        assert match_run(make(tmp_path, "other"), ["lost-1", "other"], "lost") == "lost-1"


class TestLatest:
    """The run whose last job that labelled anything began last."""

    def test_the_only_run_is_taken_without_a_word(self, tmp_path: Path) -> None:
        choice = choose_run(make(tmp_path, "demo"), None)
        assert (choice.run, choice.note) == ("demo", None)

    def test_the_run_that_was_labelled_last_is_taken_and_told_of(self, tmp_path: Path) -> None:
        store = make(tmp_path, "a", "b")
        for run, started in (("a", day(1)), ("b", day(2)), ("a", day(3))):
            store.run(run).write_job(job_record(run, started=started))
        assert choose_run(store, None).note == "run a, the latest of 2; --run chooses"
        assert choose_run(store, "latest").note == "run a, the latest of 2"

    def test_a_later_job_that_labelled_nothing_does_not_count(self, tmp_path: Path) -> None:
        store = make(tmp_path, "a", "b")
        for run, started, n_labelled in (("a", day(1), 4), ("b", day(2), 4), ("a", day(3), 0)):
            store.run(run).write_job(job_record(run, started=started, n_labelled=n_labelled))
        assert choose_run(store, None).run == "b"

    def test_a_run_that_rejected_everything_is_not_the_latest(self, tmp_path: Path) -> None:
        store = make(tmp_path, "a", "b")
        commit_judged(store, "a", {"s": [REJECTED, LABELLED]})
        commit_judged(store, "b", {"s": [REJECTED]})
        store.run("a").write_job(job_record("a", started=day(1), n_labelled=1))
        store.run("b").write_job(job_record("b", started=day(2), n_labelled=0))
        assert choose_run(store, None).run == "a"

    def test_what_a_killed_job_committed_counts(self, tmp_path: Path) -> None:
        store = make(tmp_path, "a", "b")
        commit_judged(store, "b", {"s": [REJECTED, LABELLED]})
        store.run("a").write_job(job_record("a", started=day(1)))
        store.run("b").write_job(job_record("b", started=day(2), outcome="running", n_labelled=0))
        assert choose_run(store, None).run == "b"

    def test_where_no_run_labelled_anything_the_latest_of_all_is_taken(self, tmp_path: Path) -> None:
        store = make(tmp_path, "a")
        store.create_run(run_record("b", created="2025-01-01T00:00:00+00:00"))
        assert choose_run(store, None).run == "a"

    def test_a_run_that_is_called_latest_is_meant_by_its_name(self, tmp_path: Path) -> None:
        store = make(tmp_path, "z")
        store.run("latest").create(run_record("latest"))
        store.run("z").write_job(job_record("z"))
        assert choose_run(store, "latest").run == "latest"

    def test_a_new_run_cannot_be_called_latest(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"a new run cannot be called latest, .*; choose another name"):
            make(tmp_path, "latest")

    def test_the_latest_can_be_matched(self, tmp_path: Path) -> None:
        store = make(tmp_path, "a", "b")
        store.run("a").write_job(job_record("a"))
        assert match_run(store, ["a", "b", "lost"], "latest") == "a"


class TestToChange:
    """Which run is meant where its rows are replaced."""

    def test_of_several_runs_one_has_to_be_chosen(self, tmp_path: Path) -> None:
        store = make(tmp_path, "demo-1", "nxtp")
        with pytest.raises(StoreError, match=r"^the store holds 2 runs \(demo-1, nxtp\); choose one with --run$"):
            choose_run_to_change(store, None)
        assert choose_run_to_change(store, "nx").run == "nxtp"

    def test_the_latest_is_taken_where_it_was_asked_for(self, tmp_path: Path) -> None:
        store = make(tmp_path, "a", "b")
        store.run("a").write_job(job_record("a"))
        assert choose_run_to_change(store, "latest").run == "a"

    def test_the_only_run_needs_no_name(self, tmp_path: Path) -> None:
        assert choose_run_to_change(make(tmp_path, "a"), None).run == "a"
