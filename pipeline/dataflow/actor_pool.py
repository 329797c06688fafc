"""The Ray Data flow: shards are read, an actor pool labels, label rows stream back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.exceptions import GetTimeoutError, RayError

from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.datasource import Read, ShardDatasource, group_shards
from pipeline.dataflow.kept_actors import KeptActors
from pipeline.dataflow.ray_errors import as_sentence
from pipeline.dataflow.shared_parts import SharedParts
from pipeline.dataflow.waves import CALLS_AT_ONCE, Stream, Wave, standstill_s
from pipeline.errors import ClusterError
from pipeline.reuse.marking import MarkingRead
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches_or_failure

# Encoded images a task hands on at once. Small, so that a laptop's live line moves; on GPUs large enough that a hundred
# of them do not drown the scheduler in tasks; small enough that a shard is labelled by several actors.
_BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 16 << 20}
# Of shards that are much smaller so many at most are read by one task, and no more than leave each actor some tasks.
_MOST_SHARDS_A_TASK = 64
_TASKS_PER_ACTOR = 16


@contextlib.contextmanager
def open_actors(
    pool: PoolPlan, config: LabelerConfig, labeler_class: type[Labeler], settings: LabelSettings
) -> Iterator[Stream]:
    """As `pipeline.dataflow.streaming.open_labelers`, on actors of Ray, which has been joined."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    # Reading a worker's memory maps again and again costs more than its batches are worth.
    context.memory_usage_poll_interval_s = None
    context.target_max_block_size = _BLOCK_BYTES[pool.device]
    # Reading waits for labelling. Whether nothing moves is seen where both are.
    context.execution_no_progress_timeout_s = -1
    timeout_s = standstill_s(settings.no_progress_timeout_s)
    share = SharedParts()
    with KeptActors(pool, config, labeler_class, timeout_s, settings.no_progress_timeout_s) as actors:
        yield lambda waves: actors.label(_read(wave, pool, config, labeler_class, settings, share) for wave in waves)


def _read(
    wave: Wave,
    pool: PoolPlan,
    config: LabelerConfig,
    labeler_class: type[Labeler],
    settings: LabelSettings,
    share: SharedParts,
) -> Dataset:
    """Rows of `BATCHES`, or of `DECODED_BATCHES` where they are decoded in the read tasks.

    A stage of its own would not do: where one CPU is left, a reader under back-pressure keeps it, and nothing goes on.
    """
    most = min(_MOST_SHARDS_A_TASK, len(wave.shards) // (_TASKS_PER_ACTOR * pool.n_actors))
    groups = group_shards(wave.shards, _BLOCK_BYTES[pool.device], most)
    decode = wave.decode_in == "read"
    tasks = pool.free.read_tasks(len(groups), decode=decode)
    read: Read = read_batches_or_failure if wave.known is None else MarkingRead(share(wave.known))
    if decode:
        read = replace(labeler_class.decoding_read(config, tasks.n_cpus), read=read)
    source = ShardDatasource(wave.shards, pool.batch_size, settings.max_sample_bytes, read, groups)
    return ray.data.read_datasource(
        source, num_cpus=tasks.n_cpus, compute=TaskPoolStrategy(tasks.most), override_num_blocks=len(groups)
    )


def map_on_pool(dataset: Dataset, labeler_class: type[Labeler], arguments: tuple[Any, ...], pool: PoolPlan) -> Dataset:
    """Hands rows of `pipeline.dataflow.datasource.BATCHES` to a pool of labelling actors made with these arguments."""
    return dataset.map_batches(
        labeler_class,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor or None,
        resources=dict(pool.resources) or None,
        label_selector=dict(pool.label_selector) or None,
        compute=ActorPoolStrategy(
            min_size=pool.min_actors,
            max_size=pool.n_actors,
            max_concurrent_calls_per_actor=CALLS_AT_ONCE,
            max_tasks_in_flight_per_actor=2 * CALLS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
    )


def find_batch_size(pool: PoolPlan, config: LabelerConfig, labeler_class: type[Labeler], timeout_s: float) -> int:
    """Images at once that a labeler of the pool finds best on one of its GPUs. Ray has been joined.

    Raises ClusterError where no GPU becomes free within the time, TagstreamError for whatever else is wrong.
    """
    task = ray.remote(
        # Its process ends with it, and gives its memory back before an actor wants it.
        max_calls=1,
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor or None,
        resources=dict(pool.resources) or None,
        label_selector=dict(pool.label_selector) or None,
    )(_find)
    found = task.remote(labeler_class, config, pool.gpus_per_actor)
    try:
        return int(ray.get(found, timeout=timeout_s))
    except GetTimeoutError as error:
        ray.cancel(found, force=True)
        raise ClusterError(
            f"no batch size was found within the {timeout_s:g} s of no_progress_timeout_s; perhaps other jobs hold the "
            "CPUs or GPUs; set batch_size to label without the search"
        ) from error
    except RayError as error:
        raise as_sentence(error) from error


def _find(labeler_class: type[Labeler], config: LabelerConfig, gpus_per_actor: float) -> int:
    # The device's metrics are those of actors.
    return labeler_class(replace(config, job="")).find_batch_size(min(1.0, gpus_per_actor))
