"""The Ray Data flow: shards are read, an actor pool labels, label rows stream back."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from pipeline.cluster.pool import PoolPlan
from pipeline.dataflow.datasource import ShardDatasource
from pipeline.dataflow.labeler import Labeler, LabelerConfig
from pipeline.errors import ClusterError, ModelError, SourceError, StorageError, TagstreamError
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.listing import Shard

# Two calls at a time: while one holds the device the other decodes.
_CALLS_PER_ACTOR = 2
_ADVICE = ("Failed to apply UDF transform after ", "To change retry attempts, backoff, ")
# Encoded images a task hands on at once. Small, so that a laptop's live line moves; on GPUs large enough that a hundred
# of them do not drown the scheduler in tasks.
_BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 16 << 20}
_SLACK, _SLACK_S = 2, 2


def stream_labels(
    shards: list[Shard],
    pool: PoolPlan,
    config: LabelerConfig,
    labeler_class: type[Labeler],
    settings: LabelSettings,
) -> Generator[pa.Table, None, None]:
    """Reads and labels shards; yields tables of `pipeline.dataflow.labeler.LABELLED_ROWS` in no particular order.

    Raises TagstreamError with one clear sentence for whatever stops the work.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    # Reading a worker's memory maps again and again costs more than its batches are worth.
    context.memory_usage_poll_interval_s = None
    context.target_max_block_size = _BLOCK_BYTES[pool.device]
    # An actor that is stuck says so itself, with its name: Ray's own watch comes after.
    context.execution_no_progress_timeout_s = _SLACK * settings.no_progress_timeout_s + _SLACK_S
    source = ShardDatasource(shards, pool.batch_size, settings.max_sample_bytes)
    dataset = ray.data.read_datasource(source, override_num_blocks=len(shards))
    labelled = map_on_pool(dataset, labeler_class, (config,), pool)
    try:
        yield from labelled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except ExecutionTimeoutError as error:
        raise ClusterError(_standstill(error, settings.no_progress_timeout_s)) from error
    except RayError as error:
        raise explain(error) from error


def _standstill(error: ExecutionTimeoutError, timeout_s: int) -> str:
    """What did not move, from Ray's words."""
    running = "; ".join(line.removeprefix("- ") for line in _lines(error) if line.startswith("- "))
    return (
        f"no worker has finished anything for longer than the {timeout_s} s of no_progress_timeout_s; unfinished: "
        f"{running}; "
        "perhaps other jobs hold the CPUs or GPUs, a node is lost, or a file system does not answer"
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


def explain(error: BaseException) -> TagstreamError:
    """The error that a user should see for one that came out of Ray."""
    cause: BaseException | None = error
    while isinstance(cause, BaseException):
        # Ray makes errors that are of the worker's class, too, and say its traceback.
        if isinstance(cause, TagstreamError) and not isinstance(cause, RayError):
            return type(cause)(_lines(cause)[0])
        cause = getattr(cause, "cause", None) or cause.__cause__
    lines = _lines(error)
    for line in reversed(lines):
        for kind in (ModelError, SourceError, ClusterError, StorageError):
            if f"{kind.__name__}: " in line:
                return kind(line.split(f"{kind.__name__}: ", 1)[1])
    return TagstreamError(f"a worker failed: {lines[-1]}; run with --verbose for its whole story")


def _lines(error: BaseException) -> list[str]:
    """The lines of an error's text, without what Ray Data puts below it about settings of its own."""
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line and not line.startswith(_ADVICE)] or [type(error).__name__]
