"""From what a recognizer found in a batch to the rows that go to the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.dataflow.decoding import DecodedImage
from pipeline.dataflow.rows import FAILED_SHARD, LABEL, LABELLED_ROWS, PARTS, READER, STAGES
from pipeline.naming.name_list import NameList
from pipeline.sources.sample import DECODE_STAGE, READ_STAGE
from schemas import LABELLED, REJECTED

if TYPE_CHECKING:
    from model.ranking import RankedLabels


@dataclass(frozen=True, slots=True)
class FoundLabels:
    """What was found in a batch's images."""

    labels: RankedLabels | None
    """Labels of each image; None where none were sampled."""
    listed: list[list[dict[str, Any]]]
    """Listed labels of each image, as `pipeline.dataflow.rows.LISTED_LABEL` has them."""
    seconds: dict[str, float]
    """Seconds that the device took, as a whole and by part."""
    why_copied: str | None = None
    """Why the recognizer's branches copy their image's tokens; None where they share them."""


def rank_listed(lists: Sequence[NameList], log_probs: Sequence[Any], n_images: int) -> list[list[dict[str, Any]]]:
    """Listed labels of each image: those of one list together, the best first, as many as the list keeps.

    Names of one score stand in the list's order.

    Args:
        log_probs: of each list the log probabilities of its names, [images, names]; nothing where there are no lists.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in range(n_images)]
    for of_list, scores in zip(lists, log_probs, strict=True):
        names, version = list(of_list.names), of_list.version
        for image, log_prob in zip(found, np.asarray(scores, np.float32), strict=True):
            probs = np.exp(log_prob)
            image += [
                {"list": version, "label": names[place], "score": probs[place]} for place in of_list.best(log_prob)
            ]
    return found


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
    remaining_listed = iter(found.listed)
    listed = [next(remaining_listed) if image.view is not None else [] for image in decoded]
    seen = np.array([image.view is not None for image in decoded], bool)
    faults = [_fault(*row) for row in zip(decoded, batch["error"], batch["message"], strict=True)]
    columns = {
        "shard": [batch["shard"]] * n_rows,
        "index": range(batch["first_index"], batch["first_index"] + n_rows),
        "key": batch["key"],
        "status": [LABELLED if image.view is not None else REJECTED for image in decoded],
        "stage": [stage for stage, _, _ in faults],
        "error": [error for _, error, _ in faults],
        "message": [message for _, _, message in faults],
        "width": [image.width for image in decoded],
        "height": [image.height for image in decoded],
        "n_bytes": [image.n_bytes for image in decoded],
        "content_hash": [image.content_hash for image in decoded],
        "caption": batch["caption"],
        "truth": batch["truth"],
        "n_unfinished": _at(seen, None if found.labels is None else found.labels.n_unfinished()),
        "flat": [image.is_flat for image in decoded],
        "labels": _label_lists(seen, found.labels),
        "is_strange": [image.is_strange for image in decoded],
        "why_copied": [found.why_copied] * n_rows,
        "listed": pa.array(listed, LABELLED_ROWS.field("listed").type),
        "n_samples": [None] * (n_rows - 1) + [batch["n_samples"]],
        "source_size": [None] * (n_rows - 1) + [batch["source_size"]],
        "source_etag": [None] * (n_rows - 1) + [batch["source_etag"]],
        "view_bytes": [0 if image.view is None else image.view.nbytes for image in decoded],
        **{f"{name}_s": _first_of(n_rows, seconds.get(name, 0.0)) for name in (*STAGES, *PARTS, READER)},
    }
    return pa.table([columns[name] for name in LABELLED_ROWS.names], schema=LABELLED_ROWS)


def failure_row(shard: str, message: str) -> pa.Table:
    """A row of `LABELLED_ROWS` that says that the shard cannot be read."""
    values = {"shard": shard, "index": FAILED_SHARD, "key": "", "status": REJECTED, "message": message}
    return pa.Table.from_pylist([{"n_unfinished": 0, **values}], schema=LABELLED_ROWS)


def _fault(image: DecodedImage, error: str | None, message: str | None) -> tuple[str | None, str | None, str | None]:
    """Stage, error class and message of a sample's fault; an image that cannot be decoded outweighs its side files."""
    if image.error is not None:
        return DECODE_STAGE, image.error, image.message
    return (READ_STAGE, error, message) if error else (None, None, None)


def _label_lists(seen: np.ndarray, labels: RankedLabels | None) -> pa.ListArray:
    """The labels of every sample: of those that were seen in the order of the images that were labelled."""
    if labels is None:
        return pa.array([[]] * len(seen), pa.list_(LABEL))
    ends = np.cumsum(_at(seen, labels.n_labels_B))
    arrays = [
        pa.array(labels.texts, pa.string()),
        pa.array(labels.scores_L.astype(np.float32)),
        pa.array(labels.first_token_probs().astype(np.float32)),
        pa.array(labels.n_tokens().astype(np.int16)),
    ]
    return pa.ListArray.from_arrays(
        pa.array([0, *ends.tolist()], pa.int32()), pa.StructArray.from_arrays(arrays, fields=list(LABEL))
    )


def _at(seen: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Counts of the images that were seen, at their places among all samples; 0 at the others."""
    placed = np.zeros(len(seen), np.int64)
    if counts is not None:
        placed[seen] = counts
    return placed


def _first_of(n_rows: int, value: float) -> list[float]:
    """A batch's seconds, counted once."""
    return [value] + [0.0] * (n_rows - 1)
