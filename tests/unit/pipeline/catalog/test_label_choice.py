"""Open labels, names of a list, or both: what queries and measures see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.analysis.comparison import compare_runs
from pipeline.analysis.recall import analyse_run
from pipeline.catalog.label_choice import LabelChoice
from pipeline.catalog.scope import narrow_to_run
from pipeline.catalog.views import open_store
from pipeline.errors import StoreError, TagstreamError
from pipeline.store.store import Store
from tests.fixtures.stored.lists import add_list, name_list
from tests.fixtures.stored.tables import commit_judged, run_record

# Of three true names the recognizer wrote one, the list has another, and both have the third.
IMAGES = [{"truth": ["dog", "cat", "fox"], "labels": [("dog", 0.5), ("sky", 0.25), ("fox", 0.125)]}]
LISTED = [("fox", 0.375), ("cat", 0.25), ("owl", 0.0625)]
ANIMALS = name_list("animals", "fox", "cat", "owl")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("store")))
    for run, ranking in (("a", "prob"), ("b", "prob"), ("of-similarity", "sim"), ("without", "prob")):
        store.create_run(run_record(run, labelling={"top_k": 3, "ranking": ranking}))
        commit_judged(store, run, {"s": IMAGES})
    add_list(store.run("a"), name_list("older", "owl"), [("owl", 0.5)], created="2026-01-01")
    for run in ("a", "b", "of-similarity"):
        add_list(store.run(run), ANIMALS, LISTED)
    return store


def labels(store: Store, choice: LabelChoice, run: str = "a") -> list[tuple[Any, ...]]:
    connection = open_store(store.url, run=run, labels=choice)
    return connection.sql("SELECT rank, label, name, score, kind, list FROM labels ORDER BY rank").fetchall()


OPEN = [(1, "dog", "dog", 0.5), (2, "sky", "sky", 0.25), (3, "fox", "fox", 0.125)]


class TestLabels:
    """The view `labels`."""

    def test_by_default_it_has_what_the_recognizer_wrote(self, store: Store) -> None:
        assert labels(store, LabelChoice()) == [(*row, "open", None) for row in OPEN]

    def test_of_listed_ones_it_has_those_of_the_latest_list(self, store: Store) -> None:
        expected = [(rank, label, label, score) for rank, (label, score) in enumerate(LISTED, start=1)]
        assert labels(store, LabelChoice("listed")) == [(*row, "listed", ANIMALS.version) for row in expected]

    @pytest.mark.parametrize("given", ["older", name_list("older", "owl").version])
    def test_an_older_list_is_chosen_by_its_beginning(self, store: Store, given: str) -> None:
        assert [row[1] for row in labels(store, LabelChoice("listed", given))] == ["owl"]

    def test_both_stand_in_one_order_and_a_label_of_both_kinds_once_as_listed(self, store: Store) -> None:
        assert [
            (rank, label, score, kind) for rank, label, _, score, kind, _ in labels(store, LabelChoice("both"))
        ] == [
            (1, "dog", 0.5, "open"),
            (2, "fox", 0.375, "listed"),
            (3, "cat", 0.25, "listed"),
            (4, "sky", 0.25, "open"),
            (5, "owl", 0.0625, "listed"),
        ]

    def test_macros_and_spellings_follow_the_choice(self, store: Store) -> None:
        connection = open_store(store.url, run="a", labels=LabelChoice("listed"))
        assert connection.sql("SELECT label FROM spellings ORDER BY ALL").fetchall() == [("cat",), ("fox",), ("owl",)]
        assert connection.sql("SELECT score FROM images_with('dog')").fetchall() == []
        assert connection.sql("SELECT score FROM images_with('foxes')").fetchall() == [(0.375,)]
        assert connection.sql("SELECT name, images FROM top_labels('a') ORDER BY ALL").fetchall() == [
            ("cat", 1),
            ("fox", 1),
            ("owl", 1),
        ]

    def test_a_run_that_is_narrowed_to_shows_them_too(self, store: Store) -> None:
        connection = open_store(store.url, labels=LabelChoice("listed", "animals"))
        narrow_to_run(connection, "b")
        assert connection.sql("SELECT DISTINCT run, kind FROM labels").fetchall() == [("b", "listed")]


class TestMeasures:
    """Recall and comparisons."""

    @pytest.mark.parametrize(("kinds", "found"), [("open", 2 / 3), ("listed", 1.0), ("both", 1.0)])
    def test_recall_is_that_of_the_labels_that_are_shown(self, store: Store, kinds: Any, found: float) -> None:
        connection = open_store(store.url, run="a", labels=LabelChoice(kinds))
        (at_k,) = analyse_run(connection, "a", "labels").recall([5])
        assert at_k.measures["recall_macro"].value == pytest.approx(found)
        # What is listed is counted among the same labels.
        n_hits, n_labels = {"open": (2, 3), "listed": (2, 3), "both": (3, 5)}[kinds]
        assert at_k.measures["precision_macro"].value == pytest.approx(n_hits / n_labels)

    def test_an_image_without_any_name_of_the_list_is_judged_for_what_it_lists_wrongly(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record("a"))
        commit_judged(store, "a", {"s": [*IMAGES, {"truth": ["rose"], "labels": []}]})
        add_list(store.run("a"), ANIMALS, LISTED)
        analysis = analyse_run(open_store(store.url, labels=LabelChoice("listed")), "a", "labels")
        counts = {row["name"]: (row["n_truth"], row["n_listed"], row["n_hits"]) for row in analysis.name_counts(5)}
        assert counts == {"fox": (1, 2, 1), "cat": (1, 2, 1), "owl": (0, 2, 0)}
        # Recall is that of the image of which any name of the list is true.
        (at_k,) = analysis.recall([5])
        assert (at_k.n_images, at_k.measures["recall_macro"].value) == (1, 1.0)

    def test_a_list_of_which_nothing_is_true_is_not_measured(self, store: Store) -> None:
        connection = open_store(store.url, run="a", labels=LabelChoice("listed", "older"))
        with pytest.raises(
            TagstreamError, match=r"nothing that is true of the images of run a .* is a name of the list"
        ):
            analyse_run(connection, "a", "labels")

    def test_listed_labels_are_ranked_by_probability_whatever_the_run_is_ranked_by(self, store: Store) -> None:
        connection = open_store(store.url, labels=LabelChoice("listed"))
        assert analyse_run(connection, "of-similarity", "labels").ranking.name == "prob"
        assert compare_runs(connection, "a", "of-similarity", 3, "labels").is_same_ranking

    def test_runs_are_compared_by_their_listed_labels(self, store: Store) -> None:
        comparison = compare_runs(open_store(store.url, labels=LabelChoice("listed", "animals")), "a", "b", 3, "labels")
        assert {change.name for change in comparison.names} == {"fox", "cat", "owl"}


class TestMistakes:
    """What cannot be shown is one sentence."""

    @pytest.mark.parametrize(
        ("run", "choice", "message"),
        [
            ("without", LabelChoice("listed"), r"run without in .* has no list of names; `tagstream label"),
            ("a", LabelChoice("listed", "plants"), "there is no list plants in run a in .*; it holds animals-"),
            ("of-similarity", LabelChoice("both"), "run of-similarity is ranked by sim, whose scores cannot stand"),
        ],
    )
    def test_a_store_is_not_opened(self, store: Store, run: str, choice: LabelChoice, message: str) -> None:
        with pytest.raises(StoreError, match=message):
            open_store(store.url, run=run, labels=choice)

    def test_a_run_without_the_list_beside_runs_that_have_it_is_not_measured(self, store: Store) -> None:
        connection = open_store(store.url, labels=LabelChoice("listed"))
        with pytest.raises(TagstreamError, match="run without has no such list of names"):
            analyse_run(connection, "without", "labels")

    def test_a_list_is_not_chosen_for_open_labels(self) -> None:
        with pytest.raises(TagstreamError, match="the list animals is chosen, but open labels are shown"):
            LabelChoice("open", "animals")
