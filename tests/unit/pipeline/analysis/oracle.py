"""The measures computed slowly and plainly, image by image, without SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Image = Mapping[str, Any]
NameOf = Callable[[str], str | None]


def named(labels: Sequence[str], name_of: NameOf) -> list[str]:
    """Names of labels in order, each once."""
    return list(dict.fromkeys(name for label in labels if (name := name_of(label)) is not None))


def judged(images: Sequence[Image], name_of: NameOf) -> list[tuple[set[str], list[str]]]:
    """True names and listed names of each image with a truth."""
    pairs = [(set(named(image["truth"] or [], name_of)), named(image["labels"], name_of)) for image in images]
    return [(truth, listed) for truth, listed in pairs if truth]


def measures_at(images: Sequence[Image], k: int, name_of: NameOf) -> dict[str, float]:
    recalls, precisions, f1s, hit = [], [], [], 0
    n_truth = n_listed = n_hits = 0
    for truth, listed in judged(images, name_of):
        first = listed[:k]
        hits = [name for name in first if name in truth]
        recall = len(hits) / len(truth)
        precision = len(hits) / len(first) if first else 0.0
        recalls.append(recall)
        precisions.append(precision)
        f1s.append(2 * recall * precision / (recall + precision) if hits else 0.0)
        hit += bool(hits)
        n_truth, n_listed, n_hits = n_truth + len(truth), n_listed + len(first), n_hits + len(hits)
    micro_recall, micro_precision = n_hits / n_truth, n_hits / n_listed if n_listed else 0.0
    return {
        "recall_macro": sum(recalls) / len(recalls),
        "precision_macro": sum(precisions) / len(precisions),
        "f1_macro": sum(f1s) / len(f1s),
        "recall_micro": micro_recall,
        "precision_micro": micro_precision,
        "f1_micro": 2 * micro_recall * micro_precision / (micro_recall + micro_precision) if n_hits else 0.0,
        "hit": hit / len(recalls),
    }


def average_precision(scored: Sequence[tuple[float, bool]], n_truth: int) -> float:
    """Area under the step curve of precision over recall, with one threshold at every distinct score."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted({score for score, _ in scored}, reverse=True):
        above = [is_hit for score, is_hit in scored if score >= threshold]
        recall, precision = sum(above) / n_truth, sum(above) / len(above)
        area += (recall - recall_before) * precision
        recall_before = recall
    return area
