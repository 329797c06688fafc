"""Joins or starts Ray, and plans a labelling pool that the cluster can really schedule."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ClusterError, one_line
from pipeline.settings.labelling import LabelSettings

_MAX_CPUS_PER_ACTOR = 8
_CPUS_PER_CPU_ACTOR = 4
# Ray counts in ten-thousandths of a resource.
_PARTS = 10_000
# Ray's Jobs API gives this to the command of every job that it runs, those of KubeRay's RayJobs among them.
_MARK_OF_A_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# They name files and roles of this machine, or say how it gets at them; other machines have their own, which these
# would hide. And keys of other services.
_AWS_OF_THIS_MACHINE = {
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CREDENTIAL_FILE",
    "AWS_DATA_PATH",
    "AWS_DEFAULT_PROFILE",
    "AWS_EXECUTION_ENV",
    "AWS_IMDS_USE_IPV6",
    "AWS_LOGIN_CACHE_DIRECTORY",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
}
_AWS_KINDS_OF_THIS_MACHINE = ("AWS_BEARER_TOKEN_", "AWS_CONTAINER_", "AWS_EC2_METADATA_", "AWS_LAMBDA_")
# NVIDIA's, WSL's, AMD's.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True, slots=True)
class Node:
    """What one node of the cluster offers."""

    n_cpus: int
    n_gpus: int
    resources: Mapping[str, float] = field(default_factory=dict)
    """Its custom resources."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """The labelling pool: how many actors, what each reserves, and how it computes."""

    n_actors: int
    """The most that there will be."""
    min_actors: int
    """How many there are at first; the pool grows where they are busy."""
    cpus_per_actor: int
    gpus_per_actor: float
    resources: Mapping[str, float]
    """Custom resources that each reserves."""
    label_selector: Mapping[str, str]
    """Labels of the nodes that they may live on."""
    device: str
    dtype: str
    n_threads: int
    batch_size: int


def cluster_address(given: str | None) -> str | None:
    """The cluster to join: the one that is named, or the one that runs this process as its job; None is this machine.

    RAY_ADDRESS alone is no reason to join a cluster: on a laptop it may be left over from other work.
    """
    if given or _MARK_OF_A_RAY_JOB not in os.environ:
        return given
    return os.environ.get("RAY_ADDRESS") or "auto"


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
    terminate = signal.getsignal(signal.SIGTERM)
    level = logging.INFO if verbose else logging.ERROR
    options = {"logging_level": level, "log_to_driver": verbose, "configure_logging": verbose}
    address = cluster_address(address)
    try:
        with contextlib.nullcontext() if verbose else silence():
            if address:
                ray.init(address=address, runtime_env={"env_vars": _missing_environment()}, **options)
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
    # What Ray Data logs as an error is raised too, and reaches the user as one sentence.
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.CRITICAL)
    return True


def _start_locally(options: Mapping[str, Any]) -> None:
    """Starts Ray on this machine. Its processes get 30 s, which on a laden machine may not be enough: it has two tries.

    Without an address Ray would join a cluster that happens to run here.
    """
    import ray

    local = {"address": "local", "num_cpus": _local_cpus(), "include_dashboard": False, **options}
    try:
        ray.init(**local)
    except Exception:  # As in start_ray.
        ray.shutdown()
        ray.init(**local)


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
    return cluster_nodes() if cluster_address(address) else [local_node()]


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

    return [
        Node(
            n_cpus=int(node["Resources"].get("CPU", 0)),
            n_gpus=int(node["Resources"].get("GPU", 0)),
            resources=node["Resources"],
            labels=node["Labels"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def plan_pool(nodes: list[Node], settings: LabelSettings) -> PoolPlan:
    """A pool that fits the nodes and leaves at least one CPU for reading.

    Args:
        nodes: what there is now; `settings.nodes_to_come` are added to it.

    Raises ClusterError where that is impossible: Ray would wait for ever without a word (ray-project/ray#44687).
    """
    coming = _nodes_to_come(settings)
    able = [*(node for node in nodes if _may_label(node, settings)), *coming]
    with_gpus = [node for node in able if node.n_gpus]
    gpus = settings.gpus_per_actor if with_gpus else 0.0
    cpus = _cpus_beside_gpu(with_gpus, gpus) if with_gpus else _cpus_of_cpu_actor(able)
    n_cpus = sum(node.n_cpus for node in [*nodes, *coming])
    # An actor lives on one node, with all that it reserves.
    slots = [_slots(node, cpus, gpus, settings) for node in able]
    most = min(sum(slots), (n_cpus - 1) // cpus)
    if not with_gpus:
        slots = [min(n, max(1, (node.n_cpus - 1) // _CPUS_PER_CPU_ACTOR)) for node, n in zip(able, slots, strict=True)]
    n_actors = settings.actors or settings.max_actors or max(settings.min_actors, min(most, sum(slots)))
    if not 0 < n_actors <= most:
        raise ClusterError(_does_not_fit(max(1, n_actors), most, cpus, gpus, [*nodes, *coming], settings))
    auto_dtype, batch_size = ("bfloat16", 64) if with_gpus else ("float32", 16)
    grows = settings.min_actors or settings.max_actors
    return PoolPlan(
        n_actors=n_actors,
        min_actors=max(1, settings.min_actors) if grows else n_actors,
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        resources=settings.actor_resources,
        label_selector=settings.label_selector,
        device="cuda" if with_gpus else "cpu",
        dtype=auto_dtype if settings.dtype == "auto" else settings.dtype,
        # On CPUs the model may use those that reading leaves idle: reading costs little beside labelling.
        n_threads=cpus if with_gpus else min(n_cpus // n_actors, max(node.n_cpus for node in able)),
        batch_size=settings.batch_size or batch_size,
    )


def _does_not_fit(n_actors: int, most: int, cpus: int, gpus: float, nodes: list[Node], settings: LabelSettings) -> str:
    """Why so many actors cannot be had, and what to do."""
    n_cpus, n_gpus = sum(node.n_cpus for node in nodes), sum(node.n_gpus for node in nodes)
    each = "".join(f" and {amount:g} {name}" for name, amount in settings.actor_resources.items())
    where = "".join(f" with {name} = {value}" for name, value in settings.label_selector.items())
    on_nodes = f", on nodes{where}," if where else ""
    return (
        f"{n_actors} labelling actors of {cpus} CPUs and {gpus:g} GPUs{each}{on_nodes} do not fit {len(nodes)} nodes "
        f"with {n_cpus} CPUs and {n_gpus} GPUs and one CPU left for reading; at most {most} do, see --actors, and "
        "nodes_to_come where the cluster grows"
    )


def _nodes_to_come(settings: LabelSettings) -> list[Node]:
    """The nodes that the cluster will add; they are for labelling, whatever else that takes."""
    coming = settings.nodes_to_come
    node = Node(coming.cpus, coming.gpus, settings.actor_resources)
    return [node] * coming.count


def _may_label(node: Node, settings: LabelSettings) -> bool:
    """Whether labelling actors may live on a node: it has the labels, and some of each custom resource."""
    has_labels = all(_matches(node.labels.get(name), value) for name, value in settings.label_selector.items())
    return has_labels and all(node.resources.get(name) for name in settings.actor_resources)


def _matches(label: str | None, wanted: str) -> bool:
    """Whether a node's label is as Ray's selector wants it: `value`, `in(a, b)`, each with `!` in front for not."""
    listed = wanted.removeprefix("!")
    values = listed.removeprefix("in(").removesuffix(")").split(",") if listed.startswith("in(") else [listed]
    return (label in {value.strip() for value in values}) != wanted.startswith("!")


def _slots(node: Node, cpus_per_actor: int, gpus_per_actor: float, settings: LabelSettings) -> int:
    """How many actors a node takes."""
    of_resources = [
        round(node.resources[name] * _PARTS) // max(1, round(amount * _PARTS))
        for name, amount in settings.actor_resources.items()
    ]
    return min(_gpu_slots(node, gpus_per_actor), node.n_cpus // cpus_per_actor, *of_resources)


def _gpu_slots(node: Node, gpus_per_actor: float) -> int:
    """How many actors the GPUs of a node take; a share of a GPU is never split over two. Without GPUs no limit."""
    if not gpus_per_actor:
        return sys.maxsize
    if gpus_per_actor >= 1:
        return node.n_gpus // int(gpus_per_actor)
    return node.n_gpus * (_PARTS // max(1, round(gpus_per_actor * _PARTS)))


def _cpus_beside_gpu(nodes: list[Node], gpus_per_actor: float) -> int:
    """CPUs for an actor with a GPU: half of its share on the tightest node, the rest reads."""
    slots = [(node, _gpu_slots(node, gpus_per_actor)) for node in nodes]
    share = min(((node.n_cpus - 1) / n_slots for node, n_slots in slots if n_slots), default=0)
    return max(1, min(_MAX_CPUS_PER_ACTOR, int(share / 2)))


def _cpus_of_cpu_actor(nodes: list[Node]) -> int:
    """CPUs for an actor without a GPU: such that the smallest node with more than one CPU takes it and reads."""
    smallest = min((node.n_cpus for node in nodes if node.n_cpus > 1), default=1)
    return max(1, min(_CPUS_PER_CPU_ACTOR - 1, smallest - 1))


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


def _local_cpus() -> int:
    # With one CPU reserved by the pool there must be another for reading.
    return max(2, len(os.sched_getaffinity(0)))


def forwarded_environment() -> dict[str, str]:
    """Where object storage is and how to log in, for the workers of a cluster that was started without it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("AWS_")
        and name not in _AWS_OF_THIS_MACHINE
        and not name.startswith(_AWS_KINDS_OF_THIS_MACHINE)
    }


def profile_left_behind() -> str | None:
    """The AWS profile that is this machine's only login, if it is: its keys stand in files, which are not forwarded."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    return os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")


def _missing_environment() -> dict[str, str]:
    """What of it Ray does not give to the workers already: it refuses to be told twice, and with all values."""
    of_job = json.loads(os.environ.get(_MARK_OF_A_RAY_JOB, "{}")).get("runtime_env") or {}
    given = of_job.get("env_vars") or {}
    return {name: value for name, value in forwarded_environment().items() if name not in given}
