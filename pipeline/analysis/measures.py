"""Recall, precision and F1 at k from counts of images, with bootstrap intervals.

Two images with as many truths, labels and hits are the same to these measures. A run so becomes a small table of such
kinds of images, and to draw images with replacement is to draw the kinds' counts from a multinomial distribution: an
exact bootstrap that costs the same for a thousand images and for a hundred million.

Shape suffixes: G kinds of images, N values, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.estimate import Estimate

N_RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
_SEED = 0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """Images by kind, int64 [G] each.

    True names and how many of them are found; names among the first k labels and how many of them are hits (as many,
    where only equal names are hits); how many such images there are.
    """

    n_truth_G: NDArray[np.int64]
    n_found_G: NDArray[np.int64]
    n_listed_G: NDArray[np.int64]
    n_hits_G: NDArray[np.int64]
    n_images_G: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, int, int]]) -> ImageCounts:
        """Counts from rows of true names, found ones, listed names, hits, images."""
        columns = np.array(list(rows), np.int64).reshape(-1, 5).T
        return cls(*columns)

    @property
    def n_images(self) -> int:
        return int(self.n_images_G.sum())


def estimate(counts: ImageCounts) -> dict[str, Estimate]:
    """All measures of one k, by name; nothing without images.

    Macro is the mean over images, micro is over all labels of all images together. Recall is the share of true names
    that are listed, precision the share of listed names that are true (0 for an image without labels), F1 their
    harmonic mean. `hit` is the share of images with any hit; at k = 1, of those whose first label is true.
    """
    return _estimate(counts, lambda weights_RG: _measures(counts, weights_RG))


def estimate_difference(a: ImageCounts, b: ImageCounts) -> dict[str, Estimate]:
    """All measures of one k, second minus first, for the same images: kind for kind both have as many of them.

    The same images are drawn for both, so what makes an image hard cancels out.
    """

    def difference(weights_RG: Floats) -> dict[str, Floats]:
        first, second = _measures(a, weights_RG), _measures(b, weights_RG)
        return {name: second[name] - first[name] for name in first}

    return _estimate(a, difference)


def estimate_mean(values: Sequence[float]) -> Estimate:
    """The mean of some values, and how it scatters where as many of them are drawn with replacement."""
    values_N, rng = np.array(values, np.float64), np.random.default_rng(_SEED)
    means_R = [values_N[rng.integers(len(values_N), size=len(values_N))].mean() for _ in range(N_RESAMPLES)]
    return Estimate(float(values_N.mean()), *map(float, np.percentile(means_R, INTERVAL)))


def _estimate(counts: ImageCounts, measure: Callable[[Floats], dict[str, Floats]]) -> dict[str, Estimate]:
    """What is measured on the images as they are, and how it scatters on images drawn with replacement."""
    if not counts.n_images:
        return {}
    observed = measure(counts.n_images_G[None, :].astype(np.float64))
    draws_RG = np.random.default_rng(_SEED).multinomial(
        counts.n_images, counts.n_images_G / counts.n_images, size=N_RESAMPLES
    )
    resampled = measure(draws_RG.astype(np.float64))
    return {
        name: Estimate(float(value_1[0]), *map(float, np.percentile(resampled[name], INTERVAL)))
        for name, value_1 in observed.items()
    }


def _measures(counts: ImageCounts, weights_RG: Floats) -> dict[str, Floats]:
    """Each measure, [R], where images of a kind occur as often as the weights say."""
    recall_G = share(counts.n_found_G, counts.n_truth_G)
    precision_G = share(counts.n_hits_G, counts.n_listed_G)
    micro_recall_R = share(weights_RG @ counts.n_found_G, weights_RG @ counts.n_truth_G)
    micro_precision_R = share(weights_RG @ counts.n_hits_G, weights_RG @ counts.n_listed_G)
    n_images_R = weights_RG.sum(axis=1)
    return {
        "recall_macro": weights_RG @ recall_G / n_images_R,
        "precision_macro": weights_RG @ precision_G / n_images_R,
        "f1_macro": weights_RG @ _f1(recall_G, precision_G) / n_images_R,
        "recall_micro": micro_recall_R,
        "precision_micro": micro_precision_R,
        "f1_micro": _f1(micro_recall_R, micro_precision_R),
        "hit": weights_RG @ (counts.n_hits_G > 0) / n_images_R,
    }


def share(part: NDArray[np.number], whole: NDArray[np.number]) -> Floats:
    """part / whole, 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


def _f1(recall: Floats, precision: Floats) -> Floats:
    return share(2 * recall * precision, recall + precision)
