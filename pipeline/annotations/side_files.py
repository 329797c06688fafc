"""Caption and given labels from the files beside one image: `.txt`, `.caption`, `.json`, `.cls` and the like.

Each part is read for itself: one that is not as it should be costs no other. What these files are in other tools is
known for what it is: YOLO's boxes in a `.txt` are no caption, and a number in a `.cls` is no name.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# In the order in which they are taken for the caption.
TEXT_SUFFIXES = ("txt", "text", "caption", "cap")
SIDE_SUFFIXES = frozenset({*TEXT_SUFFIXES, "json", "cls"})
_LABEL_FIELDS = ("labels", "label", "tags", "class", "category")
_CAPTION_FIELDS = ("captions", "caption")
_BOX = re.compile(r"\d+(?:\s+-?\d+(?:\.\d+)?(?:[eE]-?\d+)?){4,}")
_NUMBER = re.compile(r"-?\d+")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_SHOWN_CHARACTERS = 60


@dataclass(slots=True)
class Described:
    """What is known of an image."""

    caption: str | None = None
    """Its captions, one a line; None where there are none."""
    truth: list[str] | None = None
    """Given labels; None where there are none."""
    problems: list[str] = field(default_factory=list)
    """What could not be taken."""


def read_side_files(text: bytes | None, description: bytes | None, classes: bytes | None = None) -> Described:
    """What the files beside an image say of it; None stands for one that is not there.

    Args:
        text: of one of `TEXT_SUFFIXES`. Its caption comes before that of the description.
        description: a `.json`, as `read_fields` takes it.
        classes: a `.cls`: names, one a line. The labels of the description come before them.
    """
    described = Described()
    if description is not None:
        try:
            fields = json.loads(description)
            if not isinstance(fields, Mapping):
                raise ValueError(f"holds a {type(fields).__name__}; expected an object")
            described = read_fields(fields)
            described.problems = [f".json: {problem}" for problem in described.problems]
        except (ValueError, RecursionError) as error:
            described.problems.append(f".json: {error}")
    if text is not None:
        try:
            caption = decode_text(text).strip()
            described.caption = described.caption if is_boxes(caption) else caption
        except UnicodeDecodeError as error:
            described.problems.append(f".txt: {error}")
    if classes is not None and described.truth is None:
        try:
            names = [line.strip() for line in decode_text(classes).splitlines()]
            described.truth = [name for name in names if name and not _NUMBER.fullmatch(name)] or None
        except UnicodeDecodeError as error:
            described.problems.append(f".cls: {error}")
    return described


def read_fields(fields: Mapping[str, Any]) -> Described:
    """What the fields of an object say of an image.

    Labels are the first of `labels`, `label`, `tags`, `class` and `category` that holds texts. Captions are `captions`,
    else `caption`. Each is a text or a list of texts.
    """
    described = Described()
    for name in _LABEL_FIELDS:
        # Numbers of classes are no names. Only of `labels` is it told, which can be meant for nothing else.
        texts = _texts(name, fields.get(name), described.problems if name == "labels" else [])
        if texts and described.truth is None:
            described.truth = texts
    if described.truth is None and fields.get("labels") == []:
        described.truth = []
    for name in _CAPTION_FIELDS:
        texts = _texts(name, fields.get(name), described.problems)
        if texts and described.caption is None:
            described.caption = "\n".join(texts)
    return described


def decode_text(content: bytes) -> str:
    """A text file's content: UTF-8, or UTF-16 that says so. Raises UnicodeDecodeError for any other."""
    return content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")


def is_boxes(text: str) -> bool:
    """Whether a text is what YOLO writes beside an image: lines of a class's number and of its box or outline."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return bool(lines) and all(_BOX.fullmatch(line) for line in lines)


def _texts(name: str, value: Any, problems: list[str]) -> list[str] | None:
    """The texts of a field, as valid Unicode; None where it has none."""
    # What pandas writes where there is nothing.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    items = value if isinstance(value, list) else [value]
    texts = [_valid(item) for item in items if isinstance(item, str)]
    if len(texts) < len(items):
        problems.append(f"{name} is {_shown(value)}; expected a text or a list of texts")
    return texts if texts or not items else None


def _valid(text: str) -> str:
    """Text as valid Unicode: json may hold half of a surrogate pair, which no table can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 3] + "..."
