"""How many images a GPU labels at once: found by trying, once a run.

A GPU that gets few images at a time waits for the launches of its kernels, and one that gets many holds keys and values
of all their branches. Where the one ends and the other begins depends on the model, the number of labels and the card.

Labels must not depend on it within a run. Half-precision products of other shapes are rounded otherwise, so that labels
may change with the size of a batch, as they do from one GPU to another. So the size is found once, before the run's
first image: the job's record keeps it, and the run's later jobs on GPUs label in the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.cluster.pool import PoolPlan
from pipeline.errors import ClusterError
from schemas import JobRecord

TO_BE_FOUND = 0
# Half a minute is spent on the search, most of it to load the model. Labelling so much takes several.
_MIN_SEARCHED_BYTES = 4 << 30
_LARGEST = 512
# Twice the images have to bring so much more speed.
_MIN_GAIN = 1.05
# Images of a corpus may be larger than those of the search, and their labels longer.
_USABLE_MEMORY = 0.7


@dataclass(frozen=True, slots=True)
class Trial:
    """What labelling in batches of one size came to."""

    images_per_s: float
    peak_bytes: int
    """The most memory of the device that was in use."""


def batch_size_of_job(batch_size: int, pool: PoolPlan, former: Sequence[JobRecord], n_bytes: int | None) -> int:
    """Images that a job labels at once; `TO_BE_FOUND` where a search is to say.

    Args:
        batch_size: what the settings ask for; 0 leaves it to the program.
        pool: its batch size is that of a device without a search.
        former: records of the run's jobs, the last one last.
        n_bytes: size of what the job labels; None where the source does not say.
    """
    if batch_size or pool.device == "cpu":
        return pool.batch_size
    on_gpus = [job.workers["batch_size"] for job in former if job.workers.get("device") == pool.device]
    known = [size for size in on_gpus if size != TO_BE_FOUND]
    if known:
        return int(known[-1])
    is_small = pool.in_process or (n_bytes is not None and n_bytes < _MIN_SEARCHED_BYTES)
    return pool.batch_size if is_small else TO_BE_FOUND


def search_batch_size(attempt: Callable[[int], Trial | None], memory_bytes: int) -> int:
    """The size from which on a larger batch is hardly faster, or does not fit the device's memory.

    Args:
        attempt: labels in batches of a size; None where the device's memory did not suffice.
        memory_bytes: of the device, for this model.

    Raises ClusterError where not even one image fits.
    """
    best: Trial | None = None
    best_size = size = 1
    while size <= _LARGEST:
        trial = attempt(size)
        if trial is None or trial.peak_bytes > _USABLE_MEMORY * memory_bytes:
            break
        if best is not None and trial.images_per_s < _MIN_GAIN * best.images_per_s:
            break
        best, best_size, size = trial, size, 2 * size
    if best is None:
        raise ClusterError(
            f"the model and one image do not fit {_USABLE_MEMORY:.0%} of the device's memory ({memory_bytes:,} bytes); "
            "take a smaller model, a smaller top_k, or set batch_size = 1 to try it all the same"
        )
    return best_size
