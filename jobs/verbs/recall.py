"""`tagstream recall`: measures a run's labels against the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import click

from jobs.console.chosen_run import find_chosen_run
from jobs.console.options import (
    FiniteRange,
    format_option,
    labels_options,
    read_run_option,
    store_argument,
    truth_option,
    vocabulary_option,
)
from jobs.console.output import print_rows
from pipeline.analysis.embeddings import find_embedder
from pipeline.analysis.recall import (
    MeaningMatches,
    RecallAtK,
    RunAnalysis,
    analyse_run,
    calibration_error,
    compare_meanings,
    compare_terms,
)
from pipeline.analysis.reviewed import analyse_reviews
from pipeline.catalog.connection import Connection
from pipeline.catalog.label_choice import LabelChoice
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store

_MAX_K = 200
_WORST_IMAGES = 50


@click.command
@store_argument
@read_run_option
@click.option(
    "--k", "ks", default="1,5,10,20", show_default=True, help="How many labels to judge, separated by commas."
)
@click.option("--match", type=click.Choice(["exact", "wider", "semantic", "paper"]), default="exact", show_default=True)
@labels_options
@truth_option
@click.option(
    "--by",
    type=click.Choice(["label", "shard", "image", "score"]),
    help="One row for each, instead of a summary.",
)
@vocabulary_option
@click.option(
    "--min-cosine", default=0.75, show_default=True, type=FiniteRange(-1, 1), help="Least cosine of a semantic hit."
)
@click.option("--embedder", help="Folder of all-MiniLM-L6-v2.  [default: from the extra `semantic`]")
@format_option("table", "csv", "json")
def recall(store: str, ks: str, match: str, by: str | None, output: str, **options: Any) -> None:
    """Compare the first k labels of STORE's images with their truth: given labels, or the nouns of captions, or what
    people said of images that `tagstream sample` drew.

    --match says what a hit is: an equal name (exact), also a wider or narrower one in the vocabulary (wider), or a name
    of similar meaning (semantic). The paper's measure (paper) has no hits: it is the mean similarity to the nearest
    name. --by label shows support, recall, precision and what was listed instead, at the largest k; --by image shows
    the worst images; --by score shows how often labels of a score are true.

    With --labels listed, of what is true the names of the list count.

    The column "any k" has mean average precision; the share of true names, and of all truths, whose name is listed
    anywhere (the limit of recall_micro); the share of labels that the vocabulary denies; the number of listed names.

    \b
    tagstream recall STORE --k 1,10
    tagstream recall STORE --by label --format csv > labels.csv
    tagstream recall STORE --by image --k 10
    """
    if by is not None and match != "exact" and (by != "shard" or match == "paper"):
        raise click.UsageError(f"--by {by} goes with --match exact{', wider or semantic' if by == 'shard' else ''}")
    numbers = _numbers(ks)
    vocabulary = read_vocabulary(options["vocabulary"])
    run = find_chosen_run(store, options["run"])
    if options["truth"] == "reviews":
        if by is not None or match != "exact":
            raise click.UsageError("--truth reviews goes with --match exact, without --by")
        _print_reviewed(open_store(store, vocabulary, labels=options["labels"]), run, numbers, output)
        return
    analysis = analyse_run(open_store(store, vocabulary, labels=options["labels"]), run, options["truth"])
    if by in _LISTINGS:
        rows = _LISTINGS[by](analysis, max(numbers))
        if by == "label":
            rows = [{**row, "sensitive": row["name"] in vocabulary.sensitive} for row in rows]
    else:
        asked = _Asked(analysis, numbers, by == "shard", vocabulary, store, options["embedder"], options["min_cosine"])
        measured = _MEASURES[match](asked)
        origin = {"run": analysis.run, "truth": analysis.truth, "vocabulary": vocabulary.version, "match": match}
        origin["labels"] = options["labels"].kinds
        rows = _for_reading(measured) if output == "table" else [{**origin, **row} for row in measured]
    if output == "table":
        click.echo(
            f"run {analysis.run}: {analysis.n_images:,} images with a truth ({analysis.truth}), "
            f"vocabulary {vocabulary.version}, match {match}{_of_kinds(options['labels'])}\n"
        )
        if analysis.n_without_noun:
            click.echo(
                f"{analysis.n_without_noun:,} images have captions without a noun that is known, and are not measured; "
                "captions are read as English\n"
            )
    columns = list(rows[0]) if rows else []
    print_rows(columns, ([row[name] for name in columns] for row in rows), output)
    if by == "score":
        click.echo(f"\nexpected calibration error {calibration_error(rows):.4f}", err=output != "table")


def _print_reviewed(connection: Connection, run: str, ks: list[int], output: str) -> None:
    """The measures by what people said of the images of a sample."""
    reviewed = analyse_reviews(connection, run)
    reviews = reviewed.reviews
    rows = [
        {"shard": None, "images": reviews.n_reviewed, "k": k, "measure": measure, **asdict(estimate)}
        for k, measures in reviewed.measure(ks).items()
        for measure, estimate in measures.items()
    ]
    if output == "table":
        latest = f", the latest of {reviews.n_samples}" if reviews.n_samples > 1 else ""
        click.echo(
            f"run {run}: {reviews.n_reviewed:,} of {reviews.n_drawn:,} images of the sample "
            f"{reviews.sample}{latest} were reviewed; the measures are those of all images of the run\n"
        )
        rows = _for_reading(rows)
    else:
        rows = [{"run": run, "truth": "reviews", "sample": reviews.sample, **row} for row in rows]
    columns = list(rows[0]) if rows else []
    print_rows(columns, ([row[name] for name in columns] for row in rows), output)


def _of_kinds(labels: LabelChoice) -> str:
    if labels.kinds == "listed":
        return ", listed labels: what is true besides the list's names is left out"
    return "" if labels.kinds == "open" else ", open and listed labels"


def _numbers(text: str) -> list[int]:
    """The numbers of `--k`, ascending."""
    try:
        numbers = sorted({int(number) for number in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1 or numbers[-1] > _MAX_K:
        raise click.UsageError(f"--k is {text}; expected numbers from 1 to {_MAX_K}, separated by commas")
    return numbers


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which run is measured, and what a match needs to know."""

    analysis: RunAnalysis
    ks: list[int]
    """Numbers of labels, ascending."""
    by_shard: bool
    vocabulary: Vocabulary
    store: str
    embedder: str | None
    """Folder of the embedder; None takes the one of the extra `semantic`."""
    min_cosine: float
    """The least cosine between two names that makes a semantic hit."""


