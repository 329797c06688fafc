"""Small jobs on one machine: they label in their own process, since starting Ray would take longer than they do."""

from __future__ import annotations

from dataclasses import replace

from pipeline.cluster.environment import cluster_address
from pipeline.cluster.nodes import local_cpus
from pipeline.cluster.pool import PoolPlan
from pipeline.settings.labelling import LabelSettings

# Labelling so much takes a minute or more, beside which the start of Ray is little.
MAX_SMALL_BYTES = 256 << 20


def fit_small_job(pool: PoolPlan, n_bytes: int | None, address: str | None, settings: LabelSettings) -> PoolPlan:
    """The pool of a job on so much data: that of the settings, or for a small job one actor in the job's own process.

    A job labels in its own process if neither a Ray (`address`) nor more than one actor is asked for, and what it has
    to label takes at most 256 MiB, as the source lists it.

    Args:
        pool: the pool that the settings lead to.
        n_bytes: size of the shards to label; None where the source does not say.
        address: the Ray that is asked for, if any; `local` is one on this machine.
    """
    asks_for_ray = bool(address) or cluster_address(address) is not None
    asks_for_actors = settings.actors > 1 or settings.min_actors or settings.max_actors
    if asks_for_ray or asks_for_actors or n_bytes is None or n_bytes > MAX_SMALL_BYTES:
        return pool
    n_threads = local_cpus() if pool.device == "cpu" else pool.n_threads
    return replace(pool, n_actors=1, min_actors=1, n_threads=n_threads, in_process=True)
