"""Pictures made from originals."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.images.opening import MAX_IMAGE_PIXELS, allow_image_pixels
from pipeline.pictures import thumbnails
from pipeline.pictures.thumbnails import Thumbnail, make_thumbnails
from schemas import content_hash
from tests.fixtures.corpus import STORED_AS, encode, jpeg, tar_bytes
from tests.fixtures.stored.tables import run_record


@pytest.fixture(autouse=True)
def usual_limit() -> Iterator[None]:
    """Pillow's limit of pixels is that of the process."""
    yield
    allow_image_pixels(MAX_IMAGE_PIXELS)


def thumbnails_of(
    folder: Path, *originals: bytes, max_bytes: int = 100_000, honour_exif: bool = True, **columns: Any
) -> list[Thumbnail]:
    """Of originals in one shard."""
    (folder / "a.tar").write_bytes(tar_bytes((f"{n}.jpg", data) for n, data in enumerate(originals)))
    record = run_record("run-1", source=str(folder), source_root=str(folder))
    rows = [
        {"image_id": n, "shard": "a", "index": n, "key": str(n), "content_hash": None, **columns}
        for n in range(len(originals))
    ]
    made = make_thumbnails(record, rows, 256, max_bytes, lambda: None, honour_exif=honour_exif)
    return [made[n] for n in range(len(originals))]


def opened(thumbnail: Thumbnail) -> Image.Image:
    assert thumbnail.data is not None, thumbnail.problem
    image = Image.open(io.BytesIO(thumbnail.data))
    assert image.format == "WEBP"
    return image.convert("RGB")


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (256, 192)), ((100, 400), (64, 256)), ((90, 40), (90, 40))]
)
def test_a_thumbnail_has_the_originals_shape_and_is_never_larger(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    (thumbnail,) = thumbnails_of(tmp_path, jpeg(0, *size))
    assert opened(thumbnail).size == expected


@pytest.mark.parametrize("orientation", sorted(STORED_AS))
def test_photographs_are_shown_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(np.repeat(np.uint8([[[255, 0, 0], [0, 0, 255]]]), 40, axis=0).repeat(60, axis=1))
    stored = upright if STORED_AS[orientation] is None else upright.transpose(STORED_AS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    (thumbnail,) = thumbnails_of(tmp_path, encode(stored, "JPEG", exif=exif, quality=95))
    shown = opened(thumbnail)
    assert shown.size == (120, 40)
    assert np.abs(np.int16(shown.getpixel((20, 20))) - (255, 0, 0)).max() < 25
    assert np.abs(np.int16(shown.getpixel((100, 20))) - (0, 0, 255)).max() < 25


def test_photographs_stay_as_they_are_stored_where_turns_are_not_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (thumbnail,) = thumbnails_of(tmp_path, encode(Image.new("RGB", (90, 40)), "JPEG", exif=exif), honour_exif=False)
    assert opened(thumbnail).size == (90, 40)


@pytest.mark.parametrize("max_bytes", [20_000, 5_000, 1_000])
def test_no_thumbnail_is_larger_than_allowed(tmp_path: Path, max_bytes: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    (thumbnail,) = thumbnails_of(tmp_path, encode(Image.fromarray(noise), "PNG"), max_bytes=max_bytes)
    assert thumbnail.data is not None
    assert len(thumbnail.data) <= max_bytes


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "F"])
def test_images_of_every_mode_become_pictures(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.tile(np.linspace(0, 255, 300, dtype=np.uint8), (200, 1)))
    image = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    (thumbnail,) = thumbnails_of(tmp_path, encode(image, "TIFF"))
    shown = np.asarray(opened(thumbnail).convert("L"), np.int16)
    assert shown[:, -1].mean() - shown[:, 0].mean() > 150


def test_an_image_that_was_labelled_is_shown_however_large_others_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pillow refuses twice its limit.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr(thumbnails, "MAX_IMAGE_PIXELS", 10_000)
    original = encode(Image.new("RGB", (512, 100)), "PNG")
    refused, shown = (thumbnails_of(tmp_path, original, width=width, height=100)[0] for width in (100, 512))
    assert "51200 pixels" in (refused.problem or "")
    assert opened(shown).width == 256


def test_a_strip_one_pixel_wide_becomes_a_picture(tmp_path: Path) -> None:
    (thumbnail,) = thumbnails_of(tmp_path, encode(Image.new("RGB", (1, 3000), "red"), "PNG"))
    assert opened(thumbnail).size == (1, 256)


def test_what_cannot_be_drawn_says_why_and_the_others_are_drawn(tmp_path: Path) -> None:
    broken, good = thumbnails_of(tmp_path, b"<html>no image</html>", jpeg(1))
    assert broken.data is None
    assert "no picture can be made of it: not a readable image" in (broken.problem or "")
    assert opened(good).size == (96, 72)


def test_an_original_that_changed_is_not_shown(tmp_path: Path) -> None:
    (changed,) = thumbnails_of(tmp_path, jpeg(1), content_hash=content_hash(jpeg(2)))
    assert changed == Thumbnail(0, None, "the original has changed since it was labelled")


def test_after_a_failure_the_other_shards_are_not_read_to_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_record("run-1", source=str(tmp_path), source_root=str(tmp_path))
    data = jpeg(0)
    for shard in range(3):
        (tmp_path / f"{shard}.tar").write_bytes(tar_bytes((f"{n}.jpg", data) for n in range(500)))
    rows = [
        {"image_id": n, "shard": str(n // 500), "index": n % 500, "key": str(n), "content_hash": None}
        for n in range(1500)
    ]
    stopping, lock, n_calls = Event(), Lock(), 0
    monkeypatch.setattr(thumbnails, "Event", lambda: stopping)

    def fail_first() -> None:
        nonlocal n_calls
        with lock:
            n_calls += 1
            is_first = n_calls == 1
        if is_first:
            raise KeyboardInterrupt
        # However long the failing thread takes to tell the others.
        assert stopping.wait(60)

    with pytest.raises(KeyboardInterrupt):
        make_thumbnails(record, rows, 256, 100_000, fail_first)
    # One picture of each shard.
    assert n_calls <= 3


def test_an_original_that_is_gone_says_so(tmp_path: Path) -> None:
    record = run_record("run-1", source=str(tmp_path), source_root=str(tmp_path))
    row = {"image_id": 7, "shard": "gone", "index": 0, "key": "0", "content_hash": None}
    assert make_thumbnails(record, [row], 256, 1000, lambda: None) == {7: Thumbnail(7, None, "the original is gone")}


def test_a_photograph_of_several_frames_shows_the_first_that_is_not_blank(tmp_path: Path) -> None:
    blank, picture, data = Image.new("RGB", (1500, 1100), "teal"), Image.new("RGB", (1500, 1100), "red"), io.BytesIO()
    picture.paste("blue", (750, 0, 1500, 1100))
    blank.save(data, "MPO", save_all=True, append_images=[picture])
    (thumbnail,) = thumbnails_of(tmp_path, data.getvalue())
    expected = np.asarray(picture.resize((256, 188)))
    # JPEG and WebP blur the edge in the middle.
    assert np.abs(np.asarray(opened(thumbnail)).astype(int) - expected).mean() < 4
