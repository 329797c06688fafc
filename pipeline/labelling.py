"""The Ray Data flow: shards are read, an actor pool labels, label rows stream back."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from pipeline.cluster import PoolPlan
from pipeline.datasource import ShardDatasource
from pipeline.errors import ClusterError, ModelError, SourceError, TagstreamError
from pipeline.labeler import Labeler, LabelerConfig
from pipeline.settings import LabelSettings
from pipeline.source import Shard

# Two calls at a time: while one holds the device the other decodes.
_CALLS_PER_ACTOR = 2
# Encoded images a task hands on at once. Small, so that a laptop's live line moves; on GPUs large enough that a hundred
# of them do not drown the scheduler in tasks.
_BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 16 << 20}


def stream_labels(
    shards: list[Shard],
    pool: PoolPlan,
    config: LabelerConfig,
    labeler_class: type[Labeler],
    settings: LabelSettings,
) -> Generator[pa.Table, None, None]:
    """Reads and labels shards; yields tables of `pipeline.labeler.LABELLED_ROWS` in no particular order.

    Raises TagstreamError with one clear sentence for whatever stops the work.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    # Reading a worker's memory maps again and again costs more than its batches are worth.
    context.memory_usage_poll_interval_s = None
    context.target_max_block_size = _BLOCK_BYTES[pool.device]
    context.execution_no_progress_timeout_s = settings.no_progress_timeout_s
    source = ShardDatasource(shards, pool.batch_size, settings.max_sample_bytes)
    dataset = ray.data.read_datasource(source, override_num_blocks=len(shards))
    labelled = map_on_pool(dataset, labeler_class, (config,), pool)
    try:
        yield from labelled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except RayError as error:
        raise explain(error) from error


def map_on_pool(dataset: Dataset, labeler_class: type[Labeler], arguments: tuple[Any, ...], pool: PoolPlan) -> Dataset:
    """Rows of `pipeline.datasource.BATCHES` handed to a pool of labelling actors, made with these arguments."""
    return dataset.map_batches(
        labeler_class,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor or None,
        compute=ActorPoolStrategy(
            size=pool.n_actors,
            max_concurrent_calls_per_actor=_CALLS_PER_ACTOR,
            max_tasks_in_flight_per_actor=2 * _CALLS_PER_ACTOR,
            enable_true_multi_threading=True,
        ),
    )


def explain(error: BaseException) -> TagstreamError:
    """The error that a user should see for one that came out of Ray."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, TagstreamError):
        return cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last_line = lines[-1] if lines else type(error).__name__
    for kind in (ModelError, SourceError, ClusterError):
        if f"{kind.__name__}: " in last_line:
            return kind(last_line.split(f"{kind.__name__}: ", 1)[1])
    return TagstreamError(f"a worker failed: {last_line}; run with --verbose for its whole story")
