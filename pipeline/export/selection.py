"""Which images of a run are exported, and their labels, a limited number of rows in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from model.choices import RANKINGS
from pipeline.catalog.connection import Connection, read_sql
from pipeline.catalog.scope import ChosenImages, narrow_to_run
from pipeline.errors import TagstreamError
from schemas import RunRecord

# Images that one query sorts and puts together with their labels.
_IMAGES_AT_ONCE = 100_000
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What of a run is exported."""

    where: str | None = None
    """Condition over the columns of `images`; it sees the run's images, labels and truth, and no other run."""
    sample: int | None = None
    """How many of the images that meet the condition are exported, drawn by the seed; None exports all."""
    seed: int = 0
    min_score: float | None = None
    """The lowest score of exported labels. An image without such labels is exported all the same."""

    def __post_init__(self) -> None:
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise TagstreamError(f"the lowest score is {self.min_score}; expected a finite number")

    def check_ranking(self, record: RunRecord) -> None:
        """Raises TagstreamError where the best scores of a run are its lowest."""
        ranking = RANKINGS.get(record.labelling.get("ranking", ""))
        if self.min_score is not None and ranking is not None and ranking.lowest_first:
            raise TagstreamError(
                f"run {record.run} is ranked by {ranking.name}, whose best scores are the lowest; leave the limit out"
            )


@dataclass(frozen=True, slots=True)
class SelectedImages:
    """Labelled images of a run that a selection takes; `select_images` makes it."""

    chosen: ChosenImages
    min_score: float | None

    @property
    def n_images(self) -> int:
        return self.chosen.n_images

    def rows(self) -> Iterator[dict[str, Any]]:
        """The images in the order of shard and index, each with lists of its labels and truth.

        Shards are asked for in groups, so that what is in memory does not grow with the run.
        """
        for first, last in _shard_groups(self.chosen.rows("export_shards", {})):
            limits = {"first": first, "last": last, "min_score": self.min_score}
            result = self.chosen.scope.connection.execute(read_sql("export_images"), limits)
            columns = [column[0] for column in result.description]
            while rows := result.fetchmany(_ROWS_AT_ONCE):
                for row in rows:
                    yield dict(zip(columns, row, strict=True))


def select_images(connection: Connection, run: str, selection: Selection, *, confident: bool = False) -> SelectedImages:
    """Narrows a connection to a run, and takes the labelled images that a selection asks for.

    Raises TagstreamError for a condition that is none, fails or holds for no image.

    Args:
        confident: the labels are those that reach the thresholds that the store was opened with.
    """
    chosen = narrow_to_run(connection, run, confident=confident).choose(selection.where)
    if selection.sample is not None:
        chosen = chosen.narrow("export_sample", {"n": selection.sample, "seed": str(selection.seed)})
    if not chosen.n_images:
        which = "has no labelled images" if selection.where is None else f"has no labelled image with {selection.where}"
        raise TagstreamError(f"run {run} {which}; there is nothing to export")
    return SelectedImages(chosen, selection.min_score)


def _shard_groups(shards: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """First and last name of shards that hold about `_IMAGES_AT_ONCE` images together."""
    first, n_images = None, 0
    for shard in shards:
        first = shard["shard"] if first is None else first
        n_images += shard["n_images"]
        if n_images >= _IMAGES_AT_ONCE:
            yield first, shard["shard"]
            first, n_images = None, 0
    if first is not None:
        yield first, shards[-1]["shard"]