def _measure_exact(asked: _Asked) -> list[dict[str, Any]]:
    rows = _at_each_k(asked.analysis.recall(asked.ks, by_shard=asked.by_shard))
    if asked.by_shard:
        return rows
    of_all_images = {"shard": None, "images": asked.analysis.n_images, "k": None}
    return [*rows, *({**of_all_images, **row} for row in _at_any_rank(asked.analysis))]


def _measure_wider(asked: _Asked) -> list[dict[str, Any]]:
    matches = compare_terms(asked.analysis, asked.vocabulary)
    return _at_each_k(matches.recall(asked.ks, by_shard=asked.by_shard))


def _measure_semantic(asked: _Asked) -> list[dict[str, Any]]:
    matches = _compare_meanings(asked)
    return _at_each_k(matches.recall(asked.ks, asked.min_cosine, by_shard=asked.by_shard))


def _measure_as_the_paper(asked: _Asked) -> list[dict[str, Any]]:
    matches = _compare_meanings(asked)
    return [
        {"shard": None, "images": asked.analysis.n_images, "k": k, "measure": measure, **asdict(estimate)}
        for k in asked.ks
        for measure, estimate in matches.paper_measures(k).items()
    ]


# One row a measure, k and, with --by shard, shard; by --match.
_MEASURES = {
    "exact": _measure_exact,
    "wider": _measure_wider,
    "semantic": _measure_semantic,
    "paper": _measure_as_the_paper,
}


def _compare_meanings(asked: _Asked) -> MeaningMatches:
    matches = compare_meanings(asked.analysis, Store(asked.store), find_embedder(asked.embedder), asked.ks[-1])
    if matches.note is not None:
        click.echo(f"Note: the embeddings were not kept in the store: {matches.note}", err=True)
    return matches


def _at_each_k(measured: list[RecallAtK]) -> list[dict[str, Any]]:
    return [
        {"shard": at_k.shard, "images": at_k.n_images, "k": at_k.k, "measure": measure, **asdict(estimate)}
        for at_k in measured
        for measure, estimate in at_k.measures.items()
    ]


def _at_any_rank(analysis: RunAnalysis) -> list[dict[str, Any]]:
    """The measures that do not depend on k: mean average precision, and coverage, which has no intervals."""
    average = {"measure": "mean_average_precision", **asdict(analysis.mean_average_precision())}
    coverage = analysis.coverage()
    values = {**coverage.shares, "names_listed": coverage.n_names_listed}
    return [average, *({"measure": name, "value": value, "low": None, "high": None} for name, value in values.items())]


def _for_reading(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a measure and shard, one column a k, intervals in brackets."""
    lines: dict[tuple[str | None, str], dict[str, Any]] = {}
    for row in rows:
        where = {"shard": row["shard"], "images": row["images"]} if row["shard"] is not None else {}
        line = lines.setdefault((row["shard"], row["measure"]), {**where, "measure": row["measure"]})
        interval = f" ({row['low']:.3f} to {row['high']:.3f})" if row["low"] is not None else ""
        value = f"{row['value']:.3f}" if isinstance(row["value"], float) else f"{row['value']:,}"
        line["any k" if row["k"] is None else f"k = {row['k']}"] = value + interval
    columns = dict.fromkeys(name for line in lines.values() for name in line)
    return [{name: line.get(name) for name in columns} for line in lines.values()]


def _label_rows(analysis: RunAnalysis, k: int) -> list[dict[str, Any]]:
    return [
        {
            "name": label.name,
            "truths": label.n_truth,
            "listed": label.n_listed,
            "hits": label.n_hits,
            "recall": label.recall,
            "precision": label.precision,
            "average_precision": label.average_precision,
            "instead": ", ".join(f"{name} {n_images}" for name, n_images in label.confusions),
        }
        for label in analysis.labels(k)
    ]


def _image_rows(analysis: RunAnalysis, k: int) -> list[dict[str, Any]]:
    return analysis.worst_images(k, _WORST_IMAGES)


def _score_rows(analysis: RunAnalysis, k: int) -> list[dict[str, Any]]:
    return analysis.reliability()


# One row a label, image or tenth of the scores; by --by.
_LISTINGS = {"label": _label_rows, "image": _image_rows, "score": _score_rows}
