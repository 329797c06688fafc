"""Which formats are read, and what is said of those that are not."""

from __future__ import annotations

import io
import struct
import sys
import tomllib
import zlib

import numpy as np
import pytest
from PIL import Image

from model.images.image_formats import EXTRA_PLUGINS
from model.images.opening import ImageDecodeError, ImageTooLargeError, open_image
from model.images.preprocessing import ImagePreprocessor
from tests.fixtures.checkout import ROOT

PREPROCESSOR = ImagePreprocessor(image_size=40)
RAMP = np.add.outer(np.arange(40) * 3, np.arange(48) * 2).clip(0, 255).astype(np.uint8)
PICTURE = Image.fromarray(np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1))
# Encoders of photographs are off by a few levels.
TOLERANCE = 8


def encoded(image_format: str, **options: object) -> bytes:
    if image_format in EXTRA_PLUGINS:
        plugin = EXTRA_PLUGINS[image_format]
        module = pytest.importorskip(plugin.module, reason=f"{plugin.package} has no wheel for this machine")
        if plugin.register:
            getattr(module, plugin.register)()
    buffer = io.BytesIO()
    PICTURE.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("AVIF", {"quality": 95}),
        ("HEIF", {"quality": 95}),
        ("JXL", {"quality": 95}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("ICO", {"sizes": [(48, 40), (16, 13)]}),
    ],
    ids=["AVIF", "HEIC", "JPEG XL", "JPEG 2000", "JPEG 2000 without a container", "ICO"],
)
def test_a_format_is_read(image_format: str, options: dict[str, object]) -> None:
    data = encoded(image_format, **options)
    seen = np.asarray(PREPROCESSOR.open_upright(data)).astype(int)
    assert np.abs(seen - np.asarray(PICTURE)).mean() < TOLERANCE
    assert open_image(data).size == PICTURE.size
    with pytest.raises(ImageTooLargeError):
        open_image(data, 40 * 48 - 1)
    with pytest.raises(ImageDecodeError):
        PREPROCESSOR.view(data[: len(data) // 2])


def test_a_turned_heic_is_seen_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("HEIF", quality=95, exif=exif.tobytes())
    seen = np.asarray(PREPROCESSOR.open_upright(data)).astype(int)
    assert np.abs(seen - np.asarray(PICTURE.transpose(Image.Transpose.ROTATE_270))).mean() < TOLERANCE


@pytest.mark.parametrize(
    ("start", "name", "package"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC", "pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC", "pillow-heif"),
        (b"\xff\x0a\0\0", "JPEG XL", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "pillow-jxl-plugin"),
    ],
)
def test_without_its_library_a_format_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, start: bytes, name: str, package: str
) -> None:
    for plugin in EXTRA_PLUGINS.values():
        monkeypatch.setitem(sys.modules, plugin.module, None)
    with pytest.raises(
        ImageDecodeError, match=rf"this is a {name} image; install tagstream\[formats\] .*\({package}, which reads it, "
    ):
        PREPROCESSOR.view(start + bytes(100))


def test_the_extra_of_the_message_installs_what_it_names() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [requirement.split(">=")[0] for requirement in extras["formats"]] == [
        plugin.package for plugin in EXTRA_PLUGINS.values()
    ]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%PDF-1.7\n", "a PDF document"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing, which has no pixels"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"II\xbc\1", "a JPEG XR image"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, and not the file itself"),
    ],
)
def test_what_else_the_bytes_are_is_told(data: bytes, what: str) -> None:
    with pytest.raises(ImageDecodeError, match=f"; this is {what}; expected one of JPEG, PNG"):
        PREPROCESSOR.view(data)


def tiff_with(tag: int, value: int) -> bytes:
    """A TIFF of which one field is another one."""
    data = bytearray(encoded("TIFF"))
    directory = struct.unpack("<I", data[4:8])[0]
    (at,) = (at for at in range(directory + 2, directory + 200, 12) if data[at : at + 2] == struct.pack("<H", tag))
    data[at + 8 : at + 10] = struct.pack("<H", value)
    return bytes(data)


def png_with_damaged_header_chunk() -> bytes:
    data = encoded("PNG")
    return data[:16] + struct.pack(">II", 0, 0) + data[24:29] + struct.pack(">I", zlib.crc32(b"")) + data[33:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff_with(277, 13), "TIFF, but Pillow cannot read it: Invalid value for samples per pixel"),
        (tiff_with(259, 34887), "TIFF, but Pillow cannot read it: unknown value 34887"),
        (png_with_damaged_header_chunk(), "PNG, but Pillow cannot read it: broken PNG file"),
        (b"\xff\xd8\xff", "JPEG, but Pillow cannot read it: "),
    ],
    ids=["13 bands", "an unknown compression", "a wrong checksum", "a JPEG's start alone"],
)
def test_pillows_own_reason_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(ImageDecodeError, match=f"^not a readable image: it begins like {reason}"):
        PREPROCESSOR.view(data)
