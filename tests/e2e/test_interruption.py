"""A job that is killed, stopped, or has another one beside it, and the same command again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from pathlib import Path

import psutil
import pytest

from tests.fixtures.corpus import jpeg, tar_bytes, write_tars
from tests.fixtures.labelling import label_with
from tests.fixtures.processes.commands import n_commits, running, wait_until
from tests.fixtures.processes.instant_command import instant_command
from tests.fixtures.processes.ray_processes import ray_processes
from tests.fixtures.recognizers.instant_labeler import Hold, InstantLabeler
from tests.fixtures.stored.queries import read_table

N_SHARDS, N_SAMPLES = 24, 16
N_IN_A_BATCH = 8
N_BATCHES = N_SHARDS * N_SAMPLES // N_IN_A_BATCH
# For a batch: a job is in the midst of its work when it is disturbed.
SLOWLY_S = 0.5
# For a process to end that was stopped, however busy the machine.
PATIENCE_S = 120
ON_RAY = ("--address", "local")


def outcomes(store: Path) -> list[str]:
    """What the store says of its jobs, the oldest first."""
    return [json.loads(path.read_text())["outcome"] for path in sorted(store.glob("runs/*/jobs/*.json"))]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source and the store that one job made of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_tars(folder / "source", N_SHARDS, N_SAMPLES)
    label_with(tiny_model, folder / "source", folder / "store", labeler_class=InstantLabeler)
    return folder


def job(
    folder: Path, store: Path, tiny_model: Path, seconds_a_batch: float, *where: object, hold: Hold | None = None
) -> list[object]:
    """A job that labels the folder's source, and takes this long for a batch that is not held."""
    settings = ["--model", tiny_model, "--batch-size", N_IN_A_BATCH, "--top-k", 5, *where]
    return instant_command(seconds_a_batch, "label", folder / "source", "--store", store, *settings, hold=hold)


def held_after(n_batches: int, folder: Path) -> Hold:
    """Keeps a job from its end, however late it is disturbed."""
    (folder / "hold").mkdir()
    return Hold(str(folder / "hold"), n_batches)


def assert_equal(store: Path, undisturbed: Path) -> None:
    for table in ("images", "labels"):
        assert read_table(store, table).equals(read_table(undisturbed / "store", table))


