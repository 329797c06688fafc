"""Captions and labels of a folder's metadata, as labelling and packing take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.packing.pack import pack_folder
from pipeline.sources.folder_metadata import describe_shards
from pipeline.sources.image_folder import folder_shard
from pipeline.sources.listing import find_source
from pipeline.sources.shard_reader import read_samples
from tests.fixtures.corpus import jpeg

Told = dict[str, tuple[str | None, list[str] | None]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs in folders, of which two have metadata; one photograph has a caption of its own."""
    folder = tmp_path / "photos"
    for number, name in enumerate(["a.jpg", "train/b.jpg", "train/dogs/c.jpg", "train/d.jpg", "test/e.jpg"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))
    (folder / "metadata.csv").write_text("file_name;label\na.jpg;ladybug\ntest/e.jpg;skunk\n")
    rows = [
        {"file_name": "b.jpg", "text": "a dog", "label": 1},
        {"file_name": "dogs/c.jpg", "text": "two dogs"},
        {"file_name": "d.jpg", "text": "listed", "tags": ["cat"]},
        {"file_name": "gone.jpg", "text": "gone"},
        {"text": "nobody's"},
    ]
    (folder / "train" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "train" / "d.txt").write_text("own")
    return folder


EXPECTED: Told = {
    "a.jpg": (None, ["ladybug"]),
    "test/e.jpg": (None, ["skunk"]),
    "train/b.jpg": ("a dog", None),
    "train/d.jpg": ("own", ["cat"]),
    "train/dogs/c.jpg": ("two dogs", None),
}


def labelled(folder: Path) -> tuple[Told, list[str]]:
    source = find_source(str(folder))
    shards, notes = describe_shards(source.root, [folder_shard(source.root, "bucket", source.images)])
    samples = read_samples(shards[0], 1 << 20)
    return {sample.key: (sample.caption, sample.truth) for sample in samples}, notes


def test_labelling_takes_what_each_folder_lists(photos: Path) -> None:
    told, notes = labelled(photos)
    assert told == EXPECTED
    assert notes == ["left out of the metadata: train/metadata.jsonl, line 5: there is no file name in text"]


def test_packing_takes_the_same(photos: Path, tmp_path: Path) -> None:
    report = pack_folder(str(photos), str(tmp_path / "shards"))
    samples = read_samples(find_source(str(tmp_path / "shards")).shards[0], 1 << 20)
    told = {sample.key: (sample.caption, sample.truth or None) for sample in samples}
    assert told == {key.removesuffix(".jpg"): value for key, value in EXPECTED.items()}
    assert (report.n_annotated, len(report.problems)) == (5, 1)


def test_metadata_that_cannot_be_used_costs_no_image(photos: Path) -> None:
    (photos / "metadata.csv").write_text("file_name,camera\na.jpg,Leica\n")
    told, notes = labelled(photos)
    assert (told["a.jpg"], told["train/b.jpg"]) == ((None, None), ("a dog", None))
    assert notes[0].startswith("metadata.csv has the columns file_name, camera; expected one of ")


def test_metadata_counts_not_as_left_out(photos: Path) -> None:
    (photos / "film.mp4").write_bytes(b"x")
    assert find_source(str(photos)).skipped == {".mp4": 1}
