"""Joins or starts Ray, and plans a labelling pool that the cluster can really schedule."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ClusterError
from pipeline.settings import LabelSettings

_MAX_CPUS_PER_ACTOR = 8
_CPUS_PER_CPU_ACTOR = 4


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
    level = logging.INFO if verbose else logging.ERROR
    options = {"logging_level": level, "log_to_driver": verbose, "configure_logging": verbose}
    try:
        with contextlib.nullcontext() if verbose else _silence():
            if address:
                ray.init(address=address, runtime_env={"env_vars": _forwarded_environment()}, **options)
            else:
                ray.init(num_cpus=_local_cpus(), include_dashboard=False, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise ClusterError(f"cannot reach {where}: {' '.join(str(error).split())}") from error
    # What Ray Data logs as an error is raised too, and reaches the user as one sentence.
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.CRITICAL)
    return True


def stop_ray() -> None:
    """Leaves Ray; a Ray that was started here ends."""
    import ray

    ray.shutdown()


def local_node() -> Node:
    """What this machine offers to a Ray that is started on it, found without starting it."""
    import torch

    return Node(_local_cpus(), torch.cuda.device_count())


def cluster_nodes() -> list[Node]:
    """The living nodes of the cluster."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]


def plan_pool(nodes: list[Node], settings: LabelSettings) -> PoolPlan:
    """A pool that fits the nodes and leaves at least one CPU for reading.

    Raises ClusterError where that is impossible: Ray would wait for ever without a word (ray-project/ray#44687).
    """
    n_cpus, n_gpus = sum(node.n_cpus for node in nodes), sum(node.n_gpus for node in nodes)
    if n_gpus:
        slots = sum(int(node.n_gpus / settings.gpus_per_actor) for node in nodes)
        n_actors = settings.actors or slots
        spare = min((node.n_cpus - 1) / (node.n_gpus / settings.gpus_per_actor) for node in nodes if node.n_gpus)
        cpus = max(1, min(_MAX_CPUS_PER_ACTOR, int(spare / 2)))
        plan = PoolPlan(n_actors, cpus, settings.gpus_per_actor, "cuda", "bfloat16", cpus, 64)
    else:
        cpus = max(1, min(_CPUS_PER_CPU_ACTOR - 1, min((node.n_cpus for node in nodes if node.n_cpus), default=1) - 1))
        slots = sum(node.n_cpus // cpus for node in nodes)
        n_actors = settings.actors or max(1, sum((node.n_cpus - 1) // _CPUS_PER_CPU_ACTOR for node in nodes))
        # The model may use the CPUs that reading leaves idle: reading costs little beside labelling.
        plan = PoolPlan(n_actors, cpus, 0.0, "cpu", "float32", max(1, n_cpus // n_actors), 16)
    if plan.n_actors > slots or plan.n_actors * plan.cpus_per_actor + 1 > n_cpus:
        raise ClusterError(
            f"{plan.n_actors} labelling actors of {plan.cpus_per_actor} CPUs and {plan.gpus_per_actor:g} GPUs do not "
            f"fit the cluster's {n_cpus} CPUs and {n_gpus} GPUs with one CPU left for reading; use fewer --actors"
        )
    dtype = plan.dtype if settings.dtype == "auto" else settings.dtype
    batch_size = settings.batch_size or plan.batch_size
    return PoolPlan(
        plan.n_actors, plan.cpus_per_actor, plan.gpus_per_actor, plan.device, dtype, plan.n_threads, batch_size
    )


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


def _local_cpus() -> int:
    # With one CPU reserved by the pool there must be another for reading.
    return max(2, len(os.sched_getaffinity(0)))


def _forwarded_environment() -> dict[str, str]:
    """Where object storage is and how to log in, for the workers of a cluster that was started without it."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
