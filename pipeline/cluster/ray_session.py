"""Starts a Ray on this machine or joins a cluster, without Ray's own log, and leaves it again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pipeline
from pipeline.cluster.environment import cluster_address, missing_environment
from pipeline.cluster.nodes import local_cpus
from pipeline.errors import ClusterError
from pipeline.text import one_line

_END_OF_READING_S = 30
_UV_RUN = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
# A path of a socket has 107 bytes. Ray's are /ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store.
_MAX_FOLDER_BYTES = 107 - 69
_SHORT_FOLDER = "/tmp"
_FOLDER_VARIABLES = ("RAY_TMPDIR", "TMPDIR")


def start_ray(address: str | None, verbose: bool) -> bool:
    """Joins the cluster of `cluster_address`, or starts Ray on this machine, quietly unless `verbose`.

    Returns: whether it did; False where this process has joined or started Ray before.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would report what it is used for to its makers, by an actor that takes seconds to start.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not verbose:
        # Ray's own log noise: an alarming line on every pool among it (ray-project/ray#57733).
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    import ray

    if ray.is_initialized():
        return False
    _keep_the_callers_folder_out()
    terminate = signal.getsignal(signal.SIGTERM)
    level = logging.INFO if verbose else logging.ERROR
    options = {"logging_level": level, "log_to_driver": verbose, "configure_logging": verbose}
    address = cluster_address(address)
    try:
        with contextlib.nullcontext() if verbose else silence():
            if address:
                variables = {"env_vars": missing_environment()}
                ray.init(address=address, runtime_env=variables, job_config=_job_config(), **options)
            else:
                _start_locally(options)
    except Exception as error:  # Ray raises no class of its own, and bare Exceptions among them.
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise ClusterError(f"cannot reach {where}: {one_line(error)}") from error
    is_ours = callable(terminate) and not getattr(terminate, "__module__", "").startswith("ray.")
    if is_ours and threading.current_thread() is threading.main_thread():
        # Ray puts a handler of its own in the place of the command's, which stops a job as Ctrl-C does. (That of a
        # Ray that was stopped before has to give way.)
        signal.signal(signal.SIGTERM, terminate)
    if not verbose:
        _hush_losses()
    # Ray Data sets its level when it is imported.
    import ray.data

    # What it logs as an error is raised too, and reaches the user as one sentence.
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.CRITICAL)
    return True


def _start_locally(options: Mapping[str, Any]) -> None:
    """Starts Ray on this machine. Its processes get 30 s, which on a laden machine may not be enough: it has two tries.

    Without an address Ray would join a cluster that happens to run here.
    """
    import ray

    local = {"address": "local", "num_cpus": local_cpus(), "include_dashboard": False, **place_of_files(), **options}
    try:
        ray.init(job_config=_job_config(), **local)
    except Exception:  # As in start_ray.
        ray.shutdown()
        ray.init(job_config=_job_config(), **local)


def place_of_files() -> dict[str, str]:
    """Arguments of `ray.init` that say where Ray's files go; none where the folder of temporary files is good for it.

    Where that folder's path is too long for Ray's sockets, they go below /tmp, with Ray's log. What Ray spills, which
    may be large, stays in the folder. Raises ClusterError where /tmp cannot be written either.
    """
    variable = next((name for name in _FOLDER_VARIABLES if name in os.environ), None)
    folder = os.environ[variable] if variable else ""
    if variable is None or len(os.fsencode(os.path.abspath(folder))) <= _MAX_FOLDER_BYTES:  # noqa: PTH100
        return {}
    if not os.access(_SHORT_FOLDER, os.W_OK | os.X_OK):
        raise ClusterError(
            f"{variable} is {folder}, too long for Ray's sockets (at most {_MAX_FOLDER_BYTES} bytes), and "
            f"{_SHORT_FOLDER} cannot be written; set {variable} to a shorter path"
        )
    return {"_temp_dir": f"{_SHORT_FOLDER}/ray", "object_spilling_directory": f"{folder}/ray"}


def log_folder() -> str:
    """Where a Ray that this process starts keeps its log."""
    folders = [os.environ[name] for name in _FOLDER_VARIABLES if name in os.environ]
    below = place_of_files().get("_temp_dir") or f"{folders[0] if folders else _SHORT_FOLDER}/ray"
    return f"{below}/session_latest/logs"


def _job_config() -> Any:
    """The job as Ray gets it: its workers find tagstream where this process does, before anything of that name.

    Ray would put the working directory, and the folder of the program that runs, in front of all else that a worker
    imports. A `model.py` of the user's would then be taken for tagstream's package.
    """
    from ray.job_config import JobConfig

    class OwnCodeFirst(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            # Ray asks this only to find out whether it may add those folders.
            return True

    return OwnCodeFirst(_py_driver_sys_path=[str(Path(pipeline.__file__).resolve().parents[1])])


def _keep_the_callers_folder_out() -> None:
    """Keeps Ray from sending the working directory, whatever its size, to its workers where `uv run` started this.

    RAY_ENABLE_UV_RUN_RUNTIME_ENV asks for it. Ray read that variable when it was imported.
    """
    from ray._private import ray_constants

    if _UV_RUN not in os.environ:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False


def stop_ray() -> None:
    """Leaves Ray; a Ray that was started here ends. Datasets that somebody still reads end, too."""
    import ray

    _end_reading()
    ray.shutdown()


def _end_reading() -> None:
    """Ends the threads in which Ray Data reads.

    One that calls Ray once it has been left ends the process, silently and with exit code 1
    (ray-project/ray#19115).
    """
    if "ray.data" not in sys.modules:
        return
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    for thread in threading.enumerate():
        if isinstance(thread, StreamingExecutor):
            thread.shutdown(force=True)
            thread.join(_END_OF_READING_S)


@contextlib.contextmanager
def joined_ray(address: str | None, verbose: bool) -> Iterator[None]:
    """Ray, joined or started as by `start_ray`, and left again where this did it."""
    did_start = start_ray(address, verbose)
    try:
        yield
    finally:
        if did_start:
            stop_ray()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps Ray's lines, some written by its C++ core, out of the terminal; errors are raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _hush_losses() -> None:
    """Keeps out of the terminal what Ray prints of every worker and node that it lost; it does their work again itself.

    `log_to_driver` does not cover these lines, and Ray has no other switch for them.
    """
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None
