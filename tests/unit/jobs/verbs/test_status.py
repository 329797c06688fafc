"""`tagstream status` as it is read, and its exit codes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.status import status
from pipeline.errors import TagstreamError
from pipeline.store.lock import RunLock, read_locks
from pipeline.store.store import Store
from tests.fixtures.corpus import shard_bytes, tar_bytes, write_tars
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import job_record

RUN = "run-1"
COMMAND = "tagstream label source --store store --top-k 5"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two shards of three good samples, one of four without images."""
    write_tars(tmp_path / "source", 2, 3)
    (tmp_path / "source" / "bad.tar").write_bytes(tar_bytes((f"{number}.txt", b"x") for number in range(4)))
    return tmp_path / "source"


@pytest.fixture
def store(source: Path, tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    label_source(store, RUN, str(source), [("dog", 0.5)])
    store.run(RUN).write_job(job_record(RUN, command=COMMAND))
    return store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(status, list(arguments), standalone_mode=False, catch_exceptions=False)


def line_of(result: Result, heading: str) -> str:
    return next(line for line in result.stdout.splitlines() if line.startswith(f"  {heading:<12}"))


class TestStanding:
    """Counts, and the source as it is now."""

    def test_a_run_that_is_done_says_so_in_one_line(self, store: Store) -> None:
        result = run(store.url)
        assert result.return_value == 0
        assert line_of(result, "images") == "  images      10 = 6 labelled + 4 rejected, in 3 shards"
        assert line_of(result, "source") == "  source      3 shards now: all committed"

    def test_what_is_left_out_of_the_source_is_told(self, store: Store, source: Path) -> None:
        for name in ("film.mp4", "other.mp4", "notes"):
            (source / name).write_bytes(b"x")
        assert line_of(run(store.url), "left out") == "  left out    2 .mp4, 1 file without suffix"

    def test_photographs_that_the_demo_model_labelled_are_told(self, store: Store) -> None:
        job = job_record(RUN, started="2026-02-02T00:00:00+00:00", n_labelled=80, n_strange=76)
        store.run(RUN).write_job(job)
        assert "`tagstream models` lists models for photographs" in line_of(run(store.url), "note")

    def test_a_held_lock_is_shown_with_its_holder_and_one_left_behind_as_such(self, store: Store) -> None:
        RunLock(store.run(RUN)).take()
        held = line_of(run(store.url), "lock")
        (lock,) = read_locks(store.run(RUN))
        os.utime(lock.path, (0, 0))
        left = line_of(run(store.url), "lock")
        assert held.startswith(f"  lock        process {os.getpid()} on ")
        assert left.startswith(f"  lock        expired, left by a job that was killed: process {os.getpid()} on ")

    def test_open_shards_are_named_with_the_command_that_labels_them(self, store: Store, source: Path) -> None:
        write_tars(source, 5, 1, first=3)
        lines = run(store.url).stdout.splitlines()
        place = lines.index("  source      8 shards now: 3 committed, 5 open")
        assert lines[place + 1 : place + 3] == [
            "  open        5: 00003, 00004, 00005 and 2 more",
            f"              to go on: {COMMAND}",
        ]

    def test_the_command_of_a_retry_is_not_the_one_to_go_on_with(self, store: Store, source: Path) -> None:
        write_tars(source, 1, 1, first=3)
        retry = "tagstream retry store"
        store.run(RUN).write_job(job_record(RUN, started="2026-02-02T00:00:00.000+00:00", command=retry))
        result = run(store.url)
        assert f"to go on: {COMMAND}" in result.stdout
        assert retry not in result.stdout

    def test_changed_and_missing_shards_are_named(self, store: Store, source: Path) -> None:
        (source / "00000.tar").write_bytes(shard_bytes(8, 5))
        (source / "00001.tar").unlink()
        result = run(store.url)
        assert result.return_value == 0
        assert line_of(result, "changed").startswith("  changed     1: 00000;")
        assert line_of(result, "missing").startswith("  missing     1: 00001;")

    def test_a_source_that_is_gone_is_one_line_and_the_rest_is_shown(self, store: Store, source: Path) -> None:
        shutil.rmtree(source)
        result = run(store.url)
        assert result.return_value == 0
        assert "could not be looked at" in line_of(result, "source")
        assert "6 labelled" in line_of(result, "images")
        assert line_of(result, "last job")

    def test_rejects_come_by_class_with_the_first_three(self, store: Store) -> None:
        lines = run(store.url).stdout.splitlines()
        place = lines.index("  rejected    4 x NoImage (read), e.g.")
        assert [line.split(":")[0] for line in lines[place + 1 : place + 4]] == [
            f"              bad/{number}" for number in range(3)
        ]

    def test_a_job_that_wrote_no_end_is_running_or_was_killed(self, store: Store) -> None:
        store.run(RUN).write_job(job_record(RUN, started="2026-02-02T00:00:00+00:00", outcome="running"))
        expected = "  last job    running since 2026-02-02T00:00:00+00:00, or was killed"
        assert line_of(run(store.url), "last job") == expected

    def test_what_was_predicted_stands_beside_what_the_job_took(self, store: Store) -> None:
        assert line_of(run(store.url), "last job").endswith("in 2.0 s, labelling at 4.0 images/s")
        store.run(RUN).write_job(job_record(RUN, started="2026-02-02T00:00:00+00:00", predicted_s=2.5))
        assert line_of(run(store.url), "last job").endswith("in 2.0 s (predicted: 2.5 s), labelling at 4.0 images/s")

    def test_names_of_a_source_cannot_steer_the_terminal(self, store: Store, source: Path) -> None:
        (source / "a\x1b[2Jb.tar").write_bytes(shard_bytes(3, 1))
        assert "\x1b" not in run(store.url).stdout

    def test_a_store_that_cannot_be_read_says_what_finds_the_damage(self, store: Store) -> None:
        for path in Path(store.root, "labels").rglob("*.parquet"):
            path.write_bytes(b"PAR1")
        with pytest.raises(TagstreamError, match="--verify"):
            run(store.url)


class TestVerify:
    """`--verify` and `--repair`."""

    def test_a_good_store_is_one_line(self, store: Store) -> None:
        result = run(store.url, "--verify")
        read = "3 files of images with their labels read, 10 images, 6 labels"
        assert (result.return_value, result.stdout) == (0, f"run {RUN}: {read}: all whole\n")

    def test_damage_is_a_line_with_what_mends_it_and_an_exit_code(self, store: Store) -> None:
        Path(store.layout.run(RUN).labels("00000.parquet")).unlink()
        result = run(store.url, "--verify")
        _, line = result.stdout.splitlines()
        assert result.return_value == 1
        assert line.startswith(f"  missing     labels/run={RUN}/00000.parquet is missing; expected")
        assert "--repair" in line

    def test_what_was_left_behind_is_no_failure(self, store: Store) -> None:
        Path(store.layout.run(RUN).images("00000.parquet")).unlink()
        result = run(store.url, "--verify")
        assert (result.return_value, result.stdout.splitlines()[1].split()[0]) == (0, "leftover")

    def test_repair_says_what_it_did_and_the_command_that_completes_the_run(self, store: Store) -> None:
        Path(store.layout.run(RUN).labels("00000.parquet")).unlink()
        result = run(store.url, "--repair")
        assert result.return_value == 0
        assert result.stdout.splitlines()[2:] == [
            f"  taken out   images/run={RUN}/00000.parquet and its labels, 1 shards open now",
            f"  to complete the run: {COMMAND}",
        ]
        assert run(store.url, "--verify").return_value == 0
        assert line_of(run(store.url), "open") == "  open        1: 00000"

    def test_what_only_a_hand_can_mend_is_a_failure_after_the_repair_too(self, store: Store) -> None:
        Path(store.root, "runs", RUN, "run.json").write_text("{")
        assert run(store.url, "--repair").return_value == 1

    def test_a_good_store_has_nothing_to_repair(self, store: Store) -> None:
        assert run(store.url, "--repair", "--run", RUN).stdout.splitlines()[1:] == ["  nothing to repair"]

    @pytest.mark.parametrize("option", ["--verify", "--repair"])
    def test_a_store_that_is_not_there_is_one_sentence(self, tmp_path: Path, option: str) -> None:
        with pytest.raises(TagstreamError, match="there is no store at"):
            run(str(tmp_path / "nowhere"), option)

    def test_the_help_fits_a_screen(self) -> None:
        assert len(run("--help").stdout.splitlines()) <= 30
