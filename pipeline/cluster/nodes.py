"""The nodes that a pool can be planned on: this machine, or those of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.cluster.environment import cluster_address

# NVIDIA's, WSL's, AMD's.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True, slots=True)
class Node:
    """What one node of the cluster offers."""

    n_cpus: int
    """Number of CPUs that Ray schedules on it."""
    n_gpus: int
    """Number of its GPUs."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Amounts of its resources, custom ones of Ray among them, by name; by default none."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray's labels of the node, by name; by default none."""


def available_nodes(address: str | None) -> list[Node]:
    """What there is to work on: the nodes of the cluster that was joined, or this machine."""
    return cluster_nodes() if cluster_address(address) else [local_node()]


def local_node() -> Node:
    """What this machine offers to a Ray that is started on it, found without starting it."""
    return Node(local_cpus(), _n_local_gpus())


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


def local_cpus() -> int:
    # With one CPU reserved by the pool there must be another for reading.
    return max(2, len(os.sched_getaffinity(0)))
