"""The Ray Data flow: shards are read, an actor pool labels, label rows stream back."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import GetTimeoutError, RayError

from pipeline.cluster.pool import PoolPlan, ReadTasks
from pipeline.dataflow.datasource import ShardDatasource
from pipeline.dataflow.labeler import Labeler, LabelerConfig
from pipeline.dataflow.ray_errors import as_sentence, standstill
from pipeline.errors import ClusterError
from pipeline.settings.labelling import DecodePlace, LabelSettings
from pipeline.sources.batches import read_batches_or_failure
from pipeline.sources.shard import Shard

# Two calls at a time: while one holds the device the other decodes.
_CALLS_PER_ACTOR = 2
# Encoded images a task hands on at once. Small, so that a laptop's live line moves; on GPUs large enough that a hundred
# of them do not drown the scheduler in tasks.
_BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 16 << 20}
_SLACK, _SLACK_S = 2, 2


def stream_from_actors(
    shards: list[Shard],
    pool: PoolPlan,
    config: LabelerConfig,
    labeler_class: type[Labeler],
    settings: LabelSettings,
    decode_in: DecodePlace = "actor",
) -> Generator[pa.Table, None, None]:
    """As `pipeline.dataflow.streaming.stream_labels`, on a pool of actors."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    # Reading a worker's memory maps again and again costs more than its batches are worth.
    context.memory_usage_poll_interval_s = None
    context.target_max_block_size = _BLOCK_BYTES[pool.device]
    # An actor that is stuck says so itself, with its name: Ray's own watch comes after.
    context.execution_no_progress_timeout_s = _SLACK * settings.no_progress_timeout_s + _SLACK_S
    dataset = _read(shards, pool, config, labeler_class, settings, decode_in)
    labelled = map_on_pool(dataset, labeler_class, (config,), pool)
    try:
        yield from labelled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except ExecutionTimeoutError as error:
        raise standstill(error, settings.no_progress_timeout_s) from error
    except RayError as error:
        raise as_sentence(error) from error


def _read(
    shards: list[Shard],
    pool: PoolPlan,
    config: LabelerConfig,
    labeler_class: type[Labeler],
    settings: LabelSettings,
    decode_in: DecodePlace,
) -> Dataset:
    """Rows of `BATCHES`, or of `DECODED_BATCHES` where they are decoded in the read tasks.

    A stage of its own would not do: where one CPU is left, a reader under back-pressure keeps it, and nothing goes on.
    """
    tasks, read = ReadTasks(1), read_batches_or_failure
    if decode_in == "read":
        tasks = pool.free.read_tasks(len(shards))
        read = labeler_class.decoding_read(config, tasks.n_cpus)
    source = ShardDatasource(shards, pool.batch_size, settings.max_sample_bytes, read)
    return ray.data.read_datasource(
        source, num_cpus=tasks.n_cpus, compute=TaskPoolStrategy(tasks.most), override_num_blocks=len(shards)
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
            max_concurrent_calls_per_actor=_CALLS_PER_ACTOR,
            max_tasks_in_flight_per_actor=2 * _CALLS_PER_ACTOR,
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
