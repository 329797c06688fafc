"""`tagstream compare`: how the labels of two runs differ."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import click

from jobs.closing.closing import closing
from jobs.closing.outcome import Outcome
from jobs.closing.summary import summarize_comparison
from jobs.console.drift_table import DriftCondition, plain_drift, print_drift, tell_of_few_shards
from jobs.console.options import (
    WholeRange,
    closing_options,
    format_option,
    labels_options,
    store_argument,
    truth_option,
    vocabulary_option,
)
from jobs.console.output import print_rows
from jobs.console.process import EXIT_CONDITION_MET
from pipeline.analysis.comparison import Comparison, compare_runs
from pipeline.analysis.drift import Drift, drift_between
from pipeline.catalog.label_choice import LabelChoice, labels_each
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.run_choice import choose_run
from pipeline.store.store import Store
from schemas import ComparisonSummary

_MAX_K = 200
_DEFAULT_K = 10
_SHOWN_NAMES = 10
_MOSTLY_JUDGED = 0.98
_SHOWN_MEASURES = ("recall_macro", "precision_macro", "f1_macro", "hit")
_CONDITION = re.compile(r"\s*([a-z1_]+)(?:@(\d+))?\s*(<=|>=|<|>)\s*([-+]?\d*\.?\d+(?:e-?\d+)?)\s*")
_SIGNS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
_SHORT = {"recall": "recall_macro", "precision": "precision_macro", "f1": "f1_macro"}


@click.command
@store_argument
@click.argument("run_a")
@click.argument("run_b")
@click.option(
    "--k", type=WholeRange(1, _MAX_K), help="Labels of each image.  [default: 10, or fewer where one run has fewer]"
)
@labels_options
@truth_option
@vocabulary_option
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 4 if this holds.",
)
@click.option("--drift", is_flag=True, help="Test for drift, too; then the runs need no images in common.")
@closing_options
@format_option("table", "csv", "json")
def compare(
    store: str,
    run_a: str,
    run_b: str,
    k: int | None,
    labels: LabelChoice,
    truth: Any,
    vocabulary: str | None,
    conditions: tuple[str, ...],
    drift: bool,
    summary: str | None,
    notify: str | None,
    output: str,
) -> int:
    """Compare RUN_B with RUN_A on the images that both have labelled. Every difference is B minus A.

    RUN_A and RUN_B are names of runs, their unique beginnings, or latest. Runs that differ in top_k are compared at
    the smaller one, at most 10.

    A CONDITION is a difference and its limit: "recall@10 < -0.01", "reject_rate > 0.001"; also precision, f1, hit. Or
    it is "drift": names, scores, unfinished branches, rejects or image sizes moved more than sampling explains; with
    "drift > 0.05" farther than that, too. Drift needs no truth.

    \b
    tagstream compare STORE nxtp-1a2b3c4d5e6f nxtp-2b3c4d5e6f7a --fail-if "recall@10 < -0.01"
    """
    comparison: Comparison | None = None
    moved: Drift | None = None
    runs = (run_a, run_b)

    def summarize(outcome: Outcome) -> ComparisonSummary:
        return summarize_comparison(store, runs, comparison, outcome, moved)

    with closing(summarize, summary, notify) as outcome:
        of_drift = [DriftCondition.parse(text) for text in conditions if DriftCondition.is_meant(text)]
        parsed = [_Condition.parse(text) for text in conditions if not DriftCondition.is_meant(text)]
        asks_drift = drift or bool(of_drift)
        if drift and output == "csv":
            raise click.UsageError("--drift is shown as a table or as json; --format csv has the measures alone")
        opened = Store(store)
        records = [choose_run(opened, run).record for run in runs]
        runs = (records[0].run, records[1].run)
        connection = open_store(store, read_vocabulary(vocabulary), labels=labels)
        each = [labels_each(connection, record.run, record.labelling) for record in records]
        compared_k = _common_k(each) if k is None else k
        _tell_of_top_k(each, compared_k, "top_k" if labels.kinds == "open" else "the number of labels")
        for condition in parsed:
            condition.check(compared_k)
        comparison = compare_runs(connection, *runs, compared_k, truth, needs_common=not asks_drift)
        moved = drift_between(connection, *runs) if asks_drift else None
        _show(comparison, moved, truth, output)
        outcome.alarms = [condition.text for condition in parsed if condition.holds(comparison)]
        outcome.alarms += [condition.text for condition in of_drift if moved is not None and condition.holds(moved)]
        for alarm in outcome.alarms:
            click.echo(f"The condition holds: {alarm}", err=True)
        outcome.exit_code = EXIT_CONDITION_MET if outcome.alarms else 0
    return outcome.exit_code


def _show(comparison: Comparison, moved: Drift | None, truth: str, output: str) -> None:
    """Prints what was found in the format that was asked for, and notes on stderr."""
    if output == "json":
        told = {} if moved is None else {"drift": plain_drift(moved)}
        click.echo(json.dumps({**_plain(comparison), **told}, indent=2, ensure_ascii=False))
    elif output == "csv":
        print_rows(["measure", "difference", "low", "high"], _difference_rows(comparison), output)
    else:
        _print(comparison, truth)
        if moved is not None:
            click.echo("\nDrift, shards permuted:\n")
            print_drift(moved, ("A", "B"))
    _tell_of_judged(comparison)
    if moved is not None:
        tell_of_few_shards(moved)


@dataclass(frozen=True, slots=True)
class _Condition:
    """A limit that `--fail-if` sets: "recall@10 < -0.01"."""

    text: str
    measure: str
    k: int | None
    """How many labels it is about; None where it does not say."""
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """The condition of this text. Raises UsageError where it is none."""
        match = _CONDITION.fullmatch(text)
        measure = match and _SHORT.get(match[1], match[1])
        if match is None or measure not in {*_SHOWN_MEASURES, "reject_rate"}:
            raise click.UsageError(
                f"--fail-if is {text!r}; expected recall, precision, f1, hit or reject_rate, a sign and a limit: "
                '"recall@10 < -0.01"'
            )
        k = None if match[2] is None else int(match[2])
        return cls(text, str(measure), k, match[3], float(match[4]))

    def check(self, k: int) -> None:
        """Raises UsageError where the condition is not about the first k labels, which are compared."""
        if self.k not in (None, k):
            asked = f"{self.measure.removesuffix('_macro')}@{self.k}"
            raise click.UsageError(f"--fail-if asks for {asked}, --k is {k}; expected the same")

    def holds(self, comparison: Comparison) -> bool:
        """Whether the difference is beyond the limit. Raises ClickException for a measure that needs a truth."""
        if self.measure == "reject_rate":
            difference = comparison.reject_rate_difference
        elif self.measure in comparison.differences:
            difference = comparison.differences[self.measure].value
        else:
            raise click.ClickException(
                f"--fail-if asks for {self.measure}, but no image that both runs have has a truth"
            )
        return bool(_SIGNS[self.sign](difference, self.limit))


def _common_k(each: Sequence[int]) -> int:
    """How many labels both runs list, where they differ in that; at most 10.

    Of runs that list as many, fewer than 10 labels are all labels.

    Args:
        each: how many labels an image of each run has at most.
    """
    return _DEFAULT_K if len(set(each)) == 1 else min(_DEFAULT_K, *each)


def _tell_of_top_k(each: Sequence[int], k: int, what: str) -> None:
    a, b = each
    if a != b:
        one_sided = "" if k <= min(a, b) else ", which one of them cannot list"
        click.echo(f"{what} differs: A has {a}, B has {b}; compared at the first {k} labels{one_sided}", err=True)


def _print(comparison: Comparison, truth: str) -> None:
    for letter, counts in (("A", comparison.a), ("B", comparison.b)):
        click.echo(
            f"{letter} {counts.run}: {counts.n_images:,} images, "
            f"{counts.n_rejected:,} rejected ({counts.reject_rate:.2%})"
        )
    if not comparison.n_paired:
        click.echo("\nThe runs have no labelled image in common.")
        return
    click.echo(f"\nOn the {comparison.n_paired:,} images that both have labelled, first {comparison.k} labels:\n")
    n_both, n_lost, n_gained = (
        sum(getattr(change, name) for change in comparison.names) for name in ("n_both", "n_lost", "n_gained")
    )
    click.echo(f"labels of both {n_both:,}, of A alone {n_lost:,}, of B alone {n_gained:,}")
    if comparison.mean_score_shift is not None:
        click.echo(f"score of labels of both: {comparison.mean_score_shift:+.4f} on average")
    if comparison.differences:
        click.echo(f"\nB minus A, on {comparison.n_judged:,} images with a truth ({truth}), 95 % intervals:\n")
        rows = [
            [name, f"{difference.value:+.4f}", f"{difference.low:+.4f} to {difference.high:+.4f}"]
            for name, difference in comparison.differences.items()
        ]
        print_rows(["measure", "difference", "interval"], rows)
    changed = [change for change in comparison.names if change.n_lost or change.n_gained][:_SHOWN_NAMES]
    if changed:
        click.echo("\nMost changed names, in images:\n")
        of_names = [(change.name, change.n_both, change.n_lost, change.n_gained) for change in changed]
        print_rows(["name", "both", "A alone", "B alone"], of_names)


def _tell_of_judged(comparison: Comparison) -> None:
    """What one run lists and nobody judged is neither right nor wrong: who compares has to know."""
    if comparison.judged_shares is None or min(comparison.judged_shares) >= _MOSTLY_JUDGED:
        return
    a, b = (f"{share:.0%}" for share in comparison.judged_shares)
    click.echo(
        f"\nNote: people judged {a} of A's labels and {b} of B's; precision, F1 and hit are over these alone, and "
        "favour the run whose wrong labels nobody saw. Have the labels of both reviewed: draw images by disagreement "
        "for a page, or the same ones from each run, with the same --n and --seed",
        err=True,
    )


def _difference_rows(comparison: Comparison) -> list[tuple[object, ...]]:
    """One row a measure: B minus A, and its interval; the rate of rejects has none."""
    rows: list[tuple[object, ...]] = [("reject_rate", comparison.reject_rate_difference, None, None)]
    return rows + [(name, found.value, found.low, found.high) for name, found in comparison.differences.items()]


def _plain(comparison: Comparison) -> dict[str, Any]:
    rates = {"reject_rate_difference": comparison.reject_rate_difference}
    return {**asdict(comparison), **rates, "mean_score_shift": comparison.mean_score_shift}
