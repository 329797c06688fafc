"""What a report draws: the numbers of each chart, the SQL that made them, and the command that gives them again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

from pipeline.analysis.comparison import Comparison
from pipeline.analysis.recall import RunAnalysis, calibration_error
from pipeline.catalog import Connection, read_sql, run_query

# Scores from 0 to 1 by twentieths; perplexities, which start at 1 and have no end, by whole numbers.
_SCORE_BINS = {"ppl": ("1.0::DOUBLE", 40)}
_UNIT_BINS = ("0.05::DOUBLE", 19)
_KS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200)
_LABEL_K = 10
_MAX_NAMES = 1000
_MAX_CHANGED_NAMES = 100
_SHOWN_MEASURES = ("recall_macro", "precision_macro", "f1_macro", "hit")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Numbers and where they come from. `id` says how the page draws them."""

    id: str
    title: str
    note: str = ""
    columns: list[str]
    rows: list[list[Any]]
    """Values that JSON has a form for."""
    sql: str
    command: str


def run_charts(connection: Connection, store: str, run: str, ranking: str) -> list[Chart]:
    """Charts of what a run holds; of their SQL each is one query that a user can ask."""
    width, last = _SCORE_BINS.get(ranking, _UNIT_BINS)
    queries = [
        ("labels", "Most frequent labels", "Images on which a name stands.", {}),
        ("scores", "Scores", f"Of the ranking {ranking}.", {"width": width, "last": last}),
        ("labels_each", "Labels an image", "", {}),
        ("jobs", "Throughput", "Images a second while a job labelled, over the time of its invocation.", {}),
        ("rejects", "Rejected samples", "", {}),
    ]
    return [_asked(connection, store, run, name, title, note, values) for name, title, note, values in queries]


def truth_charts(analysis: RunAnalysis, store: str, top_k: int) -> list[Chart]:
    """Charts of how good the labels are, of a run with a truth."""
    command = ["tagstream", "recall", store, "--run", analysis.run, "--truth", analysis.truth]
    charts = [_recall_chart(analysis, command, top_k), _names_chart(analysis, command, min(_LABEL_K, top_k))]
    if analysis.has_probabilities:
        charts.append(_calibration_chart(analysis, command))
    return charts


def comparison_charts(comparison: Comparison, store: str, truth: str) -> list[Chart]:
    """Charts of what a run (b) changes against another one (a)."""
    a, b = comparison.a.run, comparison.b.run
    command = ["tagstream", "compare", store, a, b, "--k", str(comparison.k), "--truth", truth]
    changed = [change for change in comparison.names if change.n_gained or change.n_lost][:_MAX_CHANGED_NAMES]
    charts = [
        Chart(
            id="changed_names",
            title="Names gained and lost",
            note=f"Images on which {b} lists a name among the first {comparison.k} and {a} does not, and the other way "
            f"round; of the {comparison.n_paired:,} images that both have labelled.",
            columns=["name", "gained", "lost", "both"],
            rows=[[change.name, change.n_gained, change.n_lost, change.n_both] for change in changed],
            sql=read_sql("changed_names"),
            command=shlex.join(command),
        )
    ]
    if comparison.differences:
        rows = [
            [name, *_finite([difference.value, difference.low, difference.high])]
            for name, difference in comparison.differences.items()
            if name in _SHOWN_MEASURES
        ]
        charts.append(
            Chart(
                id="differences",
                title="Measures, and what changed",
                note=f"{b} minus {a} at k = {comparison.k}, with 95 % intervals, on {comparison.n_judged:,} images.",
                columns=["measure", "difference", "low", "high"],
                rows=rows,
                sql=read_sql("paired_counts"),
                command=shlex.join(command),
            )
        )
    return charts


def _asked(
    connection: Connection, store: str, run: str, name: str, title: str, note: str, values: Mapping[str, Any]
) -> Chart:
    sql = Template(read_sql(f"report_{name}")).substitute(run=f"'{run}'", **values).strip()
    result = run_query(connection, sql)
    return Chart(
        id=name,
        title=title,
        note=note,
        columns=[column[0] for column in result.description],
        rows=[_finite(row) for row in result.fetchall()],
        sql=sql,
        command=shlex.join(["tagstream", "sql", store, sql]),
    )


def _recall_chart(analysis: RunAnalysis, command: Sequence[str], top_k: int) -> Chart:
    ks = sorted({k for k in _KS if k < top_k} | {top_k})
    measured = [
        (at_k.k, name, estimate)
        for at_k in analysis.recall(ks)
        for name, estimate in at_k.measures.items()
        if name in _SHOWN_MEASURES
    ]
    return Chart(
        id="recall",
        title="Recall and precision at k",
        note=f"Means over {analysis.n_images:,} images with a truth ({analysis.truth}), with 95 % intervals over images. "
        "hit: the share of images with any true label.",
        columns=["k", "measure", "value", "low", "high"],
        rows=[[k, name, *_finite([found.value, found.low, found.high])] for k, name, found in measured],
        sql="\n".join(read_sql(name) for name in ("exact_hits", "image_counts")),
        command=shlex.join([*command, "--k", ",".join(map(str, ks))]),
    )


def _names_chart(analysis: RunAnalysis, command: Sequence[str], k: int) -> Chart:
    names = [quality for quality in analysis.labels(k) if quality.n_truth][:_MAX_NAMES]
    return Chart(
        id="names",
        title=f"Recall of each name at k = {k}",
        note=f"Against its support: the images of which it is true. The {len(names):,} most frequent names.",
        columns=["name", "support", "recall", "precision", "instead"],
        rows=[
            [found.name, found.n_truth, found.recall, found.precision, ", ".join(name for name, _ in found.confusions)]
            for found in names
        ],
        sql="\n".join(read_sql(name) for name in ("label_counts", "confusions")),
        command=shlex.join([*command, "--k", str(k), "--by", "label", "--format", "csv"]),
    )


def _calibration_chart(analysis: RunAnalysis, command: Sequence[str]) -> Chart:
    rows = analysis.reliability()
    return Chart(
        id="calibration",
        title="Calibration",
        note="Labels by tenths of their score: how often they are true. On the diagonal scores would be probabilities "
        f"of being true; the expected calibration error is {calibration_error(rows):.3f}.",
        columns=["score_from", "n_listed", "mean_score", "hit_share"],
        rows=[_finite(row.values()) for row in rows],
        sql=read_sql("reliability"),
        command=shlex.join([*command, "--by", "score"]),
    )


def _finite(values: Iterable[Any]) -> list[Any]:
    """The values, without those that JSON cannot say."""
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]
