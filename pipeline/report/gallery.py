"""The pictures of a report: a seeded sample of a run's images, each with its labels and what is true of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.images.views import count_squares
from pipeline.analysis.truth import NamedTruth
from pipeline.catalog.scope import RunScope
from pipeline.errors import TagstreamError
from pipeline.pictures.thumbnails import Thumbnail
from schemas import LABELLED, REJECTED

# Shards that are read for pictures, where they hold enough of them: each is read from its start.
_SHARDS_READ = 16
_REJECTED_SHARE = 10
_MIN_REJECTED = 20
# What a page shows of texts and lists; they may be of any length.
_LIMITS = {"n_characters": 2000, "n_label_characters": 200, "n_labels": 100}


@dataclass(frozen=True, slots=True)
class Gallery:
    """Drawn images, rows of `report_images.sql`, and of how many they were drawn."""

    images: list[dict[str, Any]]
    n_labelled: int
    n_rejected: int


def draw_gallery(
    scope: RunScope, named: NamedTruth, other_run: str | None, condition: str | None, n_images: int, seed: int
) -> Gallery:
    """Draws images of a run, with its labels, those of another run and what is true.

    Rejected samples are drawn beside the labelled ones, up to a tenth of their number: by chance alone there would
    hardly be any. Raises TagstreamError where no image meets the condition.

    Args:
        named: the truth of the scope's run alone.
    """
    if named.runs != (scope.run,):
        raise ValueError(f"the truth is of the runs {named.runs}; expected that of {scope.run} alone")
    runs = [scope.run] if other_run is None else [scope.run, other_run]
    drawn: list[dict[str, Any]] = []
    n_held = {}
    for status, n in ((LABELLED, n_images), (REJECTED, max(_MIN_REJECTED, n_images // _REJECTED_SHARE))):
        chosen = scope.choose(condition, [status])
        n_held[status] = chosen.n_images
        if chosen.n_images > n:
            chosen = chosen.narrow("report_drawn", {"n": n, "seed": str(seed), "n_shards": _SHARDS_READ})
        if chosen.n_images:
            drawn += chosen.rows("report_images", {"runs": runs, **_LIMITS})
    if not drawn:
        which = "holds no image" if condition is None else f"holds no image with {condition}"
        raise TagstreamError(f"run {scope.run} {which}; there is nothing to show")
    return Gallery(drawn, n_held[LABELLED], n_held[REJECTED])


def image_data(image: Mapping[str, Any], thumbnail: Thumbnail | None, most_views: int = 1) -> dict[str, Any]:
    """An image as the page's scripts take it; what is empty is left out.

    Args:
        most_views: squares of an image that the run labelled, at most.
    """
    is_rejected = image["status"] == REJECTED
    data = {
        "key": image["key"],
        "shard": image["shard"],
        "index": image["index"],
        "id": str(image["image_id"]),
        "width": image["width"],
        "height": image["height"],
        "bytes": image["n_bytes"],
        "caption": image["caption"],
        "captionCut": (image["n_caption_characters"] or 0) > _LIMITS["n_characters"],
        "unfinished": image["n_unfinished"],
        "rejected": f"{image['stage']}: {image['error']}" if is_rejected else None,
        "message": image["message"],
        "squares": _count_squares(image, most_views),
        "labels": [_plain(label) for label in image["labels"]],
        "otherRejected": image["other_rejection"],
        "truth": [_plain(name) for name in image["truth"]],
        "moreTruth": image["n_more_truth"] or None,
        "moreMissed": image["n_more_missed"] or None,
    }
    if thumbnail is not None:
        data["picture"] = None if thumbnail.data is None else base64.b64encode(thumbnail.data).decode()
        data["problem"] = thumbnail.problem
    # That the other run lists nothing says something: all that this one lists is gained.
    other = image["other_labels"]
    compared = {} if other is None else {"other": [_plain(label) for label in other]}
    return _plain(data) | compared


def _count_squares(image: Mapping[str, Any], most_views: int) -> int | None:
    """How many squares of an image were labelled; None where it was seen as a whole, or not at all."""
    if image["status"] == REJECTED or not image["width"] or not image["height"]:
        return None
    n_squares = count_squares(image["width"], image["height"], most_views)
    return n_squares if n_squares > 1 else None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing: a page holds thousands of these."""
    return {name: value for name, value in values.items() if value is not None and value is not False and value != []}