@pytest.mark.long
def test_after_a_kill_of_the_whole_process_group_the_tables_equal_those_of_an_undisturbed_run(
    environment: dict[str, str], undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    # Half of it: there may be two actors.
    hold = held_after(N_BATCHES // 2 - 2, tmp_path)
    command = job(undisturbed, tmp_path / "killed", tiny_model, SLOWLY_S, *ON_RAY, hold=hold)
    with running(command, environment) as process:
        wait_until(lambda: n_commits(tmp_path / "killed") >= 2, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    n_committed = n_commits(tmp_path / "killed")
    with running(job(undisturbed, tmp_path / "killed", tiny_model, 0), environment) as again:
        output, errors = again.communicate(timeout=180)

    assert 2 <= n_committed < N_SHARDS
    assert again.returncode == 0, errors
    assert f"in {N_SHARDS - n_committed} shards" in output
    assert_equal(tmp_path / "killed", undisturbed)


# Ways of not labelling an image again: settings, and what counts the images.
SPARING = {"equal": ({"reuse": True}, "n_reused"), "alike": ({"skip_near_duplicates": True}, "n_near_duplicates")}


@pytest.fixture(scope="module")
def repeating(tiny_model: Path, shared_ray: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source in which most images occur several times, and of each way the store that one job on Ray made of it."""
    folder = tmp_path_factory.mktemp("repeating")
    (folder / "source").mkdir()
    draw = random.Random(3)
    for shard in range(N_SHARDS):
        members = [(f"{place:02}.jpg", jpeg(draw.randrange(120))) for place in range(N_SAMPLES)]
        (folder / "source" / f"{shard:02}.tar").write_bytes(tar_bytes(members))
    for way, (settings, count) in SPARING.items():
        settings = {"labeler_class": InstantLabeler, "address": shared_ray, "actors": 1, **settings}
        record = label_with(tiny_model, folder / "source", folder / way / "store", **settings).record
        assert getattr(record, count) > N_SAMPLES
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("way", "n_before"), [("equal", 1), ("equal", 9), ("equal", 20), ("alike", 9)])
def test_after_a_kill_the_same_images_have_labels_of_their_own(
    environment: dict[str, str], repeating: Path, tiny_model: Path, tmp_path: Path, way: str, n_before: int
) -> None:
    store = tmp_path / "killed"
    sparing = ("--actors", 1, *(("--reuse", store) if way == "equal" else ("--skip-near-duplicates",)))
    # The last shard is never whole.
    hold = held_after(N_BATCHES - 1, tmp_path)
    command = job(repeating, store, tiny_model, SLOWLY_S / 2, *ON_RAY, *sparing, hold=hold)
    with running(command, environment) as process:
        wait_until(lambda: n_commits(store) >= n_before, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert n_before <= n_commits(store) < N_SHARDS
    # Without Ray, where shards would look at one another otherwise.
    with running(job(repeating, store, tiny_model, 0, *sparing), environment) as again:
        _, errors = again.communicate(timeout=180)
    assert again.returncode == 0, errors
    assert_equal(store, repeating / way)


@pytest.mark.long
def test_of_two_jobs_at_once_one_that_wakes_up_late_adds_and_changes_nothing(
    environment: dict[str, str], undisturbed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    hold = held_after(0, tmp_path)
    command = job(undisturbed, tmp_path / "store", tiny_model, SLOWLY_S, hold=hold)
    with running(command, environment) as late:
        wait_until(lambda: outcomes(tmp_path / "store") == ["running"], late)
        with running(command, environment) as other:
            wait_until(lambda: outcomes(tmp_path / "store") == ["running"] * 2, other)
            # Both have every shard to label, and begin now.
            hold.let_go()
            wait_until(lambda: n_commits(tmp_path / "store") > 0, late)
            late.send_signal(signal.SIGSTOP)
            assert n_commits(tmp_path / "store") < N_SHARDS
            _, errors = other.communicate(timeout=240)
            assert sorted(outcomes(tmp_path / "store")) == ["done", "running"]
            late.send_signal(signal.SIGCONT)
            _, late_errors = late.communicate(timeout=240)

    assert (other.returncode, late.returncode) == (0, 0), errors + late_errors
    assert outcomes(tmp_path / "store") == ["done"] * 2
    assert_equal(tmp_path / "store", undisturbed)


@pytest.mark.long
def test_a_job_that_loses_rays_head_process_does_not_end_without_a_word(
    environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    hold = held_after(N_BATCHES // 2 - 2, tmp_path)
    command = job(tmp_path, tmp_path / "store", tiny_model, SLOWLY_S, *ON_RAY, hold=hold)
    # Ray waits for a minute else.
    with running(command, {**environment, "RAY_gcs_rpc_server_reconnect_timeout_s": "2"}) as process:
        wait_until(lambda: n_commits(tmp_path / "store") > 0, process)
        heads = ray_processes("gcs/gcs_server ", psutil.Process(process.pid))
        assert heads
        for head in heads:
            # Where Ray was too slow to start at first, the head of that try may be there still, and end by itself.
            with contextlib.suppress(psutil.NoSuchProcess):
                head.kill()
        _, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 1
    assert "Ray lost its head process" in errors


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("where", [(), pytest.param(ON_RAY, marks=pytest.mark.long)], ids=["in-process", "on-ray"])
def test_ctrl_c_and_a_scheduler_stop_a_job_cleanly_and_it_says_how_to_go_on(
    environment: dict[str, str],
    tiny_model: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    where: tuple[str, ...],
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    hold = held_after(N_BATCHES // 2 - 2, tmp_path)
    with running(job(tmp_path, tmp_path / "store", tiny_model, SLOWLY_S, *where, hold=hold), environment) as process:
        wait_until(lambda: n_commits(tmp_path / "store") > 0, process)
        # A terminal tells the whole group, a scheduler the process that it started.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == code
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "store").rglob("*.tmp"))


@pytest.mark.long
def test_ctrl_c_does_not_wait_for_a_batch_that_takes_long(
    environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    # Its first batch is at work for ever.
    hold = held_after(0, tmp_path)
    with running(job(tmp_path, tmp_path / "store", tiny_model, 0, hold=hold), environment) as process:
        wait_until(lambda: hold.is_reached, process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert "Stopped. 0 shards of this job are committed; run the same command to go on." in errors
    assert outcomes(tmp_path / "store") == ["interrupted"]
