"""A sample as it is read: encoded image bytes with what came along, or the fault that took their place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.image_formats import SUFFIXES, format_of
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


def make_sample(
    key: str, data: bytes, text: bytes | None, description: bytes | None, problems: Sequence[str] = ()
) -> Sample:
    """A sample from an image and the content of its side files (`.txt`, `.json`), where it has them.

    Args:
        problems: what is known to be wrong with a side file that is not given.
    """
    caption, truth, problems = None, None, list(problems)
    if description is not None:
        try:
            caption, truth = parse_description(json.loads(description))
        except (ValueError, RecursionError) as error:
            problems.append(f".json: {error}")
    if text is not None:
        try:
            caption = text.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            problems.append(f".txt: {error}")
    if not problems:
        return Sample(key=key, data=data, caption=caption, truth=truth)
    message = "the image is labelled without a side file that could not be read: " + "; ".join(problems)
    return Sample(key=key, data=data, caption=caption, truth=truth, error="SideFileUnreadable", message=plain(message))


def parse_description(description: Any) -> tuple[str | None, list[str] | None]:
    """Caption and truth from a sample's json: `labels` is truth, `captions` (list) or `caption` (string) are captions.

    Raises ValueError where a field has another type.
    """
    if not isinstance(description, Mapping):
        raise ValueError(f"holds a {type(description).__name__}; expected an object")
    truth = description.get("labels")
    if truth is not None and not _is_strings(truth):
        raise ValueError(f"labels is {_shown(truth)}; expected a list of strings")
    captions = description.get("captions")
    if captions is not None and not _is_strings(captions):
        raise ValueError(f"captions is {_shown(captions)}; expected a list of strings")
    caption = description.get("caption")
    if caption is not None and not isinstance(caption, str):
        raise ValueError(f"caption is {_shown(caption)}; expected a string")
    caption = "\n".join(captions) if captions else caption
    return caption and _valid(caption), truth and [_valid(label) for label in truth]


def _valid(text: str) -> str:
    """Text as valid Unicode: json may hold half of a surrogate pair, which no table can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
