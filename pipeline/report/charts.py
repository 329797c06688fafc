"""What a report draws: the numbers of each chart, the SQL that made them, and the command that gives them again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

from model.choices import Ranking
from pipeline.analysis.comparison import Comparison
from pipeline.analysis.recall import RunAnalysis, calibration_error
from pipeline.analysis.reviewed import ReviewedRun
from pipeline.catalog.connection import Connection, read_sql, run_query
from pipeline.catalog.label_choice import OPEN_LABELS, LabelChoice
from pipeline.estimate import Estimate

# Scores from 0 to 1 by twentieths; perplexities, which start at 1 and have no end, by whole numbers.
_UNBOUNDED_BINS = ("1.0::DOUBLE", 40)
_UNIT_BINS = ("0.05::DOUBLE", 19)
_KS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200)
_LABEL_K = 10
_MAX_NAMES = 1000
_MAX_CHANGED_NAMES = 100
# As in the SQL of the other charts: a name may be of any length.
_MAX_NAME_CHARACTERS = 200
_SHOWN_MEASURES = ("recall_macro", "precision_macro", "f1_macro", "hit")
# A condition keeps no order.
_NOT_SENSITIVE = "WHERE name NOT IN (SELECT name FROM spellings WHERE sensitive)\nORDER BY images DESC, name"


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Numbers and where they come from. `id` says how the page draws them."""

    id: str
    title: str
    note: str = ""
    columns: list[str]
    rows: list[list[Any]]
    """One list of values a row, in the order of the columns; all of them can be written as JSON."""
    sql: str
    is_query: bool = False
    """Whether the SQL can be asked as it stands; other SQL is run by the command, with values and tables of its own."""
    command: str


@dataclass(frozen=True, slots=True)
class Commands:
    """Command lines that ask a store again, under the names that the report has."""

    store: str
    vocabulary: str | None = None
    """Path of the vocabulary's file; None for the one that comes along."""
    labels: LabelChoice = OPEN_LABELS

    def line(self, verb: str, *arguments: str) -> str:
        vocabulary = [] if self.vocabulary is None else ["--vocabulary", self.vocabulary]
        kinds = ["--labels", self.labels.kinds] if self.labels.shows_listed else []
        of_list = [] if self.labels.list is None else ["--list", self.labels.list]
        return shlex.join(["tagstream", verb, self.store, *vocabulary, *kinds, *of_list, *arguments])

    def query(self, sql: str) -> str:
        # Its quotes are single ones: between double ones a shell leaves it as it is, and people can read it.
        return f'{self.line("sql")} "{sql}"'


def run_charts(
    connection: Connection, commands: Commands, run: str, ranking: Ranking, sensitive: Collection[str] = ()
) -> list[Chart]:
    """Charts of what a run holds; of their SQL each is one query that a user can ask.

    Args:
        sensitive: names that no chart shows, those of the vocabulary that the store was opened with.
    """
    width, last = _UNIT_BINS if ranking.is_bounded else _UNBOUNDED_BINS
    shown = _NOT_SENSITIVE if sensitive else ""
    queries: list[tuple[str, str, str, dict[str, Any]]] = [
        ("labels", "Most frequent labels", "Images on which a name stands.", {"shown": shown}),
        ("scores", "Scores", f"Of the ranking {ranking.name}.", {"width": width, "last": last}),
        ("labels_each", "Labels an image", "", {}),
        ("jobs", "Throughput", "Images a second while a job labelled, over the time of its invocation.", {}),
        ("rejects", "Rejected samples", "", {}),
    ]
    return [_asked(connection, commands, run, name, title, note, values) for name, title, note, values in queries]


def truth_charts(analysis: RunAnalysis, commands: Commands, top_k: int, sensitive: Collection[str] = ()) -> list[Chart]:
    """Charts of how good the labels are, of a run with a truth.

    Args:
        sensitive: names that no chart shows; measures of all names together count them.
    """
    charts = [
        _truth_chart(analysis, commands, top_k),
        _names_chart(analysis, commands, min(_LABEL_K, top_k), sensitive),
    ]
    if analysis.ranking.is_probability:
        charts.append(_calibration_chart(analysis, commands))
    return charts


def comparison_charts(
    comparison: Comparison, commands: Commands, truth: str, sensitive: Collection[str] = ()
) -> list[Chart]:
    """Charts of what a run (b) changes against another one (a).

    Args:
        sensitive: as of `truth_charts`.
    """
    a, b = comparison.a.run, comparison.b.run
    arguments = [a, b, "--k", str(comparison.k), "--truth", truth]
    shown = (change for change in comparison.names if change.name not in sensitive)
    changed = [change for change in shown if change.n_gained or change.n_lost][:_MAX_CHANGED_NAMES]
    charts = [
        Chart(
            id="changed_names",
            title="Names gained and lost",
            note=f"Images on which {b} lists a name among the first {comparison.k} and {a} does not, and the other way "
            f"round; of the {comparison.n_paired:,} images that both have labelled.",
            columns=["name", "gained", "lost", "both"],
            rows=[
                [change.name[:_MAX_NAME_CHARACTERS], change.n_gained, change.n_lost, change.n_both]
                for change in changed
            ],
            sql=read_sql("changed_names"),
            # Its table holds the first few names alone.
            command=commands.line("compare", *arguments, "--format", "json"),
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
                note=f"{b} minus {a} at k = {comparison.k}, with 95 % intervals, on {comparison.n_judged:,} images."
                + _judged(comparison),
                columns=["measure", "difference", "low", "high"],
                rows=rows,
                sql=read_sql("paired_counts"),
                command=commands.line("compare", *arguments),
            )
        )
    return charts


