"""`tagstream compare`: what another model or setting changes."""

from __future__ import annotations

import json
import operator
import re
from dataclasses import asdict
from typing import Any

import click

from jobs.closing.closing import closing
from jobs.closing.ending import summarize_comparison
from jobs.console.options import closing_options, format_option, store_argument, truth_option, vocabulary_option
from jobs.console.output import print_rows
from pipeline.analysis.comparison import Comparison, compare_runs
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary

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
@click.option("--fail-if", "conditions", multiple=True, metavar="CONDITION", help="Exit 4 where it holds.")
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
    """Compare RUN_B with RUN_A, on the images that both have labelled; every difference is B minus A.

    A CONDITION is a difference and its limit: "recall@10 < -0.01", "reject_rate > 0.001"; also precision, f1, hit.

    \b
    tagstream compare STORE nxtp-1a2b3c4d5e6f nxtp-2b3c4d5e6f7a --fail-if "recall@10 < -0.01"
    """
    comparison: Comparison | None = None
    with closing(
        lambda ending: summarize_comparison(store, (run_a, run_b), comparison, ending), summary, notify
    ) as end:
        parsed = [_parse(condition, k) for condition in conditions]
        comparison = compare_runs(open_store(store, read_vocabulary(vocabulary)), run_a, run_b, k, truth)
        if output == "json":
            click.echo(json.dumps(_plain(comparison), indent=2, ensure_ascii=False))
        else:
            _print(comparison, truth)
        end.alarms = [
            condition for condition, check in zip(conditions, parsed, strict=True) if _holds(comparison, *check)
        ]
        for condition in end.alarms:
            click.echo(f"The condition holds: {condition}", err=True)
        end.exit_code = EXIT_CONDITION_MET if end.alarms else 0
    return end.exit_code


def _parse(condition: str, k: int) -> tuple[str, str, float]:
    """Measure, sign and limit of a condition."""
    match = _CONDITION.fullmatch(condition)
    measure = match and _SHORT.get(match[1], match[1])
    if match is None or measure not in {*_SHOWN_MEASURES, "reject_rate"}:
        raise click.UsageError(
            f"--fail-if is {condition!r}; expected recall, precision, f1, hit or reject_rate, a sign and a limit: "
            '"recall@10 < -0.01"'
        )
    if match[2] is not None and int(match[2]) != k:
        raise click.UsageError(f"--fail-if asks for {match[1]}@{match[2]}, --k is {k}; expected the same")
    return str(measure), match[3], float(match[4])


def _holds(comparison: Comparison, measure: str, sign: str, limit: float) -> bool:
    if measure == "reject_rate":
        return bool(_SIGNS[sign](comparison.reject_rate_difference, limit))
    if measure not in comparison.differences:
        raise click.ClickException(f"--fail-if asks for {measure}, but no image that both runs have has a truth")
    return bool(_SIGNS[sign](comparison.differences[measure].value, limit))


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
