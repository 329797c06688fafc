"""Small pictures of a run's images, made from their originals."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from threading import Event

from PIL import Image

from model.images.opening import MAX_IMAGE_PIXELS, ImageDecodeError, allow_image_pixels, open_image
from model.images.seen_image import see_whole
from pipeline.errors import SourceError, StoreError
from pipeline.sources.originals import ImageRow, Original, read_originals
from pipeline.text import one_line
from schemas import RunRecord

_MIN_EDGE_PX = 16
_QUALITIES = (75, 50, 25)
_SHARDS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as WebP, or why there is none."""

    image_id: int
    data: bytes | None
    problem: str | None = None


def make_thumbnails(
    record: RunRecord,
    images: Sequence[ImageRow],
    edge_px: int,
    max_bytes: int,
    done: Callable[[], None],
    *,
    honour_exif: bool = True,
) -> dict[int, Thumbnail]:
    """Thumbnails by image_id. Each shard is read once, a few at a time; what cannot be read has no picture.

    Args:
        images: rows of `images`, as `read_originals` takes them, with their sizes; in the order of shard and index.
        edge_px: neither side is longer.
        max_bytes: none is larger.
        done: called after each one.
        honour_exif: turn pictures upright by their EXIF orientation.
    """
    stopping = Event()

    def of_shard(rows: list[ImageRow]) -> list[Thumbnail]:
        thumbnails = []
        with _set_on_error(stopping):
            for original in _read(record, rows):
                thumbnails.append(_make(original, edge_px, max_bytes, honour_exif))
                done()
                if stopping.is_set():
                    break
        return thumbnails

    shards = [list(rows) for _, rows in groupby(images, key=lambda image: image["shard"])]
    with ThreadPoolExecutor(_SHARDS_AT_ONCE, thread_name_prefix="thumbnails") as pool, _set_on_error(stopping):
        return {thumbnail.image_id: thumbnail for made in pool.map(of_shard, shards) for thumbnail in made}


@contextlib.contextmanager
def _set_on_error(event: Event) -> Iterator[None]:
    """Threads are waited for, be it after Ctrl-C: where one has failed the others have to come to an end soon."""
    try:
        yield
    except BaseException:
        event.set()
        raise


def _read(record: RunRecord, rows: list[ImageRow]) -> Iterator[Original]:
    """The originals; where their source cannot be read at all, the reason stands for each that is left."""
    left = {row["image_id"]: row for row in rows}
    try:
        for original in read_originals(record, rows):
            del left[original.image["image_id"]]
            yield original
    except (SourceError, StoreError) as error:
        yield from (Original(row, None, str(error)) for row in left.values())


def _make(original: Original, edge_px: int, max_bytes: int, honour_exif: bool) -> Thumbnail:
    image_id = original.image["image_id"]
    if original.data is None:
        return Thumbnail(image_id, None, original.problem)
    # It may be larger than others may be: it was labelled.
    n_pixels = (original.image.get("width") or 0) * (original.image.get("height") or 0)
    try:
        shrunk = _shrink(original.data, edge_px, max(MAX_IMAGE_PIXELS, n_pixels), honour_exif)
        return Thumbnail(image_id, _encode(shrunk, max_bytes))
    except (ImageDecodeError, OSError, ValueError, MemoryError) as error:
        return Thumbnail(image_id, None, f"no picture can be made of it: {one_line(error)}")


def _shrink(data: bytes, edge_px: int, max_image_pixels: int, honour_exif: bool) -> Image.Image:
    allow_image_pixels(max_image_pixels)
    image = open_image(data, max_image_pixels)
    # A JPEG is decoded no larger than needed; other formats have no such thing.
    image.draft("RGB", (2 * edge_px, 2 * edge_px))
    shrunk = see_whole(image, honour_exif, max_image_pixels=max_image_pixels)
    shrunk.thumbnail((edge_px, edge_px))
    return shrunk


def _encode(image: Image.Image, max_bytes: int) -> bytes:
    """WebP of at most so many bytes, as good as they allow."""
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality)
            if buffer.tell() <= max_bytes or max(image.size) <= _MIN_EDGE_PX:
                return buffer.getvalue()
        image = image.reduce(2)
