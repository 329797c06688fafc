"""Stores as large as one wants, without labelling anything: labels by Zipf's law, truth that half of them meet."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.store.store import Store
from schemas import IMAGES, LABELLED, LABELS, SCHEMA_VERSION, RunRecord

RUN = "generated"
N_LABELS = 20
N_WORDS = 20_000
SHARD_IMAGES = 10_000
# Drawn with replacement; so many nearly always hold enough different ones.
_N_DRAWS = 64
_MAX_TRUTHS = 5
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprtvz" for vowel in "aeiou"]


def make_words(n_words: int = N_WORDS) -> list[str]:
    """Words of a made-up language, the most frequent first; every tenth label has two."""
    generator = random.Random(0)
    words: dict[str, None] = {}
    while len(words) < n_words:
        label = "".join(generator.choices(_SYLLABLES, k=3)) + generator.choice("nrtl")
        if len(words) % 10 == 9:
            label = "".join(generator.choices(_SYLLABLES, k=2)) + "n " + label
        words[label] = None
    return list(words)


def make_store(url: str, n_images: int, source_root: str | None = None) -> None:
    """Fills a store with shards of 10,000 images of 20 labels.

    Args:
        source_root: folder of the source, whose archives lie in `part/`; the store holds no digests of its images then.
    """
    store = Store(url)
    store.create_run(
        RunRecord(
            run=RUN,
            schema_version=SCHEMA_VERSION,
            created="2026-01-01T00:00:00+00:00",
            source=source_root or "generated",
            source_root=source_root or "generated",
            folder_buckets=0,
            model="generated",
            model_fingerprint="generated",
            fingerprint="generated",
            labelling={"top_k": N_LABELS, "ranking": "prob"},
            versions={},
        )
    )
    with ProcessPoolExecutor(2) as pool:
        commit_shard = partial(_commit_shard, url, source_root is not None)
        list(pool.map(commit_shard, range(n_images // SHARD_IMAGES)))


def _commit_shard(url: str, has_source: bool, number: int) -> None:
    shard = f"part/{number:05}"
    generator = np.random.default_rng(number)
    words = pa.array(make_words())
    drawn_IK = draw_distinct(generator, SHARD_IMAGES, N_LABELS)
    ids_I = generator.integers(-(2**63), 2**63 - 1, SHARD_IMAGES)
    truth = make_truth(generator, drawn_IK)
    images = {
        "image_id": ids_I,
        "shard": [shard] * SHARD_IMAGES,
        "index": np.arange(SHARD_IMAGES, dtype=np.int32),
        "key": [f"{number:05}{index:05}" for index in range(SHARD_IMAGES)],
        "status": [LABELLED] * SHARD_IMAGES,
        "width": np.full(SHARD_IMAGES, 640, np.int32),
        "height": np.full(SHARD_IMAGES, 480, np.int32),
        "n_bytes": generator.integers(50_000, 150_000, SHARD_IMAGES),
        "content_hash": [generator.bytes(16).hex() for _ in range(SHARD_IMAGES)],
        "truth": pa.ListArray.from_arrays(truth.offsets, words.take(truth.values)),
        "n_labels": np.full(SHARD_IMAGES, N_LABELS, np.int16),
        "n_unfinished": np.zeros(SHARD_IMAGES, np.int16),
    }
    if has_source:
        del images["content_hash"]
    absent = {name: pa.nulls(SHARD_IMAGES, IMAGES.field(name).type) for name in IMAGES.names if name not in images}
    n_rows = SHARD_IMAGES * N_LABELS
    scores_IK = -np.sort(-generator.random((SHARD_IMAGES, N_LABELS), np.float32), axis=1)
    labels = {
        "image_id": np.repeat(ids_I, N_LABELS),
        "shard": pa.array([shard] * n_rows),
        "index": np.repeat(images["index"], N_LABELS),
        "rank": np.tile(np.arange(1, N_LABELS + 1, dtype=np.int16), SHARD_IMAGES),
        "label": words.take(pa.array(drawn_IK.ravel())),
        "score": scores_IK.ravel(),
        "first_token_prob": generator.random(n_rows, np.float32),
        "n_tokens": generator.integers(2, 6, n_rows).astype(np.int16),
    }
    tables = (pa.table({**images, **absent}).select(IMAGES.names).cast(IMAGES), pa.table(labels).cast(LABELS))
    Store(url).run(RUN).commit(shard, *tables, {"fingerprint": "generated", "source_size": number, "source_etag": ""})


def draw_distinct(generator: np.random.Generator, n_rows: int, n_each: int) -> NDArray[np.int64]:
    """Ranks of different words for each row, by Zipf's law: the probability of rank r goes as 1 / r."""
    drawn = np.exp(generator.random((n_rows, _N_DRAWS)) * np.log(N_WORDS)).astype(np.int64)
    # The first occurrence of each word stays, in the order in which they were drawn; then as many as wanted.
    order = np.argsort(drawn, axis=1, kind="stable")
    in_order = np.take_along_axis(drawn, order, axis=1)
    repeats = np.zeros_like(drawn, bool)
    np.put_along_axis(repeats, order[:, 1:], in_order[:, 1:] == in_order[:, :-1], axis=1)
    first = np.argsort(repeats, axis=1, kind="stable")[:, :n_each]
    return np.take_along_axis(drawn, first, axis=1) - 1


def make_truth(generator: np.random.Generator, drawn_IK: NDArray[np.int64]) -> pa.ListArray:
    """For each image one to five words, each with even chances one that is listed or any other."""
    counts = generator.integers(1, _MAX_TRUTHS + 1, len(drawn_IK))
    rows = np.repeat(np.arange(len(drawn_IK)), counts)
    listed = drawn_IK[rows, generator.integers(0, N_LABELS, len(rows))]
    any_word = generator.integers(0, N_WORDS, len(rows))
    values = np.where(generator.random(len(rows)) < 0.5, listed, any_word)
    return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32), values)
