"""Scores of a list for a handful of images, with the model that comes along."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from model import Recognizer
from pipeline.errors import TagstreamError
from pipeline.naming.image_scores import score_images
from pipeline.naming.name_list import NameList
from tests.fixtures.stored.lists import name_list


def test_the_names_that_an_image_keeps_come_with_the_scores_of_the_recognizer(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{shade}.png") for shade in range(9)]
    for shade, path in enumerate(paths):
        Image.new("RGB", (40, 30), (20 * shade, 90, 30)).save(path)
    of_list = NameList(title="a", names={"dog": ("dog", "wolf"), "cat": ("cat",), "rose": ("rose",)}, top=2)
    found = list(score_images(paths, of_list, "demo"))
    assert [(score.image, score.rank) for score in found] == [(path, rank) for path in paths for rank in (1, 2)]
    recognizer = Recognizer.from_pretrained("demo", device="cpu", dtype="float32")
    probs = recognizer.score([Image.open(path) for path in paths], ["dog", "wolf", "cat", "rose"]).exp()
    for place, path in enumerate(paths):
        dog, wolf, cat, rose = probs[place].tolist()
        best = sorted([(dog + wolf, "dog"), (cat, "cat"), (rose, "rose")], reverse=True)[:2]
        of_image = [score for score in found if score.image == path]
        assert [score.name for score in of_image] == [name for _, name in best]
        assert [score.score for score in of_image] == pytest.approx([prob for prob, _ in best], rel=1e-4)


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        (None, ("dog",), "there is no file"),
        (b"no image", ("dog",), "is no image that can be scored"),
        (b"no image", ("dog", "dog, cat"), r"the name 'dog, cat' is read as .* \(list animals-"),
        (b"no image", ("dog", "a,b", "c,d"), "; 2 of 3 names cannot be labels"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    tmp_path: Path, content: bytes | None, names: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "image.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TagstreamError, match=message) as raised:
        list(score_images([str(path)], name_list("animals", *names), "demo"))
    assert "\n" not in str(raised.value)
