"""The page for review: what is on it, and what is not."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.reviews import page
from pipeline.reviews.drawing import Draw
from pipeline.reviews.job import SampleRequest, sample_for_review
from pipeline.reviews.written import WrittenSample
from pipeline.store.store import Store
from tests.fixtures.stored.reported import OTHER, RUN, make_store

IMAGES = [{"labels": ["dogs", "cat"]}, {"labels": ["tree"]}]
ALL = Draw(by="random", n=1000)


def write(store: Store, out: Path, draw: Draw = ALL) -> WrittenSample:
    values: dict[str, Any] = {"store": store.url, "run": RUN, "draw": draw, "to": "page", "out": str(out)}
    return sample_for_review(SampleRequest(**values, vocabulary=read_vocabulary(None)))[1]


def page_data(out: Path) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="page-data">(.*?)</script>', out.read_text(), re.DOTALL)
    return json.loads(text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, {"a": IMAGES, "b": IMAGES})


def test_it_has_the_names_of_each_image_best_first_without_scores_and_a_picture(store: Store, tmp_path: Path) -> None:
    written = write(store, tmp_path / "review.html")
    assert (written.n_images, written.n_labels, written.notes) == (4, 6, [])
    data = page_data(tmp_path / "review.html")
    assert (data["run"], data["sample"][:7]) == (RUN, "random-")
    assert [image["labels"] for image in data["images"]] == [["dog", "cat"], ["tree"]] * 2
    assert {frozenset(image) for image in data["images"]} == {frozenset({"id", "key", "labels", "picture"})}
    picture = Image.open(io.BytesIO(base64.b64decode(data["images"][0]["picture"])))
    assert (picture.format, picture.size) == ("WEBP", (96, 72))


def test_where_two_runs_disagree_the_names_of_both_are_judged(tmp_path: Path) -> None:
    others = [{"labels": ["cat", "bus"]}, {"labels": []}]
    store = make_store(tmp_path, {"a": IMAGES}, other={"a": others})
    write(store, tmp_path / "review.html", Draw(by="disagreement", n=1000, against=OTHER))
    shown = page_data(tmp_path / "review.html")["images"]
    assert [image["labels"] for image in shown] == [["dog", "cat", "bus"], ["tree"]]


def test_images_that_are_gone_are_left_out_and_noted(store: Store, tmp_path: Path) -> None:
    (tmp_path / "shards" / "b.tar").unlink()
    written = write(store, tmp_path / "review.html")
    assert (written.n_images, written.n_labels) == (2, 3)
    assert written.notes == ["2 images are left out: 2 x the original is gone (b#0, b#1)"]
    # They were drawn all the same: what others say of the sample counts as if they had not been reviewed.
    assert open_store(store.url).sql("SELECT count(*) FROM drawn").fetchall() == [(4,)]


@pytest.mark.parametrize(
    "reason", ["none of the 4 images has a picture", "4 images are too many for one page", "exists"]
)
def test_what_cannot_be_written_leaves_no_page_and_no_sample(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    out = tmp_path / "review.html"
    if reason == "exists":
        out.write_text("mine")
    elif "picture" in reason:
        for shard in (tmp_path / "shards").iterdir():
            shard.unlink()
    else:
        monkeypatch.setattr(page, "_MAX_PAGE_BYTES", 1000)
    with pytest.raises(TagstreamError, match=reason):
        write(store, out)
    assert open_store(store.url).sql("SELECT count(*) FROM drawn").fetchall() == [(0,)]
    assert not out.exists() or out.read_text() == "mine"
