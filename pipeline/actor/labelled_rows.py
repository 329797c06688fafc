"""From what a recognizer found in a batch to the rows that go to the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.actor.decoding import DecodedImage
from pipeline.actor.rows import FAILED_SHARD, LABEL, LABELLED_ROWS, LISTED_LABEL, PARTS, READER, STAGES
from pipeline.naming.name_list import NameList
from pipeline.reuse.marking import SAME_SHARD
from pipeline.sources.sample import DECODE_STAGE, READ_STAGE
from schemas import LABELLED, REJECTED

if TYPE_CHECKING:
    from model.joined_views import JoinedLabels


@dataclass(frozen=True, slots=True)
class ListedLabels:
    """Listed labels of a batch's images, those of one image behind those of the one before."""

    n_labels: np.ndarray
    """How many each image has."""
    labels: pa.StructArray
    """All of them, as `pipeline.actor.rows.LISTED_LABEL` has them."""


@dataclass(frozen=True, slots=True)
class FoundLabels:
    """What was found in a batch's images."""

    labels: JoinedLabels | None
    """Labels of each image; None where none were sampled."""
    listed: ListedLabels
    """Listed labels of each image."""
    seconds: dict[str, float]
    """Seconds that the device took, as a whole and by part."""
    why_copied: str | None = None
    """Why the recognizer's branches copy their image's tokens; None where they share them."""


def rank_listed(lists: Sequence[NameList], log_probs: Sequence[Any], n_images: int) -> ListedLabels:
    """Listed labels of each image: those of one list together, the best first, as many as the list keeps.

    Names of one score stand in the list's order.

    Args:
        log_probs: of each list the log probabilities of its names, [images, names]; nothing where there are no lists.
    """
    images, found = [np.empty(0, np.int64)], [pa.array([], LISTED_LABEL)]
    for of_list, scores in zip(lists, log_probs, strict=True):
        log_prob = np.asarray(scores, np.float32)
        image, place = of_list.best(log_prob)
        columns = [
            pa.repeat(of_list.version, len(place)),
            pa.array(list(of_list.names), pa.string()).take(pa.array(place)),
            pa.array(np.exp(log_prob)[image, place]),
        ]
        images.append(image)
        found.append(pa.StructArray.from_arrays(columns, fields=list(LISTED_LABEL)))
    of_image = np.concatenate(images)
    by_image = pa.concat_arrays(found).take(pa.array(of_image.argsort(kind="stable")))
    return ListedLabels(np.bincount(of_image, minlength=n_images), by_image)


def labelled_rows(
    batch: dict[str, Any], decoded: list[DecodedImage], found: FoundLabels, seconds: dict[str, float]
) -> pa.Table:
    """Rows of `LABELLED_ROWS`, one a sample.

    Args:
        batch: values of a row of `pipeline.sources.batches.BATCHES`.
        decoded: every sample of it.
        found: labels of those that could be decoded.
        seconds: by stage and part.
    """
    n_rows = len(decoded)
    seen = np.array([bool(image.views) for image in decoded], bool)
    told = _told_by(batch["known"], decoded) | {"phash": [image.phash for image in decoded]}
    faults = [_fault(*row) for row in zip(decoded, batch["error"], batch["message"], strict=True)]
    columns = {
        "shard": [batch["shard"]] * n_rows,
        "index": range(batch["first_index"], batch["first_index"] + n_rows),
        "key": batch["key"],
        "status": [
            LABELLED if is_fine else REJECTED for is_fine in (seen | told["known_shard"].is_valid().to_numpy(False))
        ],
        "stage": [stage for stage, _, _ in faults],
        "error": [error for _, error, _ in faults],
        "message": [message for _, _, message in faults],
        "width": [image.width for image in decoded],
        "height": [image.height for image in decoded],
        **told,
        "caption": batch["caption"],
        "truth": batch["truth"],
        "n_unfinished": _at(seen, None if found.labels is None else found.labels.n_unfinished()),
        "flat": [image.is_flat for image in decoded],
        "labels": _label_lists(seen, found.labels),
        "is_strange": [image.is_strange for image in decoded],
        "why_copied": [found.why_copied] * n_rows,
        "listed": _lists(seen, found.listed.n_labels, found.listed.labels),
        "n_samples": [None] * (n_rows - 1) + [batch["n_samples"]],
        "source_size": [None] * (n_rows - 1) + [batch["source_size"]],
        "source_etag": [None] * (n_rows - 1) + [batch["source_etag"]],
        "view_bytes": [sum(view.nbytes for view in image.views) for image in decoded],
        **{f"{name}_s": _first_of(n_rows, seconds.get(name, 0.0)) for name in (*STAGES, *PARTS, READER)},
    }
    return pa.table([columns[name] for name in LABELLED_ROWS.names], schema=LABELLED_ROWS)


