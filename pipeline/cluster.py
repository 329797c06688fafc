"""Joins or starts Ray, and plans a labelling pool that the cluster can really schedule."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ClusterError, one_line
from pipeline.settings import LabelSettings

_MAX_CPUS_PER_ACTOR = 8
_CPUS_PER_CPU_ACTOR = 4
_GPU_PARTS = 10_000
# NVIDIA's, WSL's, AMD's.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True, slots=True)
class Node:
    """What one node of the cluster offers."""

    n_cpus: int
    n_gpus: int


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The labelling pool: how many actors, what each reserves, and how it computes."""

    n_actors: int
    cpus_per_actor: int
    gpus_per_actor: float
    device: str
    dtype: str
    n_threads: int
    batch_size: int


def start_ray(address: str | None, verbose: bool) -> bool:
    """Joins the cluster at `address`, or starts Ray on this machine, quietly unless `verbose`.

    Returns: whether it did; False where this process has joined or started Ray before.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not verbose:
        # Ray's own log noise: an alarming line on every pool among it (ray-project/ray#57733).
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    import ray

    if ray.is_initialized():
        return False
    terminate = signal.getsignal(signal.SIGTERM)
    level = logging.INFO if verbose else logging.ERROR
    options = {"logging_level": level, "log_to_driver": verbose, "configure_logging": verbose}
    try:
        with contextlib.nullcontext() if verbose else _silence():
            if address:
                ray.init(address=address, runtime_env={"env_vars": _forwarded_environment()}, **options)
            else:
                # Without an address Ray would join a cluster that happens to run on this machine.
                ray.init(address="local", num_cpus=_local_cpus(), include_dashboard=False, **options)
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
    # What Ray Data logs as an error is raised too, and reaches the user as one sentence.
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.CRITICAL)
    return True


def stop_ray() -> None:
    """Leaves Ray; a Ray that was started here ends."""
    import ray

    ray.shutdown()


@contextlib.contextmanager
def joined_ray(address: str | None, verbose: bool) -> Iterator[None]:
    """Ray, joined or started as by `start_ray`, and left again where this did it."""
    did_start = start_ray(address, verbose)
    try:
        yield
    finally:
        if did_start:
            stop_ray()


def available_nodes(address: str | None) -> list[Node]:
    """What there is to work on: the nodes of the cluster that was joined, or this machine."""
    return cluster_nodes() if address else [local_node()]


def local_node() -> Node:
    """What this machine offers to a Ray that is started on it, found without starting it."""
    return Node(_local_cpus(), _n_local_gpus())


def _n_local_gpus() -> int:
    # Without a driver's device file there is no GPU, and no need to spend seconds on loading torch.
    if not any(Path(device).exists() for device in _GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def cluster_nodes() -> list[Node]:
    """The living nodes of the cluster."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]


def plan_pool(nodes: list[Node], settings: LabelSettings) -> PoolPlan:
    """A pool that fits the nodes and leaves at least one CPU for reading.

    Raises ClusterError where that is impossible: Ray would wait for ever without a word (ray-project/ray#44687).
    """
    with_gpus = [node for node in nodes if node.n_gpus]
    gpus = settings.gpus_per_actor if with_gpus else 0.0
    cpus = _cpus_beside_gpu(with_gpus, gpus) if with_gpus else _cpus_of_cpu_actor(nodes)
    n_cpus = sum(node.n_cpus for node in nodes)
    # An actor lives on one node, with all that it reserves.
    slots = [min(_gpu_slots(node, gpus), node.n_cpus // cpus) for node in nodes]
    most = min(sum(slots), (n_cpus - 1) // cpus)
    if not with_gpus:
        slots = [min(n, max(1, (node.n_cpus - 1) // _CPUS_PER_CPU_ACTOR)) for node, n in zip(nodes, slots, strict=True)]
    n_actors = settings.actors or min(most, sum(slots))
    if not 0 < n_actors <= most:
        n_gpus = sum(node.n_gpus for node in nodes)
        raise ClusterError(
            f"{max(1, n_actors)} labelling actors of {cpus} CPUs and {gpus:g} GPUs do not fit {len(nodes)} nodes with "
            f"{n_cpus} CPUs and {n_gpus} GPUs and one CPU left for reading; at most {most} do, see --actors"
        )
    auto_dtype, batch_size = ("bfloat16", 64) if with_gpus else ("float32", 16)
    return PoolPlan(
        n_actors=n_actors,
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        device="cuda" if with_gpus else "cpu",
        dtype=auto_dtype if settings.dtype == "auto" else settings.dtype,
        # On CPUs the model may use those that reading leaves idle: reading costs little beside labelling.
        n_threads=cpus if with_gpus else min(n_cpus // n_actors, max(node.n_cpus for node in nodes)),
        batch_size=settings.batch_size or batch_size,
    )


def _gpu_slots(node: Node, gpus_per_actor: float) -> int:
    """How many actors the GPUs of a node take; a share of a GPU is never split over two. Without GPUs no limit."""
    if not gpus_per_actor:
        return sys.maxsize
    if gpus_per_actor >= 1:
        return node.n_gpus // int(gpus_per_actor)
    # Ray counts in ten-thousandths of a GPU.
    return node.n_gpus * (_GPU_PARTS // max(1, round(gpus_per_actor * _GPU_PARTS)))


def _cpus_beside_gpu(nodes: list[Node], gpus_per_actor: float) -> int:
    """CPUs for an actor with a GPU: half of its share on the tightest node, the rest reads."""
    slots = {node: _gpu_slots(node, gpus_per_actor) for node in nodes}
    share = min(((node.n_cpus - 1) / n_slots for node, n_slots in slots.items() if n_slots), default=0)
    return max(1, min(_MAX_CPUS_PER_ACTOR, int(share / 2)))


def _cpus_of_cpu_actor(nodes: list[Node]) -> int:
    """CPUs for an actor without a GPU: such that the smallest node with more than one CPU takes it and reads."""
    smallest = min((node.n_cpus for node in nodes if node.n_cpus > 1), default=1)
    return max(1, min(_CPUS_PER_CPU_ACTOR - 1, smallest - 1))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps Ray's start-up lines, some written by its C++ core, out of the terminal; errors are raised."""
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


def _local_cpus() -> int:
    # With one CPU reserved by the pool there must be another for reading.
    return max(2, len(os.sched_getaffinity(0)))


def _forwarded_environment() -> dict[str, str]:
    """Where object storage is and how to log in, for the workers of a cluster that was started without it."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
