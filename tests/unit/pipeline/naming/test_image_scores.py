"""Scores of a list for a handful of images, with the model that comes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model import Recognizer
from model.tagger import ImageCost
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.naming import image_scores
from pipeline.naming.image_scores import ImageScorer
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.stored.lists import name_list

# Two batches of the same float32 network, and of its scores float32 in a file.
TOLERANCE = 1e-4
ORIENTATION = 0x0112


def scores_of(path: Path | str, of_list: NameList, **settings: Any) -> list[image_scores.ImageScore]:
    return list(ImageScorer(of_list, "demo", LabelSettings(**settings)).score([str(path)]))


def write_noise(folder: Path) -> list[Path]:
    """Images of several shapes, the last of which its EXIF data turn."""
    paths = []
    for seed, size in enumerate([(96, 64), (64, 64), (60, 150), (200, 70)]):
        path = folder / f"{seed}.png"
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 10 + 1, size[0] // 10 + 1, 3), np.uint8)
        exif = Image.Exif()
        if seed == 3:
            exif[ORIENTATION] = 6
        Image.fromarray(pixels).resize(size).save(path, exif=exif)
        paths.append(path)
    return paths


def test_the_names_that_an_image_keeps_come_with_the_scores_of_the_recognizer(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{shade}.png") for shade in range(9)]
    for shade, path in enumerate(paths):
        Image.new("RGB", (40, 30), (20 * shade, 90, 30)).save(path)
    of_list = NameList(title="a", names={"dog": ("dog", "wolf"), "cat": ("cat",), "rose": ("rose",)}, top=2)
    found = list(ImageScorer(of_list, "demo", LabelSettings()).score(paths))
    assert [(score.image, score.rank) for score in found] == [(path, rank) for path in paths for rank in (1, 2)]
    recognizer = Recognizer.from_pretrained("demo", device="cpu", dtype="float32")
    probs = recognizer.score([Image.open(path) for path in paths], ["dog", "wolf", "cat", "rose"]).exp()
    for place, path in enumerate(paths):
        dog, wolf, cat, rose = probs[place].tolist()
        best = sorted([(dog + wolf, "dog"), (cat, "cat"), (rose, "rose")], reverse=True)[:2]
        of_image = [score for score in found if score.image == path]
        assert [score.name for score in of_image] == [name for _, name in best]
        assert [score.score for score in of_image] == pytest.approx([prob for prob, _ in best], rel=TOLERANCE)


def test_scores_are_those_of_a_run_with_these_settings(tmp_path: Path) -> None:
    paths = write_noise(tmp_path)
    of_list = name_list("things", "dog", "cat", "rose", "pizza", top=0)
    found = []
    for settings in ({}, {"views": "whole", "view_tokens": 9, "honour_exif": False}):
        store = str(tmp_path / f"store-{len(found)}")
        LabelJob(
            LabelRequest(
                source=str(tmp_path), store=store, model="demo", settings=LabelSettings(**settings), lists=(of_list,)
            )
        ).run()
        rows = open_store(store).sql("SELECT key, label, score FROM listed_labels JOIN images USING (run, image_id)")
        of_run = {(key, label): score for key, label, score in rows.fetchall()}
        scored = {(path.name, row.name): row.score for path in paths for row in scores_of(path, of_list, **settings)}
        assert len(scored) == len(paths) * 4
        assert scored == pytest.approx(of_run, rel=TOLERANCE)
        found.append(scored)
    centre, whole = found
    # The settings count where an image is not square, and nowhere else.
    changed = {key for key, name in centre if whole[key, name] != pytest.approx(centre[key, name], rel=0.01)}
    assert changed == {"0.png", "2.png", "3.png"}


@pytest.mark.parametrize(("sees_squares", "view_tokens", "n_seen"), [(True, 0, 2), (False, 0, 1), (False, 9, 1)])
def test_a_model_of_the_hub_is_shown_squares_where_it_makes_one_of_every_picture(
    monkeypatch: pytest.MonkeyPatch, sees_squares: bool, view_tokens: int, n_seen: int
) -> None:
    monkeypatch.setattr(image_scores, "is_hub_model", lambda _: True)
    monkeypatch.setattr(image_scores, "measure_image_cost", lambda *_: ImageCost({}, 9, sees_squares))
    scorer = ImageScorer(name_list("things", "dog"), "demo", LabelSettings(views=2, view_tokens=view_tokens))
    assert (scorer.most_views, scorer.ignores_views) == (n_seen, not sees_squares)


@pytest.mark.parametrize(
    ("content", "names", "settings", "message"),
    [
        (None, ("dog",), {}, "there is no file"),
        (b"no image", ("dog",), {}, "is no image that can be scored"),
        (b"no image", ("dog", "dog, cat"), {}, r"the name 'dog, cat' is read as .* \(list animals-"),
        (b"no image", ("dog", "a,b", "c,d"), {}, "; 2 of 3 names cannot be labels"),
        (None, ("dog",), {"image_tokens": 999}, "demo cannot label so: image_tokens is 999"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    tmp_path: Path, content: bytes | None, names: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    path = tmp_path / "image.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TagstreamError, match=message) as raised:
        scores_of(path, name_list("animals", *names), **settings)
    assert "\n" not in str(raised.value)
