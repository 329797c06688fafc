"""What is fuzzed: each target takes any bytes, and may refuse them only in the way it says."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from model.images.preprocessing import ImagePreprocessor
from pipeline.actor.decoding import decode
from pipeline.annotations.side_files import read_side_files
from pipeline.errors import TagstreamError
from pipeline.naming.thresholds import read_thresholds
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.settings.labelling import LabelSettings
from pipeline.settings.toml_file import read_settings
from pipeline.sources.parquet_reader import read_parquet
from pipeline.sources.sample import Sample, make_sample
from pipeline.sources.tar_reader import read_tar
from pipeline.sources.zip_reader import read_zip
from pipeline.training.settings import TrainSettings
from tests.fixtures.corpus import encode, jpeg, sample_members, tar_bytes

_MAX_SAMPLE_BYTES = 1 << 20
_PREPROCESSOR = ImagePreprocessor(image_size=16, max_image_pixels=1 << 20)
# The same in every process, whatever drew random numbers before.
_IMAGE = Image.fromarray(np.random.default_rng(0).normal(128, 60, (16, 24)).clip(0, 255).astype(np.uint8))


def fuzz_tar(data: bytes) -> None:
    """An archive is samples and fault rows, whatever it holds."""
    _check_samples(list(read_tar(io.BytesIO(data), _MAX_SAMPLE_BYTES)))


def fuzz_zip(data: bytes) -> None:
    """So is a zip."""
    _check_samples(list(read_zip(io.BytesIO(data), _MAX_SAMPLE_BYTES)))


def fuzz_parquet(data: bytes) -> None:
    """So is a Parquet file."""
    _check_samples(list(read_parquet(io.BytesIO(data), "fuzzed.parquet", _MAX_SAMPLE_BYTES)))


def fuzz_image(data: bytes) -> None:
    """An image is a crop, or has an error class and a message."""
    decoded = decode(data, _PREPROCESSOR)
    if not decoded.views:
        assert decoded.error
        assert decoded.message
    else:
        assert decoded.views[0].shape == (16, 16, 3)
        assert decoded.views[0].dtype == "uint8"


def fuzz_side_files(data: bytes) -> None:
    """Side files give a caption and truth that a table can hold, or a message."""
    text, _, description = data.partition(b"\0\0")
    _check_samples([make_sample("key", b"", read_side_files(text, description))])


def fuzz_vocabulary(data: bytes) -> None:
    """A vocabulary is read or refused in a sentence, as TOML and as CSV."""
    for suffix in (".toml", ".csv"):
        with _file(data, suffix) as path, contextlib.suppress(TagstreamError):
            vocabulary = read_vocabulary(path)
            assert vocabulary.name_of("dog") is None or isinstance(vocabulary.name_of("dog"), str)


def fuzz_settings(data: bytes) -> None:
    """Settings are read or refused in a sentence."""
    with _file(data, ".toml") as path, contextlib.suppress(TagstreamError):
        read_thresholds(path)
    try:
        values = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return
    for kind in (LabelSettings, TrainSettings):
        with contextlib.suppress(TagstreamError):
            read_settings(kind, values, "fuzzed.toml")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tar": fuzz_tar,
    "zip": fuzz_zip,
    "parquet": fuzz_parquet,
    "image": fuzz_image,
    "side_files": fuzz_side_files,
    "vocabulary": fuzz_vocabulary,
    "settings": fuzz_settings,
}


def seeds(target: str) -> Iterator[bytes]:
    """Good inputs of a target, to begin from."""
    if target in ("tar", "zip"):
        yield from _archives(target)
    elif target == "parquet":
        for table in (
            pa.table({"key": ["a", "b"], "bytes": [jpeg(1, 8, 8), None], "caption": ["x", None]}),
            pa.table({"image": [{"bytes": b"A", "path": "a.jpg"}], "labels": [["cat"]]}),
        ):
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            yield sink.getvalue().to_pybytes()
    elif target == "image":
        for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
            yield encode(_IMAGE, image_format)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
            yield encode(_IMAGE, "TIFF", compression=compression)
    elif target == "side_files":
        yield b"a caption\0\0" + json.dumps({"labels": ["cat"], "captions": ["x", "y"]}).encode()
    elif target == "vocabulary":
        yield b'keep = ["glasses"]\ndeny = ["photo"]\n[aliases]\nautomobile = "car"\n[wider]\npuppy = "dog"\n'
        yield b"label,name,wider\nautomobile,car,vehicle\nphoto,,\n"
    else:
        yield b'top_k = 5\nranking = "ppl"\nmax_sample_s = 1.5\n'
        yield b"steps = 10\nlearning_rate = 1e-3\nmodel = {image_size = 28}\n"


def _archives(kind: str) -> Iterator[bytes]:
    members = list(sample_members("a", 1))
    if kind == "tar":
        yield tar_bytes(members)
        yield pa.Codec("zstd").compress(tar_bytes(members), asbytes=True)
        yield tar_bytes([("a.jpg", b"A"), ("b.txt", b"B"), ("a.json", b"{}"), ("x" * 120 + ".png", b"C")])
        return
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for name, member in members:
                archive.writestr(name, member)
        yield stream.getvalue()


def _check_samples(samples: list[Sample]) -> None:
    assert samples, "what is read has one row at least"
    for sample in samples:
        assert sample.data is not None or sample.error
        assert bool(sample.error) == bool(sample.message)
        # What a table must be able to hold.
        for text in (sample.key, sample.caption, sample.error, sample.message, *(sample.truth or ())):
            assert text is None or text.encode() is not None


@contextlib.contextmanager
def _file(data: bytes, suffix: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
