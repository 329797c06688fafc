"""Joins or starts Ray, and plans a labelling pool that the cluster can really schedule."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cluster.nodes import Node
from pipeline.errors import ClusterError
from pipeline.settings.labelling import LabelSettings

_MAX_CPUS_PER_ACTOR = 8
_CPUS_PER_CPU_ACTOR = 4
# Ray counts in ten-thousandths of a resource.
_PARTS = 10_000


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
