"""Which images and labels are exported."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.connection import Connection
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.export import selection
from pipeline.export.selection import Selection, select_images
from pipeline.naming.thresholds import Thresholds
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, commit_shard, run_record
from tests.unit.pipeline.export.conftest import RUN

WITHOUT_PHOTO = replace(read_vocabulary(None), deny=frozenset({"photo"}))
WORDS = ["dog", "Dogs", "cat", "tree", "Trees", "photo", "sky"]


def choose(store: Store, *, min_score: float | None = None, **selected: Any) -> list[dict[str, Any]]:
    connection = open_store(store.url, WITHOUT_PHOTO)
    selected_images = select_images(connection, RUN, Selection(min_score=min_score, **selected))
    images = list(selected_images.rows())
    assert len(images) == selected_images.n_images
    return images


def places(images: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(image["shard"], image["index"]) for image in images]


class TestConditions:
    """--where."""

    def test_without_a_condition_all_labelled_images_come_in_order(self, store: Store) -> None:
        assert places(choose(store)) == [("a", 0), ("a", 1), ("b/../c", 0), ("b/../c", 2)]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ("caption LIKE '%dog%'", [("a", 0)]),
            ("true OR false", [("a", 0), ("a", 1), ("b/../c", 0), ("b/../c", 2)]),
            ("caption IS NULL -- a comment", [("a", 1), ("b/../c", 2)]),
            ("shard = 'a' AND \"index\" = 1", [("a", 1)]),
            ("image_id IN (SELECT image_id FROM images_with('dog'))", [("a", 0)]),
            ("image_id IN (SELECT image_id FROM labels WHERE name = 'sky')", [("a", 1)]),
            ("EXISTS (SELECT 1 FROM truth WHERE truth.image_id = images.image_id AND name = 'cat')", [("a", 0)]),
            ("n_labels = (SELECT max(n_labels) FROM images)", [("b/../c", 0)]),
            ("caption = ')'' OR true'", None),
        ],
    )
    def test_a_condition_sees_images_labels_and_truth_of_the_run(
        self, store: Store, where: str, expected: list[tuple[str, int]] | None
    ) -> None:
        if expected is None:
            with pytest.raises(TagstreamError, match="there is nothing to export"):
                choose(store, where=where)
        else:
            assert places(choose(store, where=where)) == expected

    @pytest.mark.parametrize(
        "where",
        [
            "",
            "true)",
            "true); DROP VIEW images; SELECT (1",
            "true) UNION SELECT image_id FROM memory.main.images WHERE (true",
            "true) OR (true",
            "true; DELETE FROM images",
            "true;",
            "true ORDER BY image_id",
            "true LIMIT 1",
            "true) LIMIT (1",
            "true, true",
            "SELECT true",
            "true /*",
            "'",
            "true FROM images",
        ],
    )
    def test_what_is_no_single_expression_is_refused(self, store: Store, where: str) -> None:
        with pytest.raises(TagstreamError, match=r"is no condition: .*; expected one SQL expression") as caught:
            choose(store, where=where)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("where", "reason"),
        [
            ("nonsense > 1", "nonsense"),
            ("caption", "Could not convert"),
            ("image_id IN (SELECT 1 FROM read_csv('/etc/passwd'))", "disabled"),
            ("key = getenv('HOME')", "getenv"),
            ("shard::INT = 1", "Could not convert"),
        ],
    )
    def test_a_condition_that_fails_is_one_sentence(self, store: Store, where: str, reason: str) -> None:
        with pytest.raises(TagstreamError, match=r"the condition .* failed: ") as caught:
            choose(store, where=where)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_run_without_labelled_images_is_an_error(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "empty"))
        store.create_run(run_record(RUN))
        with pytest.raises(TagstreamError, match="run run-1 has no labelled images; there is nothing to export"):
            choose(store)

    @pytest.mark.parametrize("score", [float("nan"), float("inf")])
    def test_a_lowest_score_is_a_finite_number(self, score: float) -> None:
        with pytest.raises(TagstreamError, match="expected a finite number"):
            Selection(min_score=score)

    @pytest.mark.parametrize("ranking", ["ppl", "sim"])
    # 0 is a limit too.
    @pytest.mark.parametrize("min_score", [0.0, 1.0])
    def test_the_lowest_score_is_refused_where_low_scores_are_good(self, ranking: str, min_score: float) -> None:
        with pytest.raises(TagstreamError, match=f"is ranked by {ranking}, whose best scores are the lowest"):
            Selection(min_score=min_score).check_ranking(run_record(RUN, labelling={"ranking": ranking}))


class TestSamples:
    """--sample."""

    @pytest.fixture
    def many(self, tmp_path: Path) -> Store:
        store = Store(str(tmp_path / "many"))
        store.create_run(run_record(RUN))
        for shard in range(10):
            commit_shard(store, RUN, f"{shard:02}", n_rows=20)
        return store

    def test_a_sample_is_that_of_the_lowest_digests(self, many: Store) -> None:
        ids = [image["image_id"] for image in choose(many)]
        digests = {number: hashlib.md5(f"{number} 7".encode()).hexdigest() for number in ids}
        expected = set(sorted(ids, key=digests.__getitem__)[:30])
        sample = choose(many, sample=30, seed=7)
        assert {image["image_id"] for image in sample} == expected
        assert places(sample) == sorted(places(sample))

    def test_another_seed_draws_another_sample(self, many: Store) -> None:
        assert places(choose(many, sample=30, seed=1)) != places(choose(many, sample=30, seed=2))

    def test_a_smaller_sample_is_part_of_a_larger_one(self, many: Store) -> None:
        assert set(places(choose(many, sample=10))) < set(places(choose(many, sample=50)))

    def test_a_sample_is_drawn_from_the_images_that_meet_the_condition(self, many: Store) -> None:
        sample = choose(many, sample=15, where="shard = '03'")
        assert len(sample) == 15
        assert {image["shard"] for image in sample} == {"03"}

    def test_a_sample_of_more_than_there_are_is_all(self, many: Store) -> None:
        assert len(choose(many, sample=1000)) == 200


class TestLabels:
    """What an image comes with."""

    def test_a_name_stands_once_for_the_best_of_its_labels(self, store: Store) -> None:
        (image,) = choose(store, where="shard = 'a' AND \"index\" = 0")
        assert image["labels"] == [
            {"name": "dog", "label": "Dogs", "score": 0.5, "rank": 1},
            {"name": "tree", "label": "tree", "score": 0.25, "rank": 2},
        ]
        assert image["truth"] == [{"name": "dog", "label": "dogs"}, {"name": "cat", "label": "cat"}]

    def test_denied_labels_are_left_out(self, store: Store) -> None:
        (image,) = choose(store, where="shard = 'a' AND \"index\" = 1")
        assert [label["name"] for label in image["labels"]] == ["sky"]

    def test_no_truth_is_not_an_empty_truth(self, store: Store) -> None:
        assert [image["truth"] and len(image["truth"]) for image in choose(store)] == [2, None, [], None]

    def test_labels_below_the_lowest_score_are_left_out_and_their_images_stay(self, store: Store) -> None:
        images = choose(store, min_score=0.3)
        assert [[label["score"] for label in image["labels"]] for image in images[:2]] == [[0.5], [0.3]]
        assert len(images) == 4

    # 0.9 and 0.7 as they are stored lie below, 0.25 is the same, 0.1 lies above.
    @pytest.mark.parametrize("score", [0.9, 0.7, 0.25, 0.1])
    def test_a_label_of_the_lowest_score_itself_stays(self, tmp_path: Path, score: float) -> None:
        store = Store(str(tmp_path / "scores"))
        store.create_run(run_record(RUN))
        commit_judged(store, RUN, {"s": [{"truth": None, "labels": [("dog", score), ("cat", score * 0.999)]}]})
        (image,) = choose(store, min_score=score)
        assert [(label["label"], label["score"]) for label in image["labels"]] == [("dog", score)]

    @pytest.mark.parametrize(("min_score", "n_labels"), [(1e300, 0), (-1e300, 2)])
    def test_a_limit_that_no_stored_score_could_have_is_none_or_leaves_all_out(
        self, store: Store, min_score: float, n_labels: int
    ) -> None:
        (image,) = choose(store, where="shard = 'a' AND \"index\" = 0", min_score=min_score)
        assert len(image["labels"]) == n_labels

    def test_only_labels_that_reach_their_thresholds_are_exported(self, store: Store) -> None:
        record = run_record(RUN)
        thresholds = Thresholds(
            run=RUN,
            truth="labels",
            vocabulary=read_vocabulary(None).version,
            model_fingerprint=record.model_fingerprint,
            ranking="prob",
            direction="highest",
            target_precision=0.9,
            common=0.2,
            thresholds={"dog": 0.6, "tree": 0.25},
        )
        connection = open_store(store.url, thresholds=thresholds)
        selected = select_images(connection, RUN, Selection(where="shard = 'a'"), confident=True)
        labels = [[label["label"] for label in image["labels"]] for image in selected.rows()]
        assert labels == [["tree"], ["photo", "sky"]]

    def test_scores_have_the_digits_that_they_were_stored_with(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "scores"))
        store.create_run(run_record(RUN))
        labels = [("a", 0.1), ("b", 1e-12), ("c", float("nan")), ("d", float("inf"))]
        commit_judged(store, RUN, {"s": [{"truth": None, "labels": labels}]})
        (image,) = choose(store)
        assert [label["score"] for label in image["labels"]] == [0.1, 1e-12, None, None]

    def test_groups_of_shards_give_what_one_group_gives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = random_store(tmp_path)
        together = choose(store)
        monkeypatch.setattr(selection, "_IMAGES_AT_ONCE", 5)
        assert choose(store) == together
        assert together == slow_choice(open_store(store.url))


def random_store(tmp_path: Path) -> Store:
    rng = random.Random(3)
    store = Store(str(tmp_path / "random"))
    store.create_run(run_record(RUN))
    for shard in ("z", "a b", "A", "ä", "😀", "0/1"):
        images = [
            {
                "truth": rng.choice([None, rng.choices(WORDS, k=3)]),
                "labels": [(rng.choice(WORDS), 0.5**rank) for rank in range(rng.randrange(6))],
            }
            for _ in range(rng.randrange(1, 9))
        ]
        commit_judged(store, RUN, {shard: images})
    return store


def slow_choice(connection: Connection) -> list[dict[str, Any]]:
    """Images with labels and truth, put together row by row."""
    name_of = WITHOUT_PHOTO.name_of
    result = connection.execute("SELECT * FROM images")
    columns = [column[0] for column in result.description]
    images = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
    labels = connection.execute("SELECT image_id, rank, label, score FROM stored_labels").fetchall()
    for image in images:
        found: dict[str, dict[str, Any]] = {}
        for _, rank, label, score in sorted(row for row in labels if row[0] == image["image_id"]):
            if name := name_of(label):
                found.setdefault(name, {"name": name, "label": label, "score": score, "rank": rank})
        image["labels"] = list(found.values())
        if image["truth"] is not None:
            true: dict[str, dict[str, str]] = {}
            for label in image["truth"]:
                if name := name_of(label):
                    true.setdefault(name, {"name": name, "label": label})
            image["truth"] = list(true.values())
    kept = [
        "image_id",
        "shard",
        "index",
        "key",
        "width",
        "height",
        "n_bytes",
        "content_hash",
        "caption",
        "labels",
        "truth",
    ]
    ordered = sorted(images, key=lambda image: (image["shard"].encode(), image["index"]))
    return [{name: image[name] for name in kept} for image in ordered]
