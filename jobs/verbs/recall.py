"""`tagstream recall`: how good a run's labels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from jobs.console.options import FiniteRange

if TYPE_CHECKING:
    from pipeline.analysis.recall import MeaningMatches, RecallAtK, RunAnalysis

_MAX_K = 200
_WORST_IMAGES = 50


@click.command(short_help="Measure recall, precision and F1 of a run against its truth.")
@click.argument("store")
@click.option("--run", help="Which run.  [default: the only one]")
@click.option("--k", "ks", default="1,5,10,20", show_default=True, help="Numbers of labels, apart by commas.")
@click.option("--match", type=click.Choice(["exact", "wider", "semantic", "paper"]), default="exact", show_default=True)
@click.option("--truth", type=click.Choice(["labels", "captions"]), default="labels", show_default=True)
@click.option(
    "--by", type=click.Choice(["label", "shard", "image", "score"]), help="One row each, instead of a summary."
)
@click.option("--vocabulary", type=click.Path(exists=True, dir_okay=False), help="TOML or CSV.  [default: built in]")
@click.option("--min-cosine", default=0.75, show_default=True, type=FiniteRange(-1, 1), help="Of a semantic hit.")
@click.option("--embedder", help="Folder of all-MiniLM-L6-v2.  [default: of the extra `semantic`]")
@click.option("--format", "output", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def recall(store: str, ks: str, match: str, by: str | None, output: str, **options: Any) -> None:
    """Compare the first k labels of STORE's images with what is true of them: given labels, or nouns of captions.

    A hit is an equal name (exact), also a wider or narrower one by the vocabulary (wider), or one of similar meaning
    (semantic). The paper's measure has no hits: it is the mean similarity to the nearest name. By label: support,
    recall, precision, what was listed instead (at the largest k); by image the worst ones; by score how often labels of
    that score are true.

    At any k: mean average precision; of true names and of all truths the share whose name is listed anywhere (the limit
    of recall_micro); of labels the share that the vocabulary denies; how many names are listed.

    \b
    tagstream recall STORE --k 1,10
    tagstream recall STORE --by label --format csv > labels.csv
    tagstream recall STORE --by image --k 10
    """
    from jobs.console.output import print_rows
    from pipeline.analysis.recall import analyse_run, calibration_error, compare_terms
    from pipeline.catalog.views import open_store
    from pipeline.naming.vocabulary import read_vocabulary

    if by is not None and match != "exact" and (by != "shard" or match == "paper"):
        raise click.UsageError(f"--by {by} goes with --match exact{', wider or semantic' if by == 'shard' else ''}")
    numbers = _numbers(ks)
    vocabulary = read_vocabulary(options["vocabulary"])
    analysis = analyse_run(open_store(store, vocabulary), options["run"], options["truth"])
    if by in _ROWS_BY:
        rows = _ROWS_BY[by](analysis, max(numbers))
    elif match in ("exact", "wider"):
        matches = analysis if match == "exact" else compare_terms(analysis, vocabulary)
        rows = _rows_at_k(matches.recall(numbers, by_shard=by == "shard"))
        rows += _at_any_rank(analysis) if match == "exact" and by is None else []
    else:
        meanings = _compare_meanings(analysis, store, options["embedder"], numbers[-1])
        if match == "paper":
            rows = _paper_rows(meanings, numbers)
        else:
            rows = _rows_at_k(meanings.recall(numbers, options["min_cosine"], by_shard=by == "shard"))
    if output == "table":
        click.echo(
            f"run {analysis.run}: {analysis.n_images:,} images with a truth ({analysis.truth}), "
            f"vocabulary {vocabulary.version}, match {match}\n"
        )
    if by not in _ROWS_BY:
        origin = {"run": analysis.run, "truth": analysis.truth, "vocabulary": vocabulary.version, "match": match}
        rows = _for_reading(rows) if output == "table" else [{**origin, **row} for row in rows]
    columns = list(rows[0]) if rows else []
    print_rows(columns, ([row[name] for name in columns] for row in rows), output)
    if by == "score":
        click.echo(f"\nexpected calibration error {calibration_error(rows):.4f}", err=output != "table")


def _compare_meanings(analysis: RunAnalysis, store: str, folder: str | None, k: int) -> MeaningMatches:
    from pipeline.analysis.embeddings import find_embedder
    from pipeline.analysis.recall import compare_meanings
    from pipeline.store.store import Store

    meanings = compare_meanings(analysis, Store(store), find_embedder(folder), k)
    if meanings.note is not None:
        click.echo(f"Note: the embeddings were not kept in the store: {meanings.note}", err=True)
    return meanings


def _numbers(text: str) -> list[int]:
    """The numbers of `--k`, ascending."""
    try:
        numbers = sorted({int(number) for number in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1 or numbers[-1] > _MAX_K:
        raise click.UsageError(f"--k is {text}; expected numbers from 1 to {_MAX_K}, apart by commas")
    return numbers


def _rows_at_k(recalled: Sequence[RecallAtK]) -> list[dict[str, Any]]:
    """One row a shard, k and measure."""
    return [
        {"shard": at_k.shard, "images": at_k.n_images, "k": at_k.k, "measure": measure, **asdict(estimate)}
        for at_k in recalled
        for measure, estimate in at_k.measures.items()
    ]


def _paper_rows(meanings: MeaningMatches, ks: list[int]) -> list[dict[str, Any]]:
    return [
        {"shard": None, "images": meanings.analysis.n_images, "k": k, "measure": measure, **asdict(estimate)}
        for k in ks
        for measure, estimate in meanings.paper_measures(k).items()
    ]


def _at_any_rank(analysis: RunAnalysis) -> list[dict[str, Any]]:
    """What does not depend on k: mean average precision, and coverage without intervals."""
    average = {"measure": "mean_average_precision", **asdict(analysis.mean_average_precision())}
    coverage = analysis.coverage()
    values = {**coverage.shares, "names_listed": coverage.n_names_listed}
    counts = [{"measure": name, "value": value, "low": None, "high": None} for name, value in values.items()]
    return [{"shard": None, "images": analysis.n_images, "k": None, **row} for row in (average, *counts)]


def _for_reading(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a measure and shard, one column a k, intervals in brackets."""
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


_ROWS_BY = {"label": _label_rows, "image": _image_rows, "score": _score_rows}
