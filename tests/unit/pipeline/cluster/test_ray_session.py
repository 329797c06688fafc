"""Starting Ray."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.cluster.ray_session import log_folder, place_of_files, start_ray
from pipeline.errors import ClusterError
from tests.fixtures.checkout import ROOT


@pytest.mark.parametrize("n_failures", [1, 2])
def test_a_start_that_takes_ray_too_long_is_tried_once_more(monkeypatch: pytest.MonkeyPatch, n_failures: int) -> None:
    import ray

    calls: list[str] = []

    def init(address: str, **_: object) -> None:
        calls.append(address)
        if calls.count("local") <= n_failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    # The Ray that other tests of this process share goes on.
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    expected = pytest.raises(ClusterError, match="timed out during startup") if n_failures == 2 else nullcontext()
    with expected:
        start_ray(None, verbose=True)
    assert calls == ["local", "shutdown", "local"]


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_sockets_lie_below_tmp_where_the_folder_of_temporary_files_has_a_long_path(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("scratch" * 8)
    monkeypatch.setenv(variable, str(long))
    assert place_of_files() == {"_temp_dir": "/tmp/ray", "object_spilling_directory": f"{long}/ray"}
    assert log_folder() == "/tmp/ray/session_latest/logs"
    monkeypatch.setattr("pipeline.cluster.ray_session._SHORT_FOLDER", "/proc/1")
    with pytest.raises(ClusterError, match=rf"^{variable} is .*, too long for Ray's sockets .*; set {variable} to"):
        place_of_files()


def test_ray_keeps_its_files_where_the_folder_of_temporary_files_has_a_short_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/scratch")
    assert place_of_files() == {}
    assert log_folder() == "/scratch/ray/session_latest/logs"


@pytest.mark.parametrize(("variables", "is_on"), [({}, False), ({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1"}, True)])
def test_ray_does_not_send_the_folder_that_uv_run_was_started_in_unless_it_is_told_to(
    variables: dict[str, str], is_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray._private import ray_constants

    monkeypatch.setattr(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", True)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start_ray(None, verbose=True)
    assert ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV is is_on


_LEAVE = """
import ray
from pipeline.cluster.ray_session import start_ray, stop_ray

start_ray(None, verbose=False)
held = [iter(ray.data.range(5000, override_num_blocks=50).iter_batches(batch_size=10)) for _ in range(3)]
for batches in held:
    next(batches)
stop_ray()
print("left")
"""


@pytest.mark.long
def test_a_process_goes_on_after_it_left_ray_while_datasets_were_read() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LEAVE], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "left\n"), ended.stderr
