"""A sample as it is read: encoded image bytes with what came along, or the fault that took their place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from model.images.image_formats import SUFFIXES, format_of
from pipeline.annotations.side_files import Described
from pipeline.text import plain

READ_STAGE = "read"
DECODE_STAGE = "decode"

IMAGE_SUFFIXES = SUFFIXES
# Of formats that have another suffix, too.
_OTHER_SPELLINGS = frozenset({"jpe", "jfif", "jif", "apng"})
# What web sites and download tools add to a suffix: .jpg_large, .jpg!thumb, .jpg?width=100.
_ADDED = re.compile(r"([a-z0-9]+)[_!?:@&%-].*", re.DOTALL)


def is_image_suffix(suffix: str) -> bool:
    """Whether a suffix, in lower case and without its dot, is that of an image."""
    added = _ADDED.fullmatch(suffix)
    return (added[1] if added else suffix) in IMAGE_SUFFIXES | _OTHER_SPELLINGS


def looks_like_image(start: bytes) -> bool:
    """Whether content begins like that of an image in a usual format; 12 bytes are enough."""
    return format_of(start) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One input sample.

    `data` is None for a fault, which names its `error` class and `message`. A sample may have both: an image whose
    caption could not be read is labelled, and says so.
    """

    key: str
    data: bytes | None = None
    caption: str | None = None
    truth: list[str] | None = None
    error: str | None = None
    message: str | None = None


def fault(key: str, error: str, message: str) -> Sample:
    """The row of something that could not be read."""
    return Sample(key=key, error=error, message=plain(message))


def too_large(key: str, name: str, n_bytes: int, max_bytes: int) -> Sample:
    """The row of an image that is larger than one sample may be."""
    message = f"{name} has {n_bytes} bytes; the limit is {max_bytes} (setting max_sample_bytes)"
    return fault(key, "MemberTooLarge", message)


def make_sample(key: str, data: bytes, described: Described, problems: Sequence[str] = ()) -> Sample:
    """A sample from an image and what is known of it.

    Args:
        problems: what is known to be wrong with a side file, beside what `described` tells.
    """
    problems = [*problems, *described.problems]
    if not problems:
        return Sample(key=key, data=data, caption=described.caption, truth=described.truth)
    message = plain("the image is labelled without what could not be read beside it: " + "; ".join(problems))
    return Sample(
        key=key,
        data=data,
        caption=described.caption,
        truth=described.truth,
        error="SideFileUnreadable",
        message=message,
    )
