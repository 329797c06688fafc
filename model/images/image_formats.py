"""Formats of images: which are read, by which library, and what is said of bytes that are not."""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError, features


class _Plugin(NamedTuple):
    """A library that teaches Pillow a format."""

    package: str
    """Its name on PyPI."""
    module: str
    register: str | None
    """Function of the module that registers it; None where importing does."""


# What Pillow calls a format: the library that reads it. The extra `formats` installs them.
EXTRA_PLUGINS = {
    "HEIF": _Plugin("pillow-heif", "pillow_heif", "register_heif_opener"),
    "JXL": _Plugin("pillow-jxl-plugin", "pillow_jxl", None),
}
# Read by Pillow itself; AVIF and JPEG 2000 where it was built so, as its wheels are.
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "ICO", "AVIF", "JPEG2000")
SUFFIXES = frozenset(
    "jpg jpeg png webp gif bmp tif tiff ico avif heic heif hif jxl jp2 j2k j2c jpc jpx jpf".split(),
)
"""Suffixes of files in these formats, in lower case."""

_STARTS: tuple[tuple[str, bytes], ...] = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WEBP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM.{4}\0\0\0\0"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("ICO", rb"\0\0\x01\0[^\0]\0"),
    ("AVIF", rb".{4}ftypavi[fs]"),
    ("HEIF", rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)"),
    ("JPEG2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("JXL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
)
# Of those that nothing here reads.
_OTHER_STARTS: tuple[tuple[str, bytes], ...] = (
    ("a PDF document", rb"%PDF-"),
    ("an SVG drawing, which has no pixels", rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<svg"),
    ("an HTML page", rb"(?i:\s*<(?:!doctype html|html))"),
    ("a Photoshop document", rb"8BPS"),
    ("a JPEG XR image", rb"II\xbc"),
    ("a ZIP archive", rb"PK\x03\x04"),
    ("a gzip file", rb"\x1f\x8b"),
    ("a video", rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF....AVI "),
    ("a pointer of Git LFS, and not the file itself", rb"version https://git-lfs"),
)
_NAMES = {"HEIF": "HEIC", "JXL": "JPEG XL", "JPEG2000": "JPEG 2000"}
_N_BYTES_LOOKED_AT = 512


def format_of(data: bytes) -> str | None:
    """What Pillow calls the format that bytes begin like; None for those of no format that is read."""
    return _first_match(_STARTS, data)


def readers_for(image_format: str | None) -> list[str]:
    """Formats to let Pillow try on bytes that begin like a format.

    Raises ImportError where the library that reads it is not installed.
    """
    Image.init()
    built_in = [name for name in PILLOW_FORMATS if name in Image.OPEN]
    if image_format not in EXTRA_PLUGINS:
        return built_in
    _load_plugin(image_format)
    return [image_format]


def _load_plugin(image_format: str) -> None:
    plugin = EXTRA_PLUGINS[image_format]
    module = importlib.import_module(plugin.module)
    if plugin.register is not None and image_format not in Image.OPEN:
        getattr(module, plugin.register)()


def explain_unreadable(data: bytes, image_format: str | None, error: Exception) -> str:
    """Why bytes are not read, and what to do where something can be done.

    Args:
        image_format: what `format_of` says of them.
        error: what trying to read them raised.
    """
    if image_format in EXTRA_PLUGINS and isinstance(error, ImportError):
        plugin, name = EXTRA_PLUGINS[image_format], _NAMES[image_format]
        return (
            f"this is a {name} image; install tagstream[formats] where images are decoded, then run tagstream retry "
            f"({plugin.package}, which reads it, cannot be imported: {error})"
        )
    if image_format is None:
        expected = ", ".join(_NAMES.get(name, name) for name in (*PILLOW_FORMATS, *EXTRA_PLUGINS) if name != "MPO")
        other = _first_match(_OTHER_STARTS, data)
        what = f"; this is {other}" if other else ""
        return f"not a readable image (starts with {data[:16]!r}){what}; expected one of {expected}"
    name = _NAMES.get(image_format, image_format)
    if image_format in ("AVIF", "JPEG2000") and not _is_built_in(image_format):
        return f"this is a {name} image, and Pillow was built here without it; install Pillow's own wheel"
    return (
        f"not a readable image: it begins like {name}, but Pillow cannot read it: {_reason(data, image_format, error)}"
    )


def _reason(data: bytes, image_format: str, error: Exception) -> str:
    """What the format's own reader says: Pillow keeps that to itself, and says only that no reader takes the bytes."""
    factory: Callable[..., Image.Image] | None = Image.OPEN.get(image_format, (None,))[0]
    if isinstance(error, UnidentifiedImageError) and factory is not None:
        try:
            factory(io.BytesIO(data), "")
        # Damaged numbers lead to errors of any kind.
        except Exception as found:
            error = found
    if isinstance(error.__cause__, KeyError) and str(error).isdecimal():
        return f"unknown value {error}"
    # A SyntaxError is how Pillow's readers say what they do not take.
    return f"{error}" if isinstance(error, SyntaxError | OSError) else f"{type(error).__name__}: {error}"


def _is_built_in(image_format: str) -> bool:
    return bool(features.check({"AVIF": "avif", "JPEG2000": "jpg_2000"}[image_format]))


def _first_match(starts: tuple[tuple[str, bytes], ...], data: bytes) -> str | None:
    start = data[:_N_BYTES_LOOKED_AT]
    return next((name for name, pattern in starts if re.match(pattern, start, re.DOTALL)), None)
