"""`tagstream compare` as it is read, by people and by a scheduler."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.compare import compare
from pipeline.store.store import Store
from tests.fixtures.stored.reviewed import review_by_truth
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


def test_by_reviews_it_says_how_much_of_either_run_was_judged(store: str) -> None:
    images = [{"truth": ["dog"], "labels": ["dog"]}] * 2
    review_by_truth(Store(store), "run-a", "s", images, {0: 0.5, 1: 0.5})
    result = run(store, "--truth", "reviews", "--fail-if", "recall@10 < -0.4")
    assert result.return_value == 4
    assert "B minus A, on 2 images with a truth (reviews), 95 % intervals:" in result.stdout
    # Nobody was asked about the cat.
    assert "Note: people judged 100% of A's labels and 50% of B's; precision, F1" in result.stderr
    assert json.loads(run(store, "--truth", "reviews", "--format", "json").stdout)["judged_shares"] == [1, 0.5]


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


class TestDrift:
    """What needs no truth, and no image in common."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> str:
        """Two runs over other shards: cats, then dogs."""
        store = Store(str(tmp_path / "store"))
        for run, label, shards in (("run-a", "cat", range(8)), ("run-b", "dog", range(8, 16))):
            store.create_run(run_record(run))
            commit_judged(store, run, {f"{n:05d}": [{"truth": None, "labels": [(label, 0.5)]}] * 3 for n in shards})
        return store.url

    @pytest.mark.parametrize(("options", "code"), [((), 0), (("--fail-if", "drift"), 4), (("--fail-if", "drift>1"), 0)])
    def test_runs_without_common_images_are_tested_where_it_is_asked_for(
        self, store: str, options: tuple[str, ...], code: int, tmp_path: Path
    ) -> None:
        result = run(store, "--drift", *options, "--summary", str(tmp_path / "s.json"))
        assert result.return_value == code
        assert "The runs have no labelled image in common." in result.stdout
        assert "mix of names" in result.stdout
        told = json.loads((tmp_path / "s.json").read_text())
        assert [test["what"] for test in told["drift"]["tests"] if test["is_drift"]] == ["names", "one_name"]

    def test_json_has_it_where_it_is_asked_for(self, store: str) -> None:
        found = json.loads(run(store, "--fail-if", "drift > 1", "--format", "json").stdout)
        assert found["drift"]["n_shards_since"] == 8

    def test_csv_has_no_place_for_it(self, store: str) -> None:
        assert "--format csv has the measures alone" in str(run(store, "--drift", "--format", "csv").exception)
        assert run(store, "--fail-if", "drift", "--format", "csv").return_value == 4

    def test_elsewhere_such_runs_cannot_be_compared(self, store: str) -> None:
        assert "have no labelled image in common" in str(run(store).exception)


class TestRunsThatDifferInTopK:
    """One run lists ten labels an image, the other five."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> str:
        """A store in which the runs list the same labels as far as both go, and the truth stands at the sixth place."""
        store = Store(str(tmp_path / "store"))
        listed = ["cat", "tree", "sky", "bird", "car", "dog", "fox", "cow", "bus", "cup"]
        for run, top_k in (("run-a", 10), ("run-b", 5)):
            store.create_run(run_record(run, labelling={"top_k": top_k, "ranking": "prob"}))
            commit_judged(store, run, {"s": [{"truth": ["dog"], "labels": listed[:top_k]}]})
        return store.url

    def test_they_are_compared_at_the_labels_that_both_can_list(self, store: str) -> None:
        result = run(store, "--format", "json", "--fail-if", "recall < -0.01")
        found = json.loads(result.stdout)
        assert (found["k"], found["differences"]["recall_macro"]["value"], result.return_value) == (5, 0.0, 0)
        assert result.stderr == "top_k differs: A has 10, B has 5; compared at the first 5 labels\n"

    def test_another_number_is_measured_where_it_is_asked_for(self, store: str) -> None:
        result = run(store, "--k", "10", "--fail-if", "recall@10 < -0.01")
        assert result.return_value == 4
        assert "compared at the first 10 labels, which one of them cannot list" in result.stderr

    def test_a_condition_at_labels_that_one_cannot_list_is_wrong_usage(self, store: str) -> None:
        result = CliRunner().invoke(compare, [store, "run-a", "run-b", "--fail-if", "recall@10 < -0.01"])
        assert result.exit_code == 2
        assert result.stderr.startswith("top_k differs: A has 10, B has 5;")
        assert "--fail-if asks for recall@10, --k is 5; expected the same" in result.stderr


def test_runs_with_one_top_k_are_compared_at_ten_labels_without_a_word(store: str) -> None:
    result = run(store, "--format", "json")
    assert (json.loads(result.stdout)["k"], result.stderr) == (10, "")


def test_csv_has_the_differences_that_json_has(store: str) -> None:
    rows = {row["measure"]: row for row in csv.DictReader(io.StringIO(run(store, "--format", "csv").stdout))}
    differences = json.loads(run(store, "--format", "json").stdout)["differences"]
    assert {name: float(row["difference"]) for name, row in rows.items() if name in differences} == {
        name: found["value"] for name, found in differences.items()
    }
    assert set(rows) == {"reject_rate", *differences}
