"""`tagstream compare` as it is read, by people and by a scheduler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.compare import compare
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store in which the second run lost one of two dogs."""
    store = Store(str(tmp_path / "store"))
    for run, label in (("run-a", "dog"), ("run-b", "cat")):
        store.create_run(run_record(run))
        images = [{"truth": ["dog"], "labels": ["dog"]}, {"truth": ["dog"], "labels": [label]}]
        commit_judged(store, run, {"s": images})
    return store.url


def run(store: str, *arguments: str) -> Result:
    # Commands return their exit code, which the whole command hands on.
    return CliRunner().invoke(compare, [store, "run-a", "run-b", *arguments], standalone_mode=False)


def test_it_says_what_changed(store: str) -> None:
    result = run(store)
    assert result.return_value == 0
    for line in (
        "A run-a: 2 images, 0 rejected (0.00%)",
        "On the 2 images that both have labelled, first 10 labels:",
        "labels of both 1, of A alone 1, of B alone 1",
        "B minus A, on 2 images with a truth (labels), 95 % intervals:",
    ):
        assert line in result.stdout
    assert "recall_macro     -0.5000" in result.stdout
    assert result.stdout.splitlines()[-2:] == ["cat      0        0        1", "dog      1        1        0"]


def test_json_holds_everything(store: str) -> None:
    found = json.loads(run(store, "--format", "json").stdout)
    assert found["differences"]["hit"]["value"] == -0.5
    assert found["names"][0]["name"] == "cat"
    assert found["reject_rate_difference"] == 0


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("recall@10 < -0.01", 4),
        ("recall < -0.01", 4),
        ("hit <= -0.5", 4),
        ("f1@10<-0.9", 0),
        ("recall@10 > 0", 0),
        ("reject_rate > 0.001", 0),
        ("reject_rate >= 0", 4),
    ],
)
def test_a_condition_decides_the_exit_code(store: str, condition: str, code: int) -> None:
    result = run(store, "--fail-if", condition)
    assert result.return_value == code
    assert (f"The condition holds: {condition}" in result.stderr) == (code == 4)


def test_of_several_conditions_one_is_enough(store: str) -> None:
    assert run(store, "--fail-if", "recall > 0", "--fail-if", "hit < 0").return_value == 4


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("recall", "expected recall, precision"),
        ("map < 0", "expected recall, precision"),
        ("recall = 0", "expected recall, precision"),
        ("recall < x", "expected recall, precision"),
        ("recall < 1.2.3", "expected recall, precision"),
        ("recall@5 < 0", "asks for recall@5, --k is 10"),
    ],
)
def test_a_condition_that_is_none_is_wrong_usage(store: str, condition: str, message: str) -> None:
    result = CliRunner().invoke(compare, [store, "run-a", "run-b", "--fail-if", condition])
    assert result.exit_code == 2
    assert message in result.stderr
