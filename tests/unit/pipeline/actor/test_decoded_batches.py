"""Images that are decoded where they are read come to the labeler as those that it decodes itself."""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from model.hub.view import WholeImages
from model.images.preprocessing import ImagePreprocessor
from pipeline.actor.decoded_batches import DECODED_BATCHES, DecodingRead, read_images
from pipeline.actor.decoding import DecodedImage, decode
from pipeline.actor.labeler import LabelerConfig
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from tests.fixtures.corpus import encode, jpeg, tar_bytes
from tests.fixtures.recognizers.instant_labeler import InstantLabeler

PHOTOGRAPH, UPRIGHT, TOO_LARGE = (64, 48), (30, 40), (300, 200)
CONFIG = LabelerConfig.of(
    "none", LabelSettings(top_k=5, max_image_pixels=50_000), dtype="float32", device="cpu", n_threads=2
)
# What depends on the clock, or on who does the work.
CLOCKED = ["read_s", "decode_s", "infer_s", "reader_s"]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Images of several shapes, damaged ones, one that is too large, a flat one, and a sample without an image."""
    members = [
        ("a.jpg", jpeg(0, *PHOTOGRAPH)),
        ("a.txt", b"a caption"),
        ("b.png", encode(Image.open(io.BytesIO(jpeg(1, *UPRIGHT))), "PNG")),
        ("c.jpg", jpeg(2)[:700]),
        ("d.jpg", jpeg(3, *TOO_LARGE)),
        ("e.jpg", b"<html>404</html>"),
        ("f.png", encode(Image.new("RGB", (9, 9), (7, 7, 7)), "PNG")),
        ("g.txt", b"no image here"),
        ("h.jpg", b""),
        ("i.jpg", jpeg(4)),
    ]
    (tmp_path / "0.tar").write_bytes(tar_bytes(members))
    (shard,) = find_source(str(tmp_path)).shards
    return shard


def without_clocks(rows: pa.Table) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = rows.drop_columns(CLOCKED).to_pylist()
    return kept


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_rows_are_those_of_a_labeler_that_decodes_itself(shard: Shard, batch_size: int) -> None:
    labeler, read = InstantLabeler(CONFIG), InstantLabeler.decoding_read(CONFIG, n_threads=3)
    encoded, decoded = list(read_batches(shard, batch_size)), list(read(shard, batch_size))
    assert [batch.schema for batch in decoded] == [DECODED_BATCHES] * len(encoded)
    itself = pa.concat_tables([labeler(batch) for batch in encoded])
    assert without_clocks(pa.concat_tables([labeler(batch) for batch in decoded])) == without_clocks(itself)
    assert {row["error"] for row in itself.to_pylist()} == {None, "ImageUnreadable", "ImageTooLarge", "NoImage"}


def test_both_places_make_the_same_hashes_of_what_images_look_like(shard: Shard) -> None:
    config = replace(CONFIG, perceptual_hash=True)
    itself, read = InstantLabeler(config), InstantLabeler.decoding_read(config, n_threads=2)
    hashes = [
        pa.concat_tables([itself(batch) for batch in batches])["phash"].to_pylist()
        for batches in (read_batches(shard, 4), read(shard, 4))
    ]
    assert hashes[0] == hashes[1]
    # Of the three pictures, but not of the one of one colour.
    assert sum(phash is not None for phash in hashes[0]) == 3


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_images_that_look_like_one_of_any_batch_before_come_without_pixels(tmp_path: Path, batch_size: int) -> None:
    members = [(f"{place}.jpg", jpeg(seed, 64, 48)) for place, seed in enumerate([0, 1, 0, 2, 1, 0])]
    (tmp_path / "0.tar").write_bytes(tar_bytes(members))
    (shard,) = find_source(str(tmp_path)).shards
    read = InstantLabeler.decoding_read(replace(CONFIG, perceptual_hash=True, skip_near_duplicates=True), n_threads=2)
    # Each reading of a shard begins anew.
    for _ in range(2):
        images = [image for batch in read(shard, batch_size) for image in read_images(batch["images"][0].values)]
        assert [image.near_index for image in images] == [None, None, 0, None, 1, 0]
        assert [bool(image.views) for image in images] == [image.near_index is None for image in images]


def test_blocks_may_be_merged_moved_and_split(shard: Shard) -> None:
    labeler, read = InstantLabeler(CONFIG), InstantLabeler.decoding_read(CONFIG, n_threads=1)
    batches = list(read(shard, 3))
    merged = pa.concat_tables(batches).combine_chunks()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, merged.schema) as writer:
        writer.write_table(merged.slice(1))
    moved = pa.ipc.open_stream(sink.getvalue()).read_all()
    assert without_clocks(labeler(moved)) == without_clocks(pa.concat_tables([labeler(batch) for batch in batches[1:]]))


def test_pixels_come_back_as_they_were_whatever_their_shapes(shard: Shard) -> None:
    view = WholeImages(max_view_pixels=2000).view
    read = DecodingRead(partial(decode, preprocessor=WholeImages(max_view_pixels=2000)), 2, 9.0, 10_000_000)
    (batch,) = read(shard, 64)
    images = read_images(batch.column("images")[0].values)
    data = [sample["data"] for sample in next(read_batches(shard, 64))["samples"][0].as_py()]
    seen = {place: image.views[0] for place, image in enumerate(images) if image.views}
    assert {pixels.shape for pixels in seen.values()} > {(39, 52, 3), (40, 30, 3)}
    for place, pixels in seen.items():
        np.testing.assert_array_equal(pixels, view(data[place]))
        assert not pixels.flags.owndata


def test_all_squares_of_an_image_travel(shard: Shard) -> None:
    preprocessor = ImagePreprocessor(image_size=8)
    read = DecodingRead(partial(decode, preprocessor=preprocessor, most_views=4), 2, 9.0, 10_000_000)
    (batch,) = read(shard, 64)
    images = read_images(batch.column("images")[0].values)
    data = [sample["data"] for sample in next(read_batches(shard, 64))["samples"][0].as_py()]
    assert {len(image.views) for image in images} >= {0, 2}
    for image, encoded in zip(images, data, strict=True):
        if image.views:
            np.testing.assert_array_equal(np.stack(image.views), np.stack(preprocessor.views(encoded, 4)))


def test_a_shard_that_cannot_be_read_is_a_row_with_the_failure(tmp_path: Path) -> None:
    (batch,) = InstantLabeler.decoding_read(CONFIG, 1)(Shard("a", str(tmp_path / "a.tar"), "tar"), 8)
    (row,) = InstantLabeler(CONFIG)(batch).to_pylist()
    assert (row["shard"], row["index"]) == ("a", -1)
    assert row["message"].startswith("cannot read shard a (")


def test_an_image_that_takes_too_long_costs_one_row(shard: Shard, clock: Any) -> None:
    release = threading.Event()
    slow, preprocessor = jpeg(0, *PHOTOGRAPH), ImagePreprocessor(image_size=8)

    def decode_one(data: bytes | None) -> DecodedImage:
        if data == slow:
            # For the others no time goes by: one thread decodes one after the other.
            clock.now += 0.25
            release.wait(60)
        return decode(data, preprocessor)

    read = replace(InstantLabeler.decoding_read(CONFIG, 1), decode_one=decode_one, limit_s=0.25)
    (batch,) = read(shard, 64)
    release.set()
    rows = InstantLabeler(CONFIG)(batch).to_pylist()
    (late,) = [row for row in rows if row["error"] == "DecodeTimeout"]
    assert (late["index"], late["n_bytes"], late["decode_s"] >= 0.25) == (0, len(slow), True)
    assert late["message"] == "decoding took longer than 0.25 s (setting max_sample_s)"


def test_seconds_tell_the_cpu_of_decoding_apart_from_the_clock_of_the_read_task(shard: Shard) -> None:
    plain = InstantLabeler.decoding_read(CONFIG, 1)

    def wait_and_decode(data: bytes | None) -> DecodedImage:
        time.sleep(0.2)
        return plain.decode_one(data)

    # What is loaded with the first image is none of decoding.
    plain.decode_one(jpeg(0, *PHOTOGRAPH))
    read = replace(plain, decode_one=wait_and_decode)
    (row, *_) = InstantLabeler(CONFIG)(next(iter(read(shard, 1)))).to_pylist()
    assert row["reader_s"] >= row["read_s"] + 0.2
    assert 0 < row["decode_s"] < 0.1


def test_a_batch_is_read_while_the_one_before_is_decoded_and_no_further(shard: Shard) -> None:
    n_read = 0

    def read_batches_or_failure(*arguments: Any) -> Iterator[pa.Table]:
        nonlocal n_read
        for batch in read_batches(*arguments):
            n_read += 1
            yield batch

    reading = replace(InstantLabeler.decoding_read(CONFIG, 1), read=read_batches_or_failure)(shard, 1)
    for place in range(3):
        next(reading)
        deadline = time.monotonic() + 60
        while n_read < place + 2:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    time.sleep(0.05)
    assert n_read == 4
    reading.close()  # type: ignore[attr-defined]


def test_what_reads_and_decodes_can_be_sent_to_other_nodes(shard: Shard) -> None:
    read = InstantLabeler.decoding_read(CONFIG, 2)
    sent = pickle.loads(pickle.dumps(read))
    assert sent == replace(read, decode_one=sent.decode_one)
    assert next(sent(shard, 64)).num_rows == 1
