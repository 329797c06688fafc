"""`tagstream compare`: how the labels of two runs differ."""

from __future__ import annotations

import json
import operator
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

import click

from jobs.closing.closing import closing
from jobs.closing.outcome import Outcome
from jobs.closing.summary import summarize_comparison
from jobs.console.options import closing_options, format_option, store_argument, truth_option, vocabulary_option
from jobs.console.output import print_rows
from pipeline.analysis.comparison import Comparison, compare_runs
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from schemas import ComparisonSummary

EXIT_CONDITION_MET = 4
_MAX_K = 200
_SHOWN_NAMES = 10
_SHOWN_MEASURES = ("recall_macro", "precision_macro", "f1_macro", "hit")
_CONDITION = re.compile(r"\s*([a-z1_]+)(?:@(\d+))?\s*(<=|>=|<|>)\s*([-+]?\d*\.?\d+(?:e-?\d+)?)\s*")
_SIGNS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
_SHORT = {"recall": "recall_macro", "precision": "precision_macro", "f1": "f1_macro"}


@click.command
@store_argument
@click.argument("run_a")
@click.argument("run_b")
@click.option("--k", default=10, show_default=True, type=click.IntRange(1, _MAX_K), help="Labels an image.")
@truth_option
@vocabulary_option
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Exit 4 if it holds.",
)
@closing_options
@format_option("table", "json")
def compare(
    store: str,
    run_a: str,
    run_b: str,
    k: int,
    truth: Any,
    vocabulary: str | None,
    conditions: tuple[str, ...],
    summary: str | None,
    notify: str | None,
    output: str,
) -> int:
    """Compare RUN_B with RUN_A on the images that both have labelled. Every difference is B minus A.

    A CONDITION is a difference and its limit: "recall@10 < -0.01", "reject_rate > 0.001"; also precision, f1, hit.

    \b
    tagstream compare STORE nxtp-1a2b3c4d5e6f nxtp-2b3c4d5e6f7a --fail-if "recall@10 < -0.01"
    """
    comparison: Comparison | None = None

    def summarize(outcome: Outcome) -> ComparisonSummary:
        return summarize_comparison(store, (run_a, run_b), comparison, outcome)

    with closing(summarize, summary, notify) as outcome:
        parsed = [_Condition.parse(text, k) for text in conditions]
        comparison = compare_runs(open_store(store, read_vocabulary(vocabulary)), run_a, run_b, k, truth)
        if output == "json":
            click.echo(json.dumps(_plain(comparison), indent=2, ensure_ascii=False))
        else:
            _print(comparison, truth)
        outcome.alarms = [condition.text for condition in parsed if condition.holds(comparison)]
        for condition in outcome.alarms:
            click.echo(f"The condition holds: {condition}", err=True)
        outcome.exit_code = EXIT_CONDITION_MET if outcome.alarms else 0
    return outcome.exit_code


@dataclass(frozen=True, slots=True)
class _Condition:
    """A limit that `--fail-if` sets: "recall@10 < -0.01"."""

    text: str
    measure: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str, k: int) -> Self:
        """The condition of this text. Raises UsageError where it is none, or is not about the first k labels."""
        match = _CONDITION.fullmatch(text)
        measure = match and _SHORT.get(match[1], match[1])
        if match is None or measure not in {*_SHOWN_MEASURES, "reject_rate"}:
            raise click.UsageError(
                f"--fail-if is {text!r}; expected recall, precision, f1, hit or reject_rate, a sign and a limit: "
                '"recall@10 < -0.01"'
            )
        if match[2] is not None and int(match[2]) != k:
            raise click.UsageError(f"--fail-if asks for {match[1]}@{match[2]}, --k is {k}; expected the same")
        return cls(text, str(measure), match[3], float(match[4]))

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


def _print(comparison: Comparison, truth: str) -> None:
    for letter, counts in (("A", comparison.a), ("B", comparison.b)):
        click.echo(
            f"{letter} {counts.run}: {counts.n_images:,} images, "
            f"{counts.n_rejected:,} rejected ({counts.reject_rate:.2%})"
        )
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


def _plain(comparison: Comparison) -> dict[str, Any]:
    rates = {"reject_rate_difference": comparison.reject_rate_difference}
    return {**asdict(comparison), **rates, "mean_score_shift": comparison.mean_score_shift}
