"""A job that a scheduler starts again and again: increments, alarms, and two that overlap."""

from __future__ import annotations

import io
import json
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.verbs.label import label
from tests.fixtures.corpus import sample_members, shard_bytes, tar_bytes, write_tars
from tests.fixtures.processes.commands import RunFunction, n_commits, running, wait_until
from tests.fixtures.processes.instant_command import do_without_recognizer, instant_command
from tests.fixtures.stored.queries import rows

N_SHARDS, N_SAMPLES = 60, 12
# The whole of these would take minutes.
SECONDS_AN_IMAGE = 0.5
Night = Callable[[], tuple[int, dict[str, Any]]]


@pytest.fixture
def night(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    """What cron runs, in this process and with a recognizer that costs nothing: its exit code and summary."""
    do_without_recognizer(monkeypatch)
    summary, told = tmp_path / "nightly.json", tmp_path / "told.json"
    where = [tmp_path / "source", "--store", tmp_path / "store", "--model", tiny_model]
    asked = [
        "--changed",
        "relabel",
        "--max-reject-rate",
        0.05,
        "--lock",
        "--summary",
        summary,
        "--notify",
        f"tee {told}",
    ]

    def run() -> tuple[int, dict[str, Any]]:
        words = [str(word) for word in [*where, *asked, "--top-k", 5]]
        result = CliRunner().invoke(label, words, standalone_mode=False, catch_exceptions=False)
        found = json.loads(summary.read_text())
        assert json.loads(told.read_text()) == found
        assert not list((tmp_path / "store").rglob("lock-*"))
        return result.return_value, found

    return run


def only(found: dict[str, Any], **expected: Any) -> None:
    """The summary's counts are these, and all others 0."""
    counts = {name: value for name, value in found.items() if name.startswith("n_") and name != "n_labels"}
    assert counts == {**dict.fromkeys(counts, 0), **expected}


def samples(content: bytes) -> list[tuple[str, bool]]:
    """Key of each image of a tar in order, and whether it is one, read without any of the code that is tested."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        images = [member for member in archive if member.name.endswith(".jpg")]
        return [(member.name[:-4], archive.extractfile(member).read(2) == b"\xff\xd8") for member in images]


def assert_tables(store: Path, expected: dict[str, bytes]) -> None:
    """The store holds every sample of these shards once, labelled where it is an image, with all of its labels."""
    wanted = [
        (shard, index, key, "labelled" if is_image else "rejected")
        for shard, content in sorted(expected.items())
        for index, (key, is_image) in enumerate(samples(content))
    ]
    assert rows(store, 'SELECT shard, "index", key, status FROM images ORDER BY ALL') == wanted
    per_image = "SELECT i.n_labels, count(l.label), i.status FROM images i LEFT JOIN labels l USING (run, image_id)"
    for n_labels, n_rows, status in rows(store, f"{per_image} GROUP BY i.run, i.image_id, i.n_labels, i.status"):
        assert n_labels == n_rows
        assert (n_labels > 0) == (status == "labelled")


@pytest.mark.long
def test_three_nights_label_what_is_new_and_changed_and_nothing_else(night: Night, tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_tars(source, 3, 4)
    shards = {path.stem: path.read_bytes() for path in source.iterdir()}

    code, found = night()
    assert (code, found["outcome"], found["alarms"], found["rejects"]) == (0, "done", [], [])
    only(found, n_shards_source=3, n_shards_new=3, n_shards_committed=3, n_images=12, n_labelled=12)
    assert_tables(store, shards)

    # One vanished, one changed, one came, and of the new one's images half are none.
    (source / "00000.tar").unlink()
    shards["00001"] = shard_bytes(41, 5)
    broken = [(f"broken{number}.jpg", b"no image") for number in range(3)]
    shards["00003"] = tar_bytes([*broken, *(m for number in range(3) for m in sample_members(f"good{number}", number))])
    for name in ("00001", "00003"):
        (source / f"{name}.tar").write_bytes(shards[name])
    code, found = night()
    assert (code, found["outcome"], found["exit_code"], found["alarms"]) == (3, "done", 3, ["reject_rate > 0.05"])
    counts = {"n_shards_source": 3, "n_shards_new": 1, "n_shards_changed": 1, "n_shards_missing": 1}
    only(found, **counts, n_shards_committed=2, n_images=11, n_labelled=8, n_rejected=3)
    assert found["reject_rate"] == pytest.approx(3 / 11)
    (reject,) = found["rejects"]
    assert (reject["error"], reject["stage"], reject["n_images"]) == ("ImageUnreadable", "decode", 3)
    assert (reject["shard"], reject["key"], bool(reject["message"])) == ("00003", "broken0", True)
    assert_tables(store, shards)

    # Nothing new; the vanished one is still told of, and its rows stay.
    code, found = night()
    assert (code, found["outcome"], found["exit_code"]) == (0, "nothing_to_do", 0)
    only(found, n_shards_source=3, n_shards_missing=1)
    assert_tables(store, shards)

    # It comes back, as something else.
    shards["00000"] = shard_bytes(42, 3)
    (source / "00000.tar").write_bytes(shards["00000"])
    code, found = night()
    assert (code, found["outcome"]) == (0, "done")
    only(found, n_shards_source=4, n_shards_changed=1, n_shards_committed=1, n_images=3, n_labelled=3)
    assert_tables(store, shards)


@pytest.mark.long
def test_of_two_jobs_that_overlap_the_second_leaves_at_once_and_a_stopped_one_unlocks(
    tagstream: RunFunction, environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    where = ["label", tmp_path / "source", "--store", tmp_path / "store", "--model", tiny_model, "--batch-size", 1]
    watched = ["--lock", "--log-format", "json", "--notify", f"tee {tmp_path / 'told.json'}"]
    # Far from its end when the others have had their turn, however busy the machine.
    first = instant_command(SECONDS_AN_IMAGE, *where, *watched, "--summary", tmp_path / "first.json")
    with running(first, environment) as process:
        wait_until(lambda: n_commits(tmp_path / "store") > 0, process)
        second = tagstream(*where, "--lock", "--summary", tmp_path / "second.json")
        assert process.poll() is None
        status = tagstream("status", tmp_path / "store")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=180)

    assert second.returncode == 5, second.stderr
    (sentence,) = second.stderr.splitlines()
    assert sentence.startswith("Skipped: run tiny-")
    assert f"is held by process {process.pid} on " in sentence
    skipped = json.loads((tmp_path / "second.json").read_text())
    assert (skipped["outcome"], skipped["exit_code"], skipped["n_shards_committed"]) == ("locked", 5, 0)
    assert f"  lock        process {process.pid} on " in status.stdout

    stopped = json.loads((tmp_path / "first.json").read_text())
    assert process.returncode == 143
    assert (stopped["outcome"], stopped["exit_code"]) == ("interrupted", 143)
    assert 0 < stopped["n_shards_committed"] == N_SHARDS - stopped["n_shards_open"]
    assert json.loads((tmp_path / "told.json").read_text()) == stopped
    assert not list((tmp_path / "store").rglob("lock-*"))
    assert_log(log, stopped)


def assert_log(log: str, summary: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    about = [line for line in lines if "run" in line]
    assert {(line["run"], line["job"]) for line in about} == {(summary["run"], summary["started"])}
    assert len([line for line in about if line.get("shard")]) == summary["n_shards_committed"]
    assert lines[-1]["outcome"] == "interrupted"
