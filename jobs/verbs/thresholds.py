"""`tagstream thresholds`: learns from which score on the labels of a name are right often enough."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.options import (
    FiniteRange,
    format_option,
    labels_options,
    overwrite_option,
    read_run_option,
    store_argument,
    truth_option,
    vocabulary_option,
)
from jobs.console.output import print_rows
from pipeline.analysis.recall import analyse_run
from pipeline.analysis.reviewed import analyse_reviews
from pipeline.analysis.threshold_learning import Counts, LearnedThresholds, NameThreshold, learn_thresholds
from pipeline.catalog.label_choice import LabelChoice
from pipeline.catalog.views import open_store
from pipeline.naming.thresholds import write_thresholds
from pipeline.naming.vocabulary import read_vocabulary

_SHOWN_NAMES = 20
_COUNTED = ["truths", "listed", "hits", "precision", "low", "high", "recall"]
_COLUMNS = ["name", "threshold", "from", *_COUNTED, "kept"]


@click.command
@store_argument
@click.option(
    "--target-precision",
    required=True,
    type=FiniteRange(0, 1, min_open=True),
    help="Share of labels that have to be right; 0.9 is nine in ten.",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, writable=True), help="TOML to write.")
@read_run_option
@overwrite_option
@labels_options
@truth_option
@vocabulary_option
@format_option("table", "csv", "json")
def thresholds(
    store: str,
    target_precision: float,
    out: str,
    run: str | None,
    overwrite: bool,
    labels: LabelChoice,
    truth: Any,
    vocabulary: str | None,
    output: str,
) -> None:
    """Learn for each name, from STORE's truth, the lowest score from which on its labels reach the target precision.

    A name with few labels stays near the threshold that is common to all names. The overall result is measured on
    images that the thresholds were not learned from; the figures of single names are on images that they were.

    \b
    tagstream thresholds STORE --target-precision 0.9 --out thresholds.toml
    """
    rules = read_vocabulary(vocabulary)
    connection, chosen = open_store(store, rules, labels=labels), find_chosen_run(store, run)
    analysis = analyse_reviews(connection, chosen) if truth == "reviews" else analyse_run(connection, chosen, truth)
    learned = learn_thresholds(analysis, rules, target_precision)
    if Path(out).exists() and not overwrite:
        click.echo(f"Note: {out} is replaced; --overwrite says that this is meant.", err=True)
    write_thresholds(out, learned.thresholds)
    if output == "table":
        _print(learned, analysis.n_images)
    elif output == "csv":
        print_rows(_COLUMNS, (list(_row(name).values()) for name in learned.names), output)
    else:
        click.echo(json.dumps(_plain(learned, analysis.n_images), indent=2, ensure_ascii=False))
    click.echo(f"Written: {out}", err=True)


def _print(learned: LearnedThresholds, n_images: int) -> None:
    chosen = learned.thresholds
    click.echo(
        f"run {chosen.run}: {n_images:,} images with a truth ({chosen.truth}), vocabulary {chosen.vocabulary}, "
        f"target precision {chosen.target_precision:g}\n\n"
        "On images that they were not learned from (learned from one half, judged on the other, both ways):\n"
    )
    judged = [{"thresholds": way, **_counted(counts)} for way, counts in learned.judged.items()]
    print_rows(list(judged[0]), (list(row.values()) for row in judged))
    origins = Counter(name.origin for name in learned.names)
    counted = ", ".join(f"{n:,} {origin}" for origin, n in origins.most_common())
    click.echo(
        f"\nCommon threshold {'never' if abs(chosen.common) == float('inf') else format(chosen.common, '.5g')}, "
        f"{'at or below' if chosen.lowest_first else 'at or above'} which a label is confident; it counts as "
        f"{learned.strength:g} labels of a name.\nNames: {counted or 'none listed'}."
    )
    if learned.names:
        shown = learned.names[:_SHOWN_NAMES]
        of_all = (
            f"the {len(shown)} most listed; csv has all" if len(shown) < len(learned.names) else "most listed first"
        )
        click.echo(f"\nEach name on the images that its threshold was learned from, which flatters it ({of_all}):\n")
        print_rows(_COLUMNS, (list(_row(name).values()) for name in shown))


def _row(name: NameThreshold) -> dict[str, Any]:
    """The values of the columns for a name; a threshold that no score reaches is None."""
    kept = name.counts.n_hits / name.n_hits_before if name.n_hits_before else None
    threshold = None if name.origin == "never" else name.threshold
    return {"name": name.name, "threshold": threshold, "from": name.origin, **_counted(name.counts), "kept": kept}


def _counted(counts: Counts) -> dict[str, Any]:
    low, high = counts.interval if counts.n_listed else (None, None)
    values = (counts.n_truth, counts.n_listed, counts.n_hits, counts.precision, low, high, counts.recall)
    return dict(zip(_COUNTED, values, strict=True))


def _plain(learned: LearnedThresholds, n_images: int) -> dict[str, Any]:
    described = {name: value for name, value in asdict(learned.thresholds).items() if name != "thresholds"}
    common = described["common"]
    return {
        **described,
        "common": None if abs(common) == float("inf") else common,
        "strength": learned.strength,
        "n_images": n_images,
        "judged": {way: _counted(counts) for way, counts in learned.judged.items()},
        "names": [_row(name) for name in learned.names],
    }
