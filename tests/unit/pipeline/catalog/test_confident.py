"""The view `confident_labels`: labels that reach the thresholds of their names."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.catalog.label_choice import LabelChoice
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.thresholds import Thresholds
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store
from tests.fixtures.stored.lists import add_list, name_list
from tests.fixtures.stored.tables import commit_judged, run_record
from tests.fixtures.stored.thresholds import thresholds_of

RUN = "run-1"


def confident(
    tmp_path: Path,
    thresholds: Thresholds,
    labels: Sequence[tuple[str, float]],
    vocabulary: Vocabulary | None = None,
) -> list[tuple[str, float]]:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record(RUN, labelling={"ranking": thresholds.ranking}))
    commit_judged(store, RUN, {"a": [{"labels": labels}]})
    connection = open_store(store.url, vocabulary, thresholds)
    found: list[tuple[str, float]] = connection.sql(
        "SELECT label, score FROM confident_labels ORDER BY rank"
    ).fetchall()
    return found


def test_a_label_reaches_its_names_threshold_or_the_common_one(tmp_path: Path) -> None:
    labels = [("Dogs", 0.25), ("dog", 0.2), ("cat", 0.99), ("tree", 0.5), ("tie", 0.4)]
    assert [label for label, _ in confident(tmp_path, thresholds_of(), labels)] == ["Dogs", "tree"]


def test_where_the_lowest_is_best_lower_scores_reach_it(tmp_path: Path) -> None:
    thresholds = thresholds_of(ranking="ppl", direction="lowest", common=2.0, thresholds={"dog": 3.0, "cat": -math.inf})
    labels = [("dog", 3.0), ("dogs", 3.1), ("cat", 1.0), ("tree", 2.0), ("tie", 2.5)]
    assert [label for label, _ in confident(tmp_path, thresholds, labels)] == ["dog", "tree"]


def test_every_score_reaches_the_threshold_that_is_written_as_its_shortest_number(tmp_path: Path) -> None:
    rng = random.Random(0)
    labels = [(f"thing {number}", float(np.float32(rng.random()))) for number in range(200)]
    written = {name: float(str(np.float32(score))) for name, score in labels}
    assert written != dict(labels)
    found = confident(tmp_path, thresholds_of(common=math.inf, thresholds=written), labels)
    assert found == labels


def test_denied_labels_are_not_confident(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('deny = ["dog"]')
    vocabulary = read_vocabulary(tmp_path / "mine.toml")
    thresholds = thresholds_of(vocabulary=vocabulary.version)
    assert confident(tmp_path, thresholds, [("dog", 1.0), ("tree", 0.9)], vocabulary) == [("tree", pytest.approx(0.9))]


@pytest.mark.parametrize("ranking", ["prob", "sim"])
def test_thresholds_of_listed_labels_are_for_listed_labels_of_runs_of_any_ranking(tmp_path: Path, ranking: str) -> None:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record(RUN, labelling={"ranking": ranking, "top_k": 5}))
    commit_judged(store, RUN, {"a": [{"labels": [("dog", 0.75)]}]})
    add_list(store.run(RUN), name_list("animals", "dog", "cat", "fox"), [("dog", 0.3), ("cat", 0.9), ("fox", 0.25)])
    thresholds = thresholds_of(labels="listed")
    connection = open_store(store.url, None, thresholds, labels=LabelChoice("listed"))
    assert connection.sql("SELECT label, kind FROM confident_labels").fetchall() == [("dog", "listed")]
    with pytest.raises(TagstreamError, match=r"are for listed labels, .* opened with open ones; use --labels listed"):
        open_store(store.url, None, thresholds)


def test_without_thresholds_there_is_no_such_view(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.create_run(run_record(RUN))
    assert open_store(store.url).sql("SHOW TABLES").filter("name = 'confident_labels'").fetchall() == []


def test_names_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TagstreamError, match=r"for names of the vocabulary mine-0, the store was opened with default-"):
        confident(tmp_path, thresholds_of(vocabulary="mine-0"), [("dog", 1.0)])


@pytest.mark.parametrize(
    "record", [{"labelling": {"ranking": "ppl"}}, {"model_fingerprint": "9", "labelling": {"ranking": "prob"}}]
)
def test_a_store_without_such_scores_is_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    store = Store(str(tmp_path))
    store.create_run(run_record(RUN, **record))
    with pytest.raises(TagstreamError, match=r"the model 0123 ranked by prob, as of run run-1; the store has no such"):
        open_store(store.url, None, thresholds_of())


def test_runs_with_other_scores_are_left_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for run, ranking in ((RUN, "prob"), ("run-2", "sim"), ("run-3", "prob")):
        store.create_run(run_record(run, labelling={"ranking": ranking}))
        commit_judged(store, run, {"a": [{"labels": [("dog", 0.9)]}]})
    connection = open_store(store.url, None, thresholds_of())
    assert connection.sql("SELECT run FROM confident_labels ORDER BY run").fetchall() == [(RUN,), ("run-3",)]


@pytest.mark.parametrize(("ranking", "score"), [("prob", 0.7), ("ppl", 0.1), ("sim", 0.1)])
def test_a_score_reaches_the_threshold_that_is_written_like_it(tmp_path: Path, ranking: str, score: float) -> None:
    # As float32, 0.7 is a little less and 0.1 a little more.
    direction = "highest" if ranking == "prob" else "lowest"
    thresholds = thresholds_of(ranking=ranking, direction=direction, common=score, thresholds={"dog": score})
    labels = [("dog", score), ("cat", score)]
    assert [label for label, _ in confident(tmp_path, thresholds, labels)] == ["dog", "cat"]
