"""What people ask most, as macros; and the page that documents views and macros."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.analysis.recall import analyse_run
from pipeline.analysis.threshold_learning import learn_thresholds
from pipeline.catalog.connection import run_query
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store
from tests.fixtures.checkout import ROOT
from tests.fixtures.stored.tables import commit_judged, run_record

PAGE = (ROOT / "pipeline" / "catalog" / "sql" / "README.md").read_text()


def examples(kind: str) -> list[str]:
    """The page's queries of a kind of block."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return [query.strip() for block in blocks for query in block.split(";\n") if query.strip()]


IMAGES = [
    {"truth": ["dog", "cat"], "labels": [("Dogs", 0.5), ("tree", 0.25)], "caption": "a dog"},
    {"truth": ["tie"], "labels": [("dog", 0.75), ("trees", 0.5), ("dogs", 0.125), ("sky", 0.05)]},
    {"truth": None, "labels": [("it's; DROP VIEW labels", 0.9)]},
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    commit_judged(store, "run-1", {"s": IMAGES})
    return store


def rows(store: Store, query: str, vocabulary: Vocabulary | None = None) -> list[tuple[Any, ...]]:
    fetched: list[tuple[Any, ...]] = run_query(open_store(store.url, vocabulary), query).fetchall()
    return fetched


@pytest.mark.parametrize("query", examples("sql"))
def test_every_documented_query_runs(store: Store, query: str) -> None:
    assert run_query(open_store(store.url), query).description


@pytest.mark.parametrize("query", examples("sql thresholds"))
def test_every_documented_query_of_thresholds_runs(store: Store, query: str) -> None:
    analysis = analyse_run(open_store(store.url), "run-1", "labels")
    learned = learn_thresholds(analysis, read_vocabulary(None), target_precision=0.5)
    assert run_query(open_store(store.url, thresholds=learned.thresholds), query).description


def test_every_view_and_macro_is_documented(store: Store) -> None:
    connection = open_store(store.url)
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    macros = connection.execute(
        "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND function_type LIKE '%macro'"
    ).fetchall()
    # Behind `labels` and `spellings`.
    inner = {
        "named_labels",
        "stored_labels",
        "stored_spellings",
        "unnamed_labels",
        "centre_labels",
        "view_labels",
        "unnamed_centre_labels",
        "unnamed_view_labels",
        "written_labels",
        "label_counts",
        "chosen_lists",
        "chosen_listed_labels",
    }
    assert {name for (name,) in views + macros if f"`{name}" not in PAGE} - inner == set()
    assert len(macros) >= 5


def test_images_are_found_by_any_spelling_of_a_name(store: Store) -> None:
    found = rows(store, "SELECT key, label, score FROM images_with('DOG')")
    assert found == [("1", "dog", 0.75), ("0", "Dogs", 0.5), ("1", "dogs", 0.125)]


def test_images_below_a_score_are_left_out(store: Store) -> None:
    assert rows(store, "SELECT key FROM images_with('dog', min_score := 0.6)") == [("1",)]
    # A label of just that score is not below it.
    assert rows(store, "SELECT key FROM images_with('dog', min_score := 0.5)") == [("1",), ("0",)]


def test_labels_of_an_image_come_best_first(store: Store) -> None:
    assert rows(store, "SELECT label, name FROM labels_of('0')") == [("Dogs", "dog"), ("tree", "tree")]


def test_an_image_counts_once_for_each_name_beside_another(store: Store) -> None:
    assert rows(store, "SELECT * FROM cooccurring('dog')") == [("tree", 2, 1.0), ("sky", 1, 0.5)]


def test_top_labels_count_images_not_spellings(store: Store) -> None:
    top = rows(store, "SELECT name, images FROM top_labels('run-1')")
    assert top[:2] == [("dog", 2), ("tree", 2)]
    assert rows(store, "SELECT * FROM top_labels('run-2')") == []


def test_recall_counts_names_and_their_places(store: Store) -> None:
    assert rows(store, "SELECT * FROM recall_at(1)") == [("run-1", 2, 0.25, 0.5)]
    assert rows(store, "SELECT * FROM recall_at(10)") == [("run-1", 2, 0.25, 0.5)]


def test_sensitive_names_are_marked_and_names_are_displayed_in_another_language(store: Store) -> None:
    words = replace(read_vocabulary(None), sensitive=frozenset({"dog"}), display={"de": {"tree": "Baum"}})
    query = "SELECT DISTINCT label, sensitive, display_name(name, 'de') FROM labels ORDER BY label LIMIT 4"
    assert rows(store, query, words) == [
        ("Dogs", True, "dog"),
        ("dog", True, "dog"),
        ("dogs", True, "dog"),
        ("it's; DROP VIEW labels", False, "it's; drop view label"),
    ]
    assert rows(store, "SELECT images FROM top_labels('run-1') WHERE display_name(name, 'de') = 'Baum'", words) == [
        (2,)
    ]
    assert rows(store, "SELECT count(*) FROM labels WHERE sensitive") == [(0,)]


def test_macros_and_recall_know_allowed_names_alone(store: Store) -> None:
    words = replace(read_vocabulary(None), allow=frozenset({"dog"}))
    assert rows(store, "SELECT name, images FROM top_labels('run-1')", words) == [("dog", 2)]
    assert rows(store, "SELECT * FROM recall_at(1)", words) == [("run-1", 1, 1.0, 1.0)]


RUNS = ("run-1", "run-2")
WORDS = ("dog", "dogs", "Dog", "cat", "tree", "trees", "sky", "photo")
# Denies a word, so that a label has no name.
WITHOUT_PHOTO = replace(read_vocabulary(None), deny=frozenset({"photo"}))


def draw_image(rng: random.Random) -> dict[str, Any]:
    """Labels with scores whose sums are exact, and a truth, an empty one or none."""
    words = rng.sample(WORDS, rng.randrange(len(WORDS)))
    scores = sorted((rng.randrange(1, 64) / 64 for _ in words), reverse=True)
    truth = rng.choice([None, rng.sample(WORDS, rng.randrange(4))])
    return {"truth": truth, "labels": list(zip(words, scores, strict=True))}


def draw_runs(seed: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By run and shard, images of the same keys."""
    rng = random.Random(seed)
    return {run: {shard: [draw_image(rng) for _ in range(15)] for shard in ("a", "b")} for run in RUNS}


RANDOM_RUNS = draw_runs(seed=4)


@pytest.fixture(scope="module")
def random_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("random") / "store"))
    for run, shards in RANDOM_RUNS.items():
        store.create_run(run_record(run))
        commit_judged(store, run, shards)
    return store


def named(labels: Iterable[str]) -> list[str]:
    """Names of labels in order, each once."""
    return list(dict.fromkeys(name for label in labels if (name := WITHOUT_PHOTO.name_of(label))))


def listed(image: Mapping[str, Any]) -> list[str]:
    return named(label for label, _ in image["labels"])


def images_of(run: str) -> list[dict[str, Any]]:
    return [image for shard in RANDOM_RUNS[run].values() for image in shard]


class TestRandomRuns:
    """Macros against the same question answered image by image, for two runs of the same images."""

    @pytest.mark.parametrize("run", RUNS)
    def test_top_labels_have_their_images_and_the_mean_score_of_all_their_labels(
        self, random_store: Store, run: str
    ) -> None:
        of_run = images_of(run)
        n_images = Counter(name for image in of_run for name in listed(image))
        scores: dict[str, list[float]] = {}
        for image in of_run:
            for label, score in image["labels"]:
                scores.setdefault(WITHOUT_PHOTO.name_of(label) or "", []).append(score)
        expected = [(name, n, sum(scores[name]) / len(scores[name])) for name, n in n_images.items()]
        found = rows(random_store, f"SELECT * FROM top_labels('{run}')", WITHOUT_PHOTO)
        assert found == sorted(expected, key=lambda row: (-row[1], row[0]))

    @pytest.mark.parametrize("k", [1, 2, 3, 10])
    def test_recall_is_that_of_each_runs_first_names(self, random_store: Store, k: int) -> None:
        expected = []
        for run in RUNS:
            recalls = []
            for image in images_of(run):
                if truth := named(image["truth"] or []):
                    first = listed(image)[:k]
                    recalls.append(sum(name in first for name in truth) / len(truth))
            hits = [recall > 0 for recall in recalls]
            expected.append((run, len(recalls), sum(recalls) / len(recalls), sum(hits) / len(hits)))
        found = rows(random_store, f"SELECT * FROM recall_at({k})", WITHOUT_PHOTO)
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        assert [row[2:] for row in found] == [pytest.approx(row[2:], abs=1e-12) for row in expected]

    @pytest.mark.parametrize("name", ["dog", "tree", "cat"])
    def test_names_stand_beside_another_in_images_of_each_run(self, random_store: Store, name: str) -> None:
        every = [listed(image) for run in RUNS for image in images_of(run)]
        chosen = [names for names in every if name in names]
        beside = Counter(other for names in chosen for other in names if other != name)
        expected = [(other, n, n / len(chosen)) for other, n in beside.items()]
        found = rows(random_store, f"SELECT * FROM cooccurring('{name}')", WITHOUT_PHOTO)
        assert found == sorted(expected, key=lambda row: (-row[1], row[0]))

    def test_images_with_a_name_come_by_score_from_all_runs(self, random_store: Store) -> None:
        expected = [
            (run, shard, str(key), rank, label, score)
            for run, shards in RANDOM_RUNS.items()
            for shard, of_shard in shards.items()
            for key, image in enumerate(of_shard)
            for rank, (label, score) in enumerate(image["labels"], start=1)
            if WITHOUT_PHOTO.name_of(label) == "dog" and score >= 0.25
        ]
        query = "SELECT run, shard, key, rank, label, score FROM images_with('dogs', min_score := 0.25)"
        found = rows(random_store, query, WITHOUT_PHOTO)
        assert sorted(found) == sorted(expected)
        order = [(-score, run, shard, key) for run, shard, key, _, _, score in found]
        assert order == sorted(order)

    def test_labels_of_an_image_are_those_of_every_run_and_shard(self, random_store: Store) -> None:
        expected = [
            (run, shard, "3", rank, label, WITHOUT_PHOTO.name_of(label), score)
            for run, shards in RANDOM_RUNS.items()
            for shard, of_shard in shards.items()
            for rank, (label, score) in enumerate(of_shard[3]["labels"], start=1)
        ]
        assert rows(random_store, "SELECT * FROM labels_of('3')", WITHOUT_PHOTO) == expected


def test_another_vocabulary_changes_names_and_not_labels(store: Store) -> None:
    vocabulary = Vocabulary(
        title="mine", fold_plurals=True, keep=frozenset(), deny=frozenset({"tree"}), aliases={"sky": "heaven"}
    )
    found = rows(store, "SELECT label, name FROM labels_of('1')", vocabulary)
    assert found == [("dog", "dog"), ("trees", None), ("dogs", "dog"), ("sky", "heaven")]


def test_a_hostile_word_is_only_a_word(store: Store) -> None:
    assert rows(store, "SELECT key FROM images_with('it''s; DROP VIEW labels')") == [("2",)]


SQL_FOLDER = ROOT / "pipeline" / "catalog" / "sql"
CREATED = re.compile(r"^CREATE (?:OR REPLACE )?(?:TEMP )?(?:TABLE|VIEW|MACRO) (\w+)", re.MULTILINE)


def relations() -> list[tuple[list[str], list[str], list[str]]]:
    """Rows of the page's table: names, files that make them, files that read them."""
    lines = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
    quoted = [[re.findall(r"`([^`*]+)`", cell) for cell in cells] for cells in lines]
    return [(names, makers, readers) for names, _, makers, readers in quoted]


def source_of(file: str) -> str:
    """The text of a file that the page names, without comments of SQL."""
    rooms = [SQL_FOLDER.parents[1] / room for room in ("catalog", "analysis", "reviews")]
    folders = [SQL_FOLDER] if file.endswith(".sql") else rooms
    (path,) = (folder / file for folder in folders if (folder / file).is_file())
    return re.sub(r"--.*", "", path.read_text())


def test_every_relation_that_a_file_of_sql_makes_is_on_the_page_with_its_file() -> None:
    made = {(name, path.name) for path in SQL_FOLDER.glob("*.sql") for name in CREATED.findall(path.read_text())}
    documented = {(name, file) for names, makers, _ in relations() for name in names for file in makers}
    assert made
    assert made <= documented


def test_every_relation_of_an_open_store_is_on_the_page(store: Store) -> None:
    query = """
        SELECT table_name FROM duckdb_tables()
        UNION SELECT view_name FROM duckdb_views() WHERE NOT internal
        UNION SELECT function_name FROM duckdb_functions() WHERE NOT internal
    """
    held = {name for (name,) in rows(store, query)}
    assert {"stored_labels", "spellings", "images_with"} <= held
    assert held <= {name for names, _, _ in relations() for name in names}


@pytest.mark.parametrize(("names", "makers", "readers"), relations(), ids=lambda cell: cell[0] if cell else "none")
def test_files_that_the_page_names_make_and_read_the_relation(
    names: list[str], makers: list[str], readers: list[str]
) -> None:
    for file in [file for file in makers + readers if "." in file]:
        assert any(re.search(rf"\b{name}\b", source_of(file)) for name in names), f"{file} has none of {names}"
