"""Each kind of bad or strange input, read and decoded in this process: the rows it becomes, and what is seen of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import ImagePreprocessor
from pipeline.actor.decoding import DecodedImage, decode
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.sample import Sample
from schemas import LABELLED, REJECTED
from tests.fixtures.bad.corpus import KINDS
from tests.fixtures.bad.kind import AFTER, BEFORE, MAX_IMAGE_PIXELS, MAX_SAMPLE_BYTES, Kind, Row

PREPROCESSOR = ImagePreprocessor(image_size=56, max_image_pixels=MAX_IMAGE_PIXELS)
BATCH_SIZE = 16


def read(path: Path) -> list[Sample]:
    """The samples of the only shard in a folder."""
    (shard,) = find_source(str(path)).shards
    batches = list(read_batches(shard, BATCH_SIZE, MAX_SAMPLE_BYTES))
    samples = [Sample(**values) for batch in batches for values in batch["samples"][0].as_py()]
    assert [batch["n_samples"][0].as_py() for batch in batches] == [None] * (len(batches) - 1) + [len(samples)]
    return samples


def row_of(sample: Sample, image: DecodedImage) -> Row:
    if sample.data is not None and not image.views:
        return Row(sample.key, REJECTED, "decode", image.error)
    return Row(sample.key, LABELLED if sample.data else REJECTED, "read" if sample.error else None, sample.error)


def test_there_are_many_kinds_and_each_has_a_name_of_its_own() -> None:
    assert len({kind.file_name for kind in KINDS}) == len(KINDS) >= 65


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.takes_s], ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_kind_of_bad_input_becomes_the_rows_that_it_must(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / kind.file_name).write_bytes(kind.content())
    samples = read(tmp_path)
    images = [decode(sample.data, PREPROCESSOR) for sample in samples]
    assert [row_of(*pair) for pair in zip(samples, images, strict=True)] == kind.rows
    for sample, image in zip(samples, images, strict=True):
        message = sample.message if sample.data is None or image.views else image.message
        assert bool(message) == bool(sample.error or image.error)
        assert (message or "").isprintable()
    if kind.picture is not None:
        expected = PREPROCESSOR.view(kind.picture()).astype(float)
        (seen,) = [
            image.views[0].astype(float)
            for sample, image in zip(samples, images, strict=True)
            if image.views and sample.data not in (BEFORE[1], AFTER[1])
        ]
        assert np.abs(seen - expected).mean() <= kind.tolerance
