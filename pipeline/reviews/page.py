"""A page for review: one HTML file with the pictures of drawn images, on which a person says what is true of them.

It shows labels best first and without scores, which would sway who judges. What is decided comes back as a file that
`pipeline.reviews.files` reads.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.catalog.result_file import ResultFile
from pipeline.errors import TagstreamError
from pipeline.pages.render import render_page
from pipeline.pictures.thumbnails import Thumbnail, make_thumbnails
from pipeline.reviews.written import WrittenSample
from schemas import RunRecord, SampleRecord

# Large enough to judge by, on a phone and on a screen of today.
_EDGE_PX = 640
_MAX_PAGE_BYTES = 50_000_000
_MAX_PICTURE_BYTES = 120_000
_MIN_PICTURE_BYTES = 4000
_BASE64 = 4 / 3
_N_NAMED = 5


@dataclass(frozen=True, slots=True)
class ReviewImage:
    """A drawn image."""

    row: Mapping[str, Any]
    """Its row of `images`, as pictures are made from it."""
    names: Sequence[str]
    """What is judged, each name once."""


def write_review_page(
    file: ResultFile, run: RunRecord, sample: SampleRecord, images: Sequence[ReviewImage]
) -> WrittenSample:
    """Writes the page. Images whose originals are gone are left out, and noted.

    Raises TagstreamError where there are too many images for a page, or none has a picture.
    """
    left_each = (_MAX_PAGE_BYTES - len(_render(run, sample, images, {}))) / len(images) / _BASE64
    if left_each < _MIN_PICTURE_BYTES:
        raise TagstreamError(f"{len(images):,} images are too many for one page; draw fewer, with a smaller --n")
    max_bytes = min(_MAX_PICTURE_BYTES, int(left_each))
    rows = [image.row for image in images]
    pictures = make_thumbnails(run, rows, _EDGE_PX, max_bytes, lambda: None)
    shown = [image for image in images if pictures[image.row["image_id"]].data is not None]
    notes = _note_left_out([pictures[row["image_id"]] for row in rows], rows)
    if not shown:
        raise TagstreamError(f"none of the {len(rows):,} images has a picture: {notes[0]}")
    with file.open() as stream:
        stream.write(_render(run, sample, shown, pictures))
    return WrittenSample(n_images=len(shown), n_labels=sum(len(image.names) for image in shown), notes=notes)


def _render(
    run: RunRecord, sample: SampleRecord, images: Sequence[ReviewImage], pictures: Mapping[int, Thumbnail]
) -> bytes:
    shown = [
        {
            # As text: JavaScript would lose digits of 64-bit numbers.
            "id": str(image.row["image_id"]),
            "key": image.row["key"],
            "labels": image.names,
            "picture": _text_of(pictures.get(image.row["image_id"])),
        }
        for image in images
    ]
    data = {"run": run.run, "sample": sample.sample, "images": shown}
    return render_page("review", f"Review of {sample.sample} - tagstream", data).encode()


def _text_of(picture: Thumbnail | None) -> str:
    return base64.b64encode(picture.data).decode() if picture and picture.data else ""


def _note_left_out(pictures: Sequence[Thumbnail], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    problems = Counter(picture.problem for picture in pictures if picture.data is None)
    if not problems:
        return []
    reasons = "; ".join(f"{n:,} x {problem}" for problem, n in problems.most_common(_N_NAMED))
    keys = [f"{row['shard']}#{row['key']}" for row, picture in zip(rows, pictures, strict=True) if picture.data is None]
    named = ", ".join(keys[:_N_NAMED]) + (", ..." if len(keys) > _N_NAMED else "")
    return [f"{problems.total():,} images are left out: {reasons} ({named})"]
