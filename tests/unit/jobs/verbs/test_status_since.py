"""`tagstream status --since` as it is read, by people and by a scheduler."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.status import status
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six shards of cats and, a month later, five of dogs; and a run that was made in between."""
    store = Store(str(tmp_path_factory.mktemp("since") / "store"))
    store.create_run(run_record("run-1"))
    store.create_run(run_record("between", created="2026-03-15T00:00:00+00:00"))
    for number in range(11):
        is_late = number >= 6
        images = [{"truth": None, "labels": [("dog" if is_late else "cat", 0.5)]} for _ in range(3 + number % 3)]
        commit_judged(store, "run-1", {f"{number:05d}": images})
        at = datetime(2026, 4 if is_late else 3, 1, tzinfo=UTC).timestamp()
        os.utime(store.run("run-1").layout.images(f"{number:05d}.parquet"), (at, at))
    return store.url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(status, list(arguments), standalone_mode=False)


@pytest.mark.parametrize("since", ["2026-03-15T00:00:00+00:00", "betw"])
def test_it_shows_both_sides_the_tests_and_the_names(store: str, since: str) -> None:
    result = run(store, "--since", since)
    assert result.return_value == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Since 2026-03-15T00:00:00+00:00: 19 images in 5 shards"
    assert lines[1] == "Before: 24 images in 6 shards"
    assert lines[3].split() == ["what", "before", "since", "moved", "p", "p", "(Holm)", "drift"]
    assert any(line.startswith("mix of names") for line in lines)
    assert lines[-2].split()[:3] == ["cat", "1", "0"]


@pytest.mark.parametrize(
    ("conditions", "code", "alarms"),
    [
        ([], 0, []),
        (["drift"], 4, ["drift"]),
        (["drift > 1"], 0, []),
        (["drift > 1", "drift > 0.5"], 4, ["drift > 0.5"]),
    ],
)
def test_conditions_decide_the_exit_code_and_are_notified(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conditions: list[str], code: int, alarms: list[str]
) -> None:
    monkeypatch.setattr("pipeline.analysis.drift_tests.ALARM_P", 0.03)
    summary = tmp_path / "night.json"
    options = [word for condition in conditions for word in ("--fail-if", condition)]
    notify = f"tee {tmp_path / 'notified.json'}"
    result = run(store, "--since", "2026-03-15", *options, "--summary", str(summary), "--notify", notify)
    assert result.return_value == code
    told = json.loads(summary.read_text())
    assert told == json.loads((tmp_path / "notified.json").read_text())
    assert (told["verb"], told["runs"], told["alarms"], told["exit_code"]) == (
        "status",
        ["between", "run-1"],
        alarms,
        code,
    )
    assert [test["what"] for test in told["tests"] if test["is_drift"]] == ["names", "one_name"]
    assert told["names"][0]["name"] in ("cat", "dog")


def test_too_few_shards_are_told(store: str) -> None:
    result = run(store, "--since", "2026-03-15")
    # 11 over 5: one division in 462.
    assert "6 and 5 shards can show no p below 0.0022, and are too few" in result.stderr
    assert "0 and 11 shards are too few" in run(store, "--since", "2026-01-01").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--since", "yesterday"],
            "--since is 'yesterday'; expected a time such as 2026-12-01T06:00, 24h, 7d, or a run",
        ),
        (["--since", "99999999999d"], "--since is '99999999999d'; expected a time such as 2026-12-01T06:00"),
        (["--since", "2999-01-01"], "--since is 2999-01-01, which is to come"),
        (["--since", "24h", "--verify"], "--since looks at labels, --verify and --repair at files"),
        (["--fail-if", "drift"], "--fail-if, --summary and --notify go with --since"),
        (["--since", "24h", "--fail-if", "drift < 3"], 'expected "drift" or a least move'),
        (["--since", "24h", "--fail-if", "recall < 3"], 'expected "drift" or a least move'),
    ],
)
def test_wrong_usage_says_what_is_expected(store: str, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(status, [store, *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
