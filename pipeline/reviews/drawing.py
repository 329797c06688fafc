"""Draws images of a run for review, each by itself and with a known probability (Poisson sampling).

What is drawn says something of all images, whatever the way of drawing: an image that was drawn with probability p
stands for 1 / p images (Horvitz and Thompson, 1952). Half of the expected number is drawn evenly, so that no weight is
above twice the mean.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import pyarrow as pa

from pipeline.catalog.connection import Connection, add_table, query_rows, ranking_of, read_sql, run_record
from pipeline.errors import TagstreamError
from schemas import DRAWN, SampleRecord

DrawnBy = Literal["random", "uncertain", "disagreement", "rare"]
WAYS: tuple[str, ...] = get_args(DrawnBy)
_N_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How images are drawn."""

    by: DrawnBy
    """random: all alike. uncertain: rather those whose labels may or may not be true. disagreement: rather those that
    another run labels otherwise. rare: rather those with a rare name."""
    n: int
    """How many images, 1 or more: the expected number."""
    seed: int = 0
    against: str = ""
    """The other run, for disagreement."""


def draw_images(connection: Connection, run: str, draw: Draw) -> tuple[SampleRecord, pa.Table]:
    """Draws labelled images of a run; returns the sample's record and its rows of `schemas.DRAWN`.

    Raises TagstreamError where nothing can be drawn so.
    """
    _check(connection, run, draw)
    of_runs = {"run": run, **({"against": draw.against} if draw.by == "disagreement" else {})}
    connection.execute(read_sql(f"draw_sizes_{draw.by}"), of_runs)
    n_images, drawn = draw_by_size(connection, draw.n, draw.seed)
    if not n_images:
        both = f" and {draw.against} have no labelled image in common" if draw.against else " has no labelled image"
        raise TagstreamError(f"run {run}{both}; there is nothing to draw")
    if not drawn.num_rows:
        raise TagstreamError(f"none of {n_images:,} images was drawn; ask for more than {draw.n} or by another --seed")
    add_table(connection, "drawn_now", drawn)
    rows = connection.sql(read_sql("drawn_rows"), params={"run": run}).to_arrow_table()
    identity = f"{draw.by} {draw.n} {draw.seed} {draw.against} {rows.to_pylist()}"
    sample = f"{draw.by}-{hashlib.sha256(identity.encode()).hexdigest()[:_N_DIGITS]}"
    record = SampleRecord(
        run=run,
        sample=sample,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        drawn_by=draw.by,
        n=draw.n,
        n_drawn=rows.num_rows,
        n_images=n_images,
        seed=draw.seed,
        against=draw.against,
    )
    names = pa.array([sample] * rows.num_rows, pa.string())
    return record, rows.add_column(0, DRAWN.field("sample"), names).cast(DRAWN)


def draw_by_size(connection: Connection, n: int, seed: int) -> tuple[int, pa.Table]:
    """Draws from the connection's table `draw_sizes` (image_id, size).

    Args:
        n: the expected number of images.

    Returns: how many images there are, and those that are drawn: image_id, probability.
    """
    connection.execute(read_sql("draw_shares"))
    ((n_images,),) = connection.execute("SELECT count(*) FROM draw_shares").fetchall()
    factor = _find_factor(connection, n, n_images)
    drawn = connection.sql(read_sql("draw"), params={"factor": factor, "seed": str(seed)}).to_arrow_table()
    return int(n_images), drawn


def _find_factor(connection: Connection, n: int, n_images: int) -> float:
    """What shares are multiplied by, so that the probabilities, 1 at most, add up to n."""
    if n >= n_images:
        # Every share is at least half of the mean.
        return 2.0 * max(1, n_images)
    factor, n_certain = float(n), -1
    while True:
        (row,) = query_rows(connection, "draw_certain", {"factor": factor})
        if row["n_certain"] == n_certain:
            return factor
        n_certain = row["n_certain"]
        factor = (n - n_certain) / row["others"]


def _check(connection: Connection, run: str, draw: Draw) -> None:
    if (draw.by == "disagreement") != bool(draw.against):
        raise TagstreamError(
            "images are drawn by disagreement with another run; name it with --against"
            if draw.by == "disagreement"
            else f"--against names the other run of --by disagreement, and images are drawn by {draw.by}"
        )
    if draw.against == run:
        raise TagstreamError(f"--against is {run}, the run that is drawn from; name another one")
    ranking = ranking_of(run, run_record(connection, run)["labelling"])
    if draw.by == "uncertain" and not ranking.is_probability:
        raise TagstreamError(
            f"run {run} is ranked by {ranking.name}, whose scores are no probabilities and tell nothing of doubt"
        )
