"""Drift as it is shown, written into summaries, and asked about by `--fail-if`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import click

from jobs.console.output import print_rows
from pipeline.analysis.drift import N_TESTS, Drift
from pipeline.analysis.drift_tests import ALARM_P, DriftTest

_CONDITION = re.compile(r"\s*drift\s*(?:>\s*(\d*\.?\d+)\s*)?")
_N_NAMES = 5
_N_KEPT_NAMES = 20
_WHAT = {
    "names": "mix of names",
    "one_name": "one name",
    "scores": "scores, mean",
    "unfinished": "unfinished branches",
    "rejected": "rejected images",
    "sizes": "pixels, mean",
}


@dataclass(frozen=True, slots=True)
class DriftCondition:
    """What `--fail-if` asks of drift: "drift", or "drift > 0.05" where small moves do not matter."""

    text: str
    least_move: float

    @staticmethod
    def is_meant(text: str) -> bool:
        """Whether a condition is about drift, rightly written or not."""
        return text.strip().startswith("drift")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The condition of this text. Raises UsageError where it is none."""
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise click.UsageError(f'--fail-if is {text!r}; expected "drift" or a least move, as "drift > 0.05"')
        return cls(text, float(match[1] or 0))

    def holds(self, drift: Drift) -> bool:
        return drift.holds(self.least_move)


def print_drift(drift: Drift, sides: tuple[str, str]) -> None:
    """Prints the tests and the names that moved most; nothing where one side has no shard.

    Args:
        sides: what the first and the second group of shards are called.
    """
    if not drift.tests:
        return
    rows = [_row(test, drift) for test in drift.tests]
    print_rows(["what", *sides, "moved", "p", "p (Holm)", "drift"], rows)
    click.echo("\nNames that moved most, in labels an image:\n")
    names = [(name.name, name.before, name.since, round(name.z, 1)) for name in drift.names[:_N_NAMES]]
    print_rows(["name", *sides, "deviations"], names)


def tell_of_few_shards(drift: Drift) -> None:
    """Says on stderr where there are too few shards for an alarm: no alarm does not mean that nothing moved then."""
    if drift.is_telling:
        return
    counted = f"{drift.before.n_shards:,} and {drift.since.n_shards:,} shards"
    least = f" can show no p below {drift.least_p:.2g}, and" if drift.tests else ""
    click.echo(
        f"Note: {counted}{least} are too few to tell of drift: it takes a p below {ALARM_P / N_TESTS:.2g}", err=True
    )


def plain_drift(drift: Drift) -> dict[str, Any]:
    """Drift as summaries and JSON have it."""
    return {
        "n_shards_before": drift.before.n_shards,
        "n_shards_since": drift.since.n_shards,
        "n_images_before": drift.before.n_images,
        "n_images_since": drift.since.n_images,
        "is_telling": drift.is_telling,
        "tests": [{**asdict(test), "is_drift": test.is_drift} for test in drift.tests],
        "names": [asdict(name) for name in drift.names[:_N_KEPT_NAMES]],
    }


def _row(test: DriftTest, drift: Drift) -> Sequence[object]:
    name = f" ({drift.names[0].name})" if test.what == "one_name" and drift.names else ""
    is_drift = "yes" if test.is_drift else ""
    return (_WHAT[test.what] + name, test.before, test.since, test.moved, test.p, test.p_holm, is_drift)
