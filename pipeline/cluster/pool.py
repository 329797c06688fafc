"""Plans a labelling pool that the cluster can really schedule."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cluster.nodes import Node
from pipeline.errors import ClusterError
from pipeline.settings.labelling import LabelSettings, resolve_dtype

_MAX_CPUS_PER_ACTOR = 8
_CPUS_PER_CPU_ACTOR = 4
# Of an actor that does not decode: one feeds the device, one ranks what it found.
_CPUS_TO_LABEL = 2
_MAX_CPUS_PER_READ_TASK = 8
_BATCH_SIZES = {"cuda": 64, "cpu": 16}
# Ray counts in ten-thousandths of a resource.
_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class ReadTasks:
    """How shards are read, by a task each."""

    n_cpus: int
    """CPUs that each task reserves."""
    most: int
    """How many run at once, at most. More would wait, and take the CPUs of an actor that dies before it is back."""


@dataclass(frozen=True, slots=True)
class FreeCpus:
    """CPUs that no labelling actor reserves."""

    on_nodes: tuple[int, ...]
    """By node, how many there are at least, wherever Ray places the actors."""
    n_all: int
    """How many there are on all nodes together."""
    n_elsewhere: int
    """How many of them are on nodes that have no actors."""

    def read_tasks(self, n_shards: int, *, decode: bool) -> ReadTasks:
        """Tasks for this many shards. Those that decode keep the free CPUs busy.

        One of them fits a node at any time: Ray would wait for ever without a word (ray-project/ray#44687).
        """
        if not decode:
            return ReadTasks(1, self.n_all)
        on_one_node = max(*self.on_nodes, -(-self.n_all // len(self.on_nodes)))
        n_cpus = max(1, min(_MAX_CPUS_PER_READ_TASK, -(-self.n_all // n_shards), on_one_node))
        n_wasted = len(self.on_nodes) * (n_cpus - 1)
        surely = sum(n_free // n_cpus for n_free in self.on_nodes)
        return ReadTasks(n_cpus, max(1, surely, -(-(self.n_all - n_wasted) // n_cpus)))


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """The labelling pool: how many actors, what each reserves, and how it computes."""

    n_actors: int
    """The number of actors that the pool grows to."""
    min_actors: int
    """The number of actors that the pool starts with. It grows where all of them are busy."""
    cpus_per_actor: int
    """CPUs that each actor reserves."""
    gpus_per_actor: float
    """GPUs that each actor reserves, or its share of one GPU; 0 where actors compute on CPUs."""
    resources: Mapping[str, float]
    """Amounts of Ray's custom resources that each actor reserves, by name."""
    label_selector: Mapping[str, str]
    """Ray's labels that a node must have for actors to live on it, by name; empty for all nodes."""
    device: str
    """The actors' torch device: cuda or cpu."""
    dtype: str
    """The dtype that the model computes in: float32, bfloat16 or float16."""
    n_threads: int
    """CPU threads that each actor decodes with, and where it has no GPU, computes with."""
    batch_size: int
    """Images that are labelled together."""
    free: FreeCpus
    """The CPUs that are left: they read, and decode where that is done in read tasks."""
    in_process: bool = False
    """Whether the one actor is no process of its own: the job labels in threads of its own process, without Ray."""


def plan_pool(nodes: list[Node], settings: LabelSettings) -> PoolPlan:
    """A pool that fits the nodes and leaves at least one CPU for reading.

    Args:
        nodes: what there is now; `settings.nodes_to_come` are added to it.

    Raises ClusterError where that is impossible: Ray would wait for ever without a word (ray-project/ray#44687).
    """
    coming = _nodes_to_come(settings)
    able = [*(node for node in nodes if _may_label(node, settings)), *coming]
    nodes = [*nodes, *coming]
    actor = _plan_actor(able, settings)
    n_actors = _count_actors(actor, able, nodes, settings)
    device = "cuda" if actor.gpus else "cpu"
    grows = settings.min_actors or settings.max_actors
    return PoolPlan(
        n_actors=n_actors,
        min_actors=max(1, settings.min_actors) if grows else n_actors,
        cpus_per_actor=actor.cpus,
        gpus_per_actor=actor.gpus,
        resources=actor.resources,
        label_selector=settings.label_selector,
        device=device,
        dtype=resolve_dtype(settings.dtype, device),
        n_threads=actor.cpus if actor.gpus else _idle_cpus(n_actors, able, nodes),
        batch_size=settings.batch_size or _BATCH_SIZES[device],
        free=_free_cpus(actor, n_actors, able, nodes),
    )


@dataclass(frozen=True, slots=True)
class _Actor:
    """What one labelling actor reserves. All of it is on one node."""

    cpus: int
    gpus: float
    resources: Mapping[str, float]

    def slots(self, node: Node) -> int:
        """How many such actors a node takes."""
        of_resources = [
            round(node.resources[name] * _PARTS) // max(1, round(amount * _PARTS))
            for name, amount in self.resources.items()
        ]
        return min(_gpu_slots(node, self.gpus), node.n_cpus // self.cpus, *of_resources)


def _plan_actor(able: list[Node], settings: LabelSettings) -> _Actor:
    """What an actor reserves on nodes that may label: GPUs where any of them has one."""
    with_gpus = [node for node in able if node.n_gpus]
    if not with_gpus:
        return _Actor(_cpus_of_cpu_actor(able), 0.0, settings.actor_resources)
    cpus = _cpus_beside_gpu(with_gpus, settings.gpus_per_actor)
    if settings.place_of_decoding == "read":
        cpus = min(cpus, _CPUS_TO_LABEL)
    return _Actor(cpus, settings.gpus_per_actor, settings.actor_resources)


def _count_actors(actor: _Actor, able: list[Node], nodes: list[Node], settings: LabelSettings) -> int:
    """How many actors the pool has: as many as the settings say, or else as fit. Raises ClusterError for too many.

    Args:
        able: the nodes that may label.
        nodes: all nodes; they read.
    """
    slots = [actor.slots(node) for node in able]
    most = min(sum(slots), (_n_cpus(nodes) - 1) // actor.cpus)
    if not actor.gpus:
        slots = [min(n, max(1, (node.n_cpus - 1) // _CPUS_PER_CPU_ACTOR)) for node, n in zip(able, slots, strict=True)]
    n_actors = settings.actors or settings.max_actors or max(settings.min_actors, min(most, sum(slots)))
    if not 0 < n_actors <= most:
        raise ClusterError(_does_not_fit(max(1, n_actors), most, actor, nodes, settings))
    return n_actors


def _idle_cpus(n_actors: int, able: list[Node], nodes: list[Node]) -> int:
    """CPUs for the model of an actor without a GPU, at most those of the largest node.

    They include those that reading leaves idle: it costs little beside labelling.
    """
    return min(_n_cpus(nodes) // n_actors, max(node.n_cpus for node in able))


def _free_cpus(actor: _Actor, n_actors: int, able: list[Node], nodes: list[Node]) -> FreeCpus:
    """What the actors leave.

    Args:
        able: the nodes that may label, each the same object as in `nodes`.
    """
    may_label = {id(node) for node in able if actor.slots(node)}
    on_nodes = [
        node.n_cpus - min(actor.slots(node), n_actors) * actor.cpus if id(node) in may_label else node.n_cpus
        for node in nodes
    ]
    return FreeCpus(
        on_nodes=tuple(on_nodes),
        n_all=_n_cpus(nodes) - n_actors * actor.cpus,
        n_elsewhere=_n_cpus([node for node in nodes if id(node) not in may_label]),
    )


def _n_cpus(nodes: list[Node]) -> int:
    return sum(node.n_cpus for node in nodes)


def _does_not_fit(n_actors: int, most: int, actor: _Actor, nodes: list[Node], settings: LabelSettings) -> str:
    """Why so many actors cannot be had, and what to do."""
    n_gpus = sum(node.n_gpus for node in nodes)
    each = "".join(f" and {amount:g} {name}" for name, amount in settings.actor_resources.items())
    where = "".join(f" with {name} = {value}" for name, value in settings.label_selector.items())
    on_nodes = f", on nodes{where}," if where else ""
    actors = f"{n_actors} labelling actors of {actor.cpus} CPUs and {actor.gpus:g} GPUs{each}{on_nodes}"
    return (
        f"{actors} do not fit {len(nodes)} nodes with {_n_cpus(nodes)} CPUs and {n_gpus} GPUs and one CPU left for "
        f"reading; at most {most} do, see --actors, and nodes_to_come where the cluster grows"
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
