"""Which images a report shows, and what it says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.analysis.truth import name_labels
from pipeline.catalog.scope import narrow_to_run
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.report import gallery
from pipeline.report.gallery import draw_gallery, image_data
from pipeline.store.store import Store
from tests.fixtures.stored.reported import OTHER, REJECTED, RUN, make_store, random_shards


def draw(store: Store, n: int = 10, seed: int = 0, where: str | None = None, other: str | None = None) -> Any:
    connection = open_store(store.url)
    named = name_labels(connection, [RUN], "labels")
    return draw_gallery(narrow_to_run(connection, RUN), named, other, where, n, seed)


def places(drawn: gallery.Gallery) -> list[tuple[str, int]]:
    return [(image["shard"], image["index"]) for image in drawn.images]


class TestDrawing:
    """Which images."""

    def test_a_small_run_is_shown_whole_and_in_order(self, tmp_path: Path) -> None:
        drawn = draw(make_store(tmp_path, random_shards(2, 3)), n=10)
        assert places(drawn) == [(shard, index) for shard in ("s000", "s001") for index in range(3)]

    def test_the_same_seed_draws_the_same_images_and_other_seeds_others(self, tmp_path: Path) -> None:
        store = make_store(tmp_path, random_shards(3, 20))
        first = places(draw(store, n=10, seed=1))
        assert len(first) == 10
        assert places(draw(store, n=10, seed=1)) == first
        assert places(draw(store, n=10, seed=2)) != first

    def test_seed_by_seed_every_image_has_its_chance(self, tmp_path: Path) -> None:
        store = make_store(tmp_path, random_shards(4, 5))
        connection = open_store(store.url)
        named = name_labels(connection, [RUN], "labels")
        scope = narrow_to_run(connection, RUN)
        counts: dict[tuple[str, int], int] = {}
        for seed in range(60):
            for place in places(draw_gallery(scope, named, None, None, 5, seed)):
                counts[place] = counts.get(place, 0) + 1
        # Fifteen times each on average; four standard deviations are thirteen.
        assert len(counts) == 20
        assert max(counts.values()) < 28

    def test_few_shards_are_read_where_they_hold_enough(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gallery, "_SHARDS_READ", 3)
        drawn = draw(make_store(tmp_path, random_shards(12, 5)), n=10)
        assert len(drawn.images) == 10
        assert len({shard for shard, _ in places(drawn)}) <= 3

    def test_more_shards_are_read_where_those_hold_too_few(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gallery, "_SHARDS_READ", 3)
        drawn = draw(make_store(tmp_path, random_shards(12, 5)), n=30)
        assert len(drawn.images) == 30
        assert len({shard for shard, _ in places(drawn)}) == 6

    def test_rejected_samples_come_beside_the_others(self, tmp_path: Path) -> None:
        drawn = draw(make_store(tmp_path, {"a": [*random_shards(1, 50)["s000"], *[REJECTED] * 30]}), n=40)
        assert [image["status"] for image in drawn.images].count("labelled") == 40
        assert [image["status"] for image in drawn.images].count("rejected") == 20
        assert (drawn.n_labelled, drawn.n_rejected) == (50, 30)

    def test_a_condition_chooses_among_labelled_and_rejected(self, tmp_path: Path) -> None:
        store = make_store(tmp_path, {"a": [*random_shards(1, 5)["s000"], *[REJECTED] * 3]})
        assert places(draw(store, where='"index" IN (1, 6)')) == [("a", 1), ("a", 6)]
        assert places(draw(store, where="status = 'rejected'")) == [("a", 5), ("a", 6), ("a", 7)]

    def test_a_condition_that_no_image_meets_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(TagstreamError, match="holds no image with width > 5000; there is nothing to show"):
            draw(make_store(tmp_path, random_shards(1, 3)), where="width > 5000")


class TestContent:
    """What is said of an image."""

    def test_hits_and_misses_are_those_of_plain_comparison_by_name(self, tmp_path: Path) -> None:
        shards = random_shards(2, 30, seed=3)
        name_of = read_vocabulary(None).name_of
        n_hits = 0
        for image in draw(make_store(tmp_path, shards), n=100).images:
            given = shards[image["shard"]][image["index"]]
            true = {name_of(label) for label in given["truth"] or []} - {None}
            names = [name_of(label) for label, _ in given["labels"]]
            assert [label["is_hit"] for label in image["labels"]] == [name in true for name in names]
            assert {row["name"]: row["rank"] for row in image["truth"]} == {
                name: names.index(name) + 1 if name in names else None for name in true
            }
            n_hits += sum(name in true for name in names)
        assert n_hits > 10

    def test_labels_come_by_rank_with_their_scores(self, tmp_path: Path) -> None:
        shards = random_shards(1, 10, seed=4)
        for image in draw(make_store(tmp_path, shards)).images:
            given = shards["s000"][image["index"]]["labels"]
            assert [label["label"] for label in image["labels"]] == [label for label, _ in given]
            assert [label["score"] for label in image["labels"]] == pytest.approx([score for _, score in given])

    def test_the_other_runs_labels_come_along(self, tmp_path: Path) -> None:
        mine, others = {"a": [{"labels": ["dog"]}, {"labels": ["cat"]}]}, {"a": [{"labels": ["tree", "Dogs"]}]}
        first, second = draw(make_store(tmp_path, mine, other=others), other=OTHER).images
        assert [label["label"] for label in first["other_labels"]] == ["tree", "Dogs"]
        assert second["other_labels"] is None

    def test_what_the_other_run_lists_nothing_for_is_not_what_it_does_not_hold(self, tmp_path: Path) -> None:
        mine = {"a": [{"labels": ["dog"]} for _ in range(3)]}
        store = make_store(tmp_path, mine, other={"a": [{"labels": []}, REJECTED]})
        nothing, rejected, absent = (image_data(image, None) for image in draw(store, other=OTHER).images)
        assert nothing["other"] == []
        assert rejected["otherRejected"] == "decode: ImageUnreadable"
        assert "other" not in rejected
        assert not {"other", "otherRejected"} & set(absent)

    @pytest.mark.parametrize(
        ("size", "most", "squares"),
        [
            ((96, 72), 4, 2),
            ((72, 96), 4, 2),
            ((72, 72), 4, None),
            ((96, 72), 1, None),
            ((300, 72), 4, 4),
            ((300, 72), 3, 3),
        ],
    )
    def test_it_tells_how_many_squares_of_an_image_were_labelled(
        self, tmp_path: Path, size: tuple[int, int], most: int, squares: int | None
    ) -> None:
        (drawn,) = draw(make_store(tmp_path, {"a": [{"labels": ["dog"]}]})).images
        width, height = size
        data = image_data({**drawn, "width": width, "height": height}, None, most)
        assert data.get("squares") == squares

    def test_texts_of_any_length_are_cut(self, tmp_path: Path) -> None:
        image = {"labels": ["x" * 10_000], "caption": "y" * 10_000, "truth": ["z" * 10_000]}
        (drawn,) = draw(make_store(tmp_path, {"a": [image]})).images
        assert drawn["labels"][0]["label"] == "x" * 200
        assert drawn["truth"][0]["name"] == "z" * 200
        data = image_data(drawn, None)
        assert data["caption"] == "y" * 2000
        assert data["captionCut"]

    def test_a_rejection_of_any_length_is_cut(self, tmp_path: Path) -> None:
        columns = {"stage": "decode", "error": "E" * 10_000, "message": "m" * 10_000}
        rejected = {**REJECTED, "columns": columns}
        (drawn,) = draw(make_store(tmp_path, {"a": [rejected]}, other={"a": [rejected]}), other=OTHER).images
        data = image_data(drawn, None)
        assert data["rejected"] == data["otherRejected"] == "decode: " + "E" * 200
        assert len(data["message"]) == 2000

    def test_lists_of_any_length_are_cut_and_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(gallery._LIMITS, "n_labels", 3)
        images = [
            {"labels": ["cat", "dog"], "truth": ["sky", "tree", "cat", "car", "bird"]},
            {"labels": ["tree", "sky", "cat", "car", "dog"], "truth": ["sky", "tree", "cat", "car", "bird"]},
            {"labels": ["tree"], "truth": ["sky", "tree", "car"]},
        ]
        data = [image_data(image, None) for image in draw(make_store(tmp_path, {"a": images})).images]
        # Hits first, by their rank.
        assert [[name["name"] for name in image["truth"]] for image in data] == [
            ["cat", "bird", "car"],
            ["tree", "sky", "cat"],
            ["tree", "car", "sky"],
        ]
        assert [image.get("moreTruth") for image in data] == [2, 2, None]
        assert [image.get("moreMissed") for image in data] == [2, 1, None]

    def test_a_score_that_is_no_number_is_left_out(self, tmp_path: Path) -> None:
        store = make_store(tmp_path, {"a": [{"labels": [("dog", float("inf"))]}]}, rankings=("ppl", "ppl"))
        (drawn,) = draw(store).images
        assert image_data(drawn, None)["labels"] == [{"label": "dog"}]

    def test_a_rejected_sample_says_why(self, tmp_path: Path) -> None:
        (drawn,) = draw(make_store(tmp_path, {"a": [REJECTED]})).images
        data = image_data(drawn, None)
        assert data["rejected"] == "decode: ImageUnreadable"
        assert data["message"].startswith("not a readable image")