def _judged(comparison: Comparison) -> str:
    """How much of what either run lists people judged: the rest counts neither as right nor as wrong."""
    if comparison.judged_shares is None:
        return ""
    of_a, of_b = (f"{share:.0%}" for share in comparison.judged_shares)
    return f" People judged {of_b} of the labels of {comparison.b.run} and {of_a} of those of {comparison.a.run}."


def _asked(
    connection: Connection, commands: Commands, run: str, name: str, title: str, note: str, values: Mapping[str, Any]
) -> Chart:
    text = Template(read_sql(f"report_{name}")).substitute(run=f"'{run}'", **values)
    # A shell's user gives it as an argument, where a comment at the start would pass for an option.
    sql = "\n".join(line for line in text.splitlines() if line and not line.startswith("--"))
    result = run_query(connection, sql)
    return Chart(
        id=name,
        title=title,
        note=note,
        columns=[column[0] for column in result.description],
        rows=[_finite(row) for row in result.fetchall()],
        sql=sql,
        is_query=True,
        command=commands.query(sql),
    )


def reviews_chart(reviewed: ReviewedRun, commands: Commands, top_k: int) -> Chart:
    """How good the labels of all images are, by what people say of some."""
    ks = _ks_up_to(top_k)
    return _recall_chart(
        reviewed.measure(ks),
        f"Estimates for all images of the run, with 95 % intervals, by what people say of {reviewed.n_images:,} images "
        f"of the sample {reviewed.reviews.sample}. hit: the share of images with any true label.",
        ["reviewed_names", "reviewed_counts"],
        _recall_line(reviewed, commands, "--k", ",".join(map(str, ks))),
    )


def _truth_chart(analysis: RunAnalysis, commands: Commands, top_k: int) -> Chart:
    ks = _ks_up_to(top_k)
    return _recall_chart(
        {at_k.k: at_k.measures for at_k in analysis.recall(ks)},
        f"Means over {analysis.n_images:,} images with a truth ({analysis.truth}), with 95 % intervals. "
        "hit: the share of images with any true label.",
        ["exact_hits", "image_counts"],
        _recall_line(analysis, commands, "--k", ",".join(map(str, ks))),
    )


def _ks_up_to(top_k: int) -> list[int]:
    return sorted({k for k in _KS if k < top_k} | {top_k})


def _recall_chart(
    measured: Mapping[int, Mapping[str, Estimate]], note: str, queries: Iterable[str], command: str
) -> Chart:
    rows = [
        [k, name, *_finite([found.value, found.low, found.high])]
        for k, measures in measured.items()
        for name, found in measures.items()
        if name in _SHOWN_MEASURES
    ]
    return Chart(
        id="recall",
        title="Recall and precision at k",
        note=note,
        columns=["k", "measure", "value", "low", "high"],
        rows=rows,
        sql="\n".join(map(read_sql, queries)),
        command=command,
    )


def _names_chart(analysis: RunAnalysis, commands: Commands, k: int, sensitive: Collection[str]) -> Chart:
    shown = (counts for counts in analysis.name_counts(k) if counts["name"] not in sensitive)
    names = [counts for counts in shown if counts["n_truth"]][:_MAX_NAMES]
    return Chart(
        id="names",
        title=f"Recall of each name at k = {k}",
        note=f"Against its support: the images of which it is true. The {len(names):,} most frequent names.",
        columns=["name", "truths", "listed", "hits", "recall"],
        rows=[
            [
                row["name"][:_MAX_NAME_CHARACTERS],
                row["n_truth"],
                row["n_listed"],
                row["n_hits"],
                row["n_hits"] / row["n_truth"],
            ]
            for row in names
        ],
        sql=read_sql("name_counts"),
        command=_recall_line(analysis, commands, "--k", str(k), "--by", "label", "--format", "csv"),
    )


def _calibration_chart(analysis: RunAnalysis, commands: Commands) -> Chart:
    rows = analysis.reliability()
    return Chart(
        id="calibration",
        title="Calibration",
        note="Labels by tenths of their score: how often they are true. On the diagonal scores would be probabilities "
        f"of being true; the expected calibration error is {calibration_error(rows):.3f}.",
        columns=["score_from", "n_listed", "mean_score", "hit_share"],
        rows=[_finite(row.values()) for row in rows],
        sql=read_sql("reliability"),
        command=_recall_line(analysis, commands, "--by", "score"),
    )


def _recall_line(analysis: RunAnalysis | ReviewedRun, commands: Commands, *arguments: str) -> str:
    return commands.line("recall", "--run", analysis.run, "--truth", analysis.truth, *arguments)


def _finite(values: Iterable[Any]) -> list[Any]:
    """The values, without those that JSON cannot say."""
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]