def _told_by(known: pa.StructArray | None, decoded: Sequence[DecodedImage]) -> dict[str, pa.Array]:
    """What is told of the bytes of every sample, and whose labels it gets.

    Args:
        known: as `pipeline.reuse.marking.KNOWN` has it; None where nobody looked whether images are known.
    """
    near = pa.array([image.near_index for image in decoded], pa.int32())
    of_near = {
        "known_shard": pc.if_else(near.is_valid(), pa.scalar(SAME_SHARD, pa.int32()), pa.scalar(None, pa.int32())),
        "known_index": near,
        "known_distance": pa.array([image.near_distance for image in decoded], pa.int8()),
    }
    if known is None:
        return {
            "n_bytes": pa.array([image.n_bytes for image in decoded], pa.int64()),
            "content_hash": pa.array([image.content_hash for image in decoded], pa.string()),
            **of_near,
        }
    # What is marked was not decoded, so that nobody knows what it looks like.
    of_known = {"known_shard": known.field("shard"), "known_index": known.field("index")}
    return {
        "n_bytes": known.field("n_bytes"),
        "content_hash": known.field("content_hash"),
        **of_near,
        **{name: pc.coalesce(marked, of_near[name]) for name, marked in of_known.items()},
    }


def failure_row(shard: str, message: str) -> pa.Table:
    """A row of `LABELLED_ROWS` that says that the shard cannot be read."""
    values = {"shard": shard, "index": FAILED_SHARD, "key": "", "status": REJECTED, "message": message}
    return pa.Table.from_pylist([{"n_unfinished": 0, **values}], schema=LABELLED_ROWS)


def _fault(image: DecodedImage, error: str | None, message: str | None) -> tuple[str | None, str | None, str | None]:
    """Stage, error class and message of a sample's fault; an image that cannot be decoded outweighs its side files."""
    if image.error is not None:
        return DECODE_STAGE, image.error, image.message
    return (READ_STAGE, error, message) if error else (None, None, None)


def _label_lists(seen: np.ndarray, labels: JoinedLabels | None) -> pa.ListArray:
    """The labels of every sample: of those that were seen in the order of the images that were labelled."""
    if labels is None:
        return pa.array([[]] * len(seen), pa.list_(LABEL))
    arrays = [
        pa.array(labels.texts, pa.string()),
        pa.array(labels.scores_L.astype(np.float32)),
        pa.array(labels.first_token_probs().astype(np.float32)),
        pa.array(labels.n_tokens().astype(np.int16)),
        pa.array(labels.view_L.astype(np.int8)),
    ]
    return _lists(seen, labels.n_labels_B, pa.StructArray.from_arrays(arrays, fields=list(LABEL)))


def _lists(seen: np.ndarray, counts: np.ndarray, values: pa.StructArray) -> pa.ListArray:
    """A list of values for every sample: of those that were seen as many as the counts say, of the others none."""
    ends = np.cumsum(_at(seen, counts))
    return pa.ListArray.from_arrays(pa.array([0, *ends.tolist()], pa.int32()), values)


def _at(seen: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Counts of the images that were seen, at their places among all samples; 0 at the others."""
    placed = np.zeros(len(seen), np.int64)
    if counts is not None:
        placed[seen] = counts
    return placed


def _first_of(n_rows: int, value: float) -> list[float]:
    """A batch's seconds, counted once."""
    return [value] + [0.0] * (n_rows - 1)
