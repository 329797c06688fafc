"""`tagstream pack`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import webdataset
from click.testing import CliRunner, Result
from PIL import Image

from jobs.verbs.pack import pack
from pipeline.packing.pack import DEFAULT_SHARD_SIZE, PackError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(pack, [str(argument) for argument in arguments])


def test_it_says_what_it_packed_and_what_comes_next(photos: Path, out: Path) -> None:
    (photos / "b.txt").write_text("a caption")
    (photos / "film.mp4").write_bytes(b"film")
    (photos / "tags.parquet").write_bytes(b"table")
    result = run(photos, "--out", out, "--shard-size", "2")
    n_bytes = sum(path.stat().st_size for path in out.iterdir())
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"packed 3 images into 2 shards ({n_bytes / 1e6:.1f} MB) in {out}",
        "captions or labels: 1 of 3 images, 2 without",
        "left out: 1 .mp4, 1 .parquet",
        f"next: tagstream label {out} --store STORE",
    ]


def test_webdataset_reads_what_it_packed(photos: Path, out: Path) -> None:
    run(photos, "--out", out)
    dataset = webdataset.WebDataset(str(out / "00000.tar"), shardshuffle=False).decode("pil").to_tuple("__key__", "jpg")
    assert [(key, image.size) for key, image in dataset] == [("a", (8, 8)), ("b", (8, 8)), ("c", (8, 8))]


def test_captions_may_be_given_several_times(photos: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"a.jpg": "one"}')
    (tmp_path / "two.csv").write_text("file,labels\na.jpg,dog\n")
    run(photos, "--out", out, "--captions", tmp_path / "one.json", "--captions", tmp_path / "two.csv")
    sample = next(iter(webdataset.WebDataset(str(out / "00000.tar"), shardshuffle=False)))
    assert json.loads(sample["json"]) == {"captions": ["one"], "labels": ["dog"]}


def test_it_names_captions_that_match_no_image(photos: Path, out: Path, tmp_path: Path) -> None:
    names = ["a.jpg", "p.jpg", "q.jpg", "r.jpg", "s.jpg"]
    (tmp_path / "c.json").write_text(json.dumps(dict.fromkeys(names, "x")))
    result = run(photos, "--out", out, "--captions", tmp_path / "c.json")
    assert "left out: 4 names in the captions are no image of the folder (p.jpg, q.jpg, r.jpg, ...)" in result.output


def test_a_folder_without_images_fails_with_the_reason(tmp_path: Path, out: Path) -> None:
    error = run(tmp_path, "--out", out).exception
    assert isinstance(error, PackError)
    assert str(error).startswith(f"{tmp_path} holds 0 files, none of them a shard or an image; expected avif, bmp, gif")


def test_a_shard_size_of_none_is_wrong_usage(photos: Path, out: Path) -> None:
    assert run(photos, "--out", out, "--shard-size", "0").exit_code == 2


def test_shards_have_the_default_size_of_the_pipeline() -> None:
    assert next(option for option in pack.params if option.name == "shard_size").default == DEFAULT_SHARD_SIZE


def test_its_help_fits_a_screen_and_shows_an_example() -> None:
    result = CliRunner().invoke(pack, ["--help"], terminal_width=80)
    assert len(result.output.splitlines()) <= 40
    assert "tagstream pack photos --out shards" in result.output
