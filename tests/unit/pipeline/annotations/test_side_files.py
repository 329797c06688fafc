"""Caption and given labels from the files beside an image: each part for itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.annotations.side_files import is_boxes, read_side_files

Found = tuple[str | None, list[str] | None, int]


def found(text: bytes | None = None, fields: Any = None, classes: bytes | None = None) -> Found:
    """Caption, truth and how many problems there are."""
    description = None if fields is None else json.dumps(fields).encode()
    described = read_side_files(text, description, classes)
    return described.caption, described.truth, len(described.problems)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"caption": float("nan"), "labels": ["dog"]}, (None, ["dog"], 0)),
        ({"caption": 1984, "labels": ["dog"]}, (None, ["dog"], 1)),
        ({"caption": "a dog", "labels": [3, 4]}, ("a dog", None, 1)),
        ({"caption": "a dog", "labels": ["dog", None]}, ("a dog", ["dog"], 1)),
        ({"captions": 5, "caption": "a dog"}, ("a dog", None, 1)),
        ({"captions": ["a dog", "two"], "caption": "else"}, ("a dog\ntwo", None, 0)),
        ({"captions": [], "caption": "a dog"}, ("a dog", None, 0)),
        ({"label": "dog"}, (None, ["dog"], 0)),
        ({"tags": ["dog", "cat"]}, (None, ["dog", "cat"], 0)),
        ({"class": "dog", "class_id": 3}, (None, ["dog"], 0)),
        ({"class": 3, "category": "dog"}, (None, ["dog"], 0)),
        ({"label": 3}, (None, None, 0)),
        ({"labels": [], "caption": "x"}, ("x", [], 0)),
        ({"labels": None, "tags": ["dog"]}, (None, ["dog"], 0)),
    ],
)
def test_a_field_that_is_not_as_it_should_be_costs_no_other(fields: dict[str, Any], expected: Found) -> None:
    assert found(fields=fields) == expected


@pytest.mark.parametrize(
    ("text", "caption", "n_problems"),
    [
        (b"a dog\n", "a dog", 0),
        (b"\xef\xbb\xbfa dog", "a dog", 0),
        ("größe".encode("utf-16"), "größe", 0),
        ("größe".encode("latin-1"), None, 1),
        (b"0 0.5 0.5 0.25 0.25\n", None, 0),
        (b"0 0.5 0.5 0.25 0.25\n17 0.1 0.2 0.3 0.4 0.5 0.6\n\n", None, 0),
        (b"1 2 3", "1 2 3", 0),
    ],
)
def test_a_text_is_the_caption_unless_it_is_boxes(text: bytes, caption: str | None, n_problems: int) -> None:
    assert found(text) == (caption, None, n_problems)


def test_boxes_leave_the_caption_of_the_description() -> None:
    assert found(b"0 0.5 0.5 0.25 0.25", {"caption": "a dog"}) == ("a dog", None, 0)
    assert not is_boxes("")


@pytest.mark.parametrize(
    ("classes", "truth"),
    [(b"ladybug\n", ["ladybug"]), (b"dog\r\ncat", ["dog", "cat"]), (b"3", None), (b"-1\n", None), (b"", None)],
)
def test_names_of_classes_are_given_labels_and_numbers_are_none(classes: bytes, truth: list[str] | None) -> None:
    assert found(classes=classes) == (None, truth, 0)


def test_labels_of_the_description_come_before_those_of_the_classes() -> None:
    assert found(fields={"labels": ["dog"]}, classes=b"cat") == (None, ["dog"], 0)
    assert found(fields={"caption": "x"}, classes=b"cat") == ("x", ["cat"], 0)
