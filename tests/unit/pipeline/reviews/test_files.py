"""Reviews as tools write them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TagstreamError
from pipeline.reviews.files import ReviewTool, read_reviews, run_told


def read(path: Path, tool: ReviewTool) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in read_reviews(str(path), tool, "someone").to_pylist()]


def test_a_csv_has_verdicts_and_rows_without_rank_are_what_was_missing(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    path.write_text(
        "\ufeffimage_id,name,rank,verdict,reviewer,reviewed\n-5,dog,1, YES ,ada,2026-11-27\n-5,cat,2,no,,\n"
        "-5,bus,3,,,\n-5,tree,4,unsure,,\n-5,owl,,yes,,\n"
    )
    assert read(path, "csv") == [
        (-5, "dog", "yes", "ada", "2026-11-27"),
        (-5, "cat", "no", "someone", None),
        (-5, "tree", "unsure", "someone", None),
        (-5, "owl", "added", "someone", None),
    ]


def test_a_csv_without_the_column_rank_has_verdicts_on_what_was_shown(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    path.write_text("image_id,name,verdict\n7,dog,yes\n")
    assert read(path, "csv") == [(7, "dog", "yes", "someone", None)]


def test_what_an_annotation_of_label_studio_leaves_out_is_not_true(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    annotation = {
        "completed_by": {"id": 3, "email": "ada@example.org"},
        "updated_at": "2026-11-27T10:00:00Z",
        "result": [
            {"type": "choices", "value": {"choices": ["dog", "owl"]}},
            {"type": "textarea", "from_name": "missing", "value": {"text": ["fox ", " "]}},
        ],
    }
    skipped, given = {"was_cancelled": True, "result": []}, {"ground_truth": True, "result": []}
    data = {"image_id": "9007199254740993", "labels": [{"name": "dog"}, {"name": "cat"}]}
    path.write_text(json.dumps([{"data": data, "annotations": [annotation, skipped, given]}, {"data": data}]))
    person = ("ada@example.org", "2026-11-27T10:00:00Z")
    assert read(path, "label-studio") == [
        (9007199254740993, "dog", "yes", *person),
        (9007199254740993, "cat", "no", *person),
        (9007199254740993, "owl", "added", *person),
        (9007199254740993, "fox", "added", *person),
    ]


def test_tags_of_fiftyone_are_verdicts(tmp_path: Path) -> None:
    predictions = {
        "classifications": [{"label": "dog", "tags": ["yes"]}, {"label": "cat", "tags": ["no", "x"]}, {"label": "bus"}]
    }
    sample = {"image_id": "5", "predictions": predictions, "added": {"classifications": [{"label": "owl"}]}}
    (tmp_path / "samples.json").write_text(json.dumps({"samples": [sample, {"image_id": "6"}]}))
    expected = [
        (5, "dog", "yes", "someone", None),
        (5, "cat", "no", "someone", None),
        (5, "owl", "added", "someone", None),
    ]
    assert read(tmp_path, "fiftyone") == read(tmp_path / "samples.json", "fiftyone") == expected


def test_a_saved_page_has_decisions_of_one_person(tmp_path: Path) -> None:
    path = tmp_path / "review.json"
    decisions = [
        {"image_id": "-9007199254740993", "name": "dog", "verdict": "yes", "reviewed": "2026-11-27T10:00:00Z"},
        {"image_id": "5", "name": "owl", "verdict": "added"},
    ]
    saved = {"kind": "tagstream review", "run": "r", "sample": "random-1", "decisions": decisions}
    for reviewer in ("ada", ""):
        path.write_text(json.dumps({**saved, "reviewer": reviewer}))
        assert read(path, "page") == [
            (-9007199254740993, "dog", "yes", reviewer or "someone", "2026-11-27T10:00:00Z"),
            (5, "owl", "added", reviewer or "someone", None),
        ]
    assert (run_told(str(path), "page"), run_told(str(path), "csv")) == ("r", None)


@pytest.mark.parametrize("image_id", ["7", "#7"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_may_come_back_from_a_spreadsheet_of_any_country(tmp_path: Path, separator: str, image_id: str) -> None:
    path = tmp_path / "review.csv"
    lines = [("image_id", "key", "name", "verdict"), (image_id, "a, b", "dog", "yes")]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(lines)
    assert read(path, "csv") == [(7, "dog", "yes", "someone", None)]


def page_of(**changed: Any) -> str:
    """A saved page with one decision, of which some is changed."""
    decision = {"image_id": "1", "name": "dog", "verdict": "yes", **changed}
    return json.dumps({"kind": "tagstream review", "run": "r", "decisions": [decision]})


@pytest.mark.parametrize(
    ("tool", "content", "reason"),
    [
        ("page", "{}", "is no page file of reviews: something in it has no 'kind'; expected the file that a page of"),
        ("page", "[]", "is no page file of reviews: it is built otherwise; expected"),
        ("page", "[" * 100_000, "is no page file of reviews: it is no JSON"),
        (
            "page",
            '{"kind": "other", "run": "r", "decisions": []}',
            "is no page file of reviews: it is of the kind 'other'",
        ),
        ("page", page_of(image_id=1.5), "a verdict has the image_id '1.5'; expected a whole number"),
        ("page", page_of(image_id=True), "a verdict has the image_id 'True'; expected a whole number"),
        ("page", page_of(image_id=str(1 << 63)), "a verdict has the image_id '9223372036854775808'; expected"),
        ("page", page_of(name=5), "a verdict on image 1 has no name; expected that of a label"),
        ("page", page_of(name="\ud800"), "is no page file of reviews"),
        ("page", page_of(verdict=["yes"]), "the verdict of dog on image 1 is .'yes'.; expected one of yes"),
        ("page", '{"kind": "tagstream review", "run": "r", "decisions": []}', "has no decision"),
        ("csv", "image_id,name\n1,dog\n", "no csv file of reviews: the columns verdict are missing"),
        (
            "csv",
            "image_id,name,verdict\n1,dog,maybe\n",
            "the verdict of dog on image 1 is 'maybe'; expected one of yes",
        ),
        ("csv", "image_id,name,verdict\n1,,yes\n", "a verdict on image 1 has no name"),
        ("csv", "image_id,name,verdict\n1.23E+18,dog,yes\n", "a spreadsheet rounds such numbers unless"),
        (
            "csv",
            "image_id,name,verdict\n1,dog,yes\n1,dog,no\n",
            "someone says yes and no of dog on image 1; expected one",
        ),
        (
            "csv",
            "image_id;name,verdict\n1,dog,yes\n",
            "the columns image_id, name are missing, it has 'image_id;name', 'v",
        ),
        ("csv", "image_id,name,verdict\n1,dog,\n", "has no decision"),
        ("label-studio", "{}", "has no decision"),
        ("label-studio", "nonsense", "is no label-studio file"),
        ("label-studio", "[{}]", "is no label-studio file"),
        ("fiftyone", "[]", "is no fiftyone file"),
    ],
)
def test_a_file_that_cannot_be_understood_says_why(tmp_path: Path, tool: ReviewTool, content: str, reason: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(TagstreamError, match=reason):
        read(tmp_path / "file", tool)


def test_a_table_with_a_cell_that_is_too_large_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(f"image_id,name,verdict\n1,{'x' * 2000},yes\n")
    # It is the process's own, and who reads lists of captions has raised it.
    limit = csv.field_size_limit(1000)
    try:
        with pytest.raises(TagstreamError, match="is no csv file of reviews: field larger than"):
            read(tmp_path / "file", "csv")
    finally:
        csv.field_size_limit(limit)


def test_where_nobody_knows_who_reviewed_the_option_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("image_id,name,verdict,reviewer\n1,dog,yes, \n")
    with pytest.raises(TagstreamError, match="does not say who reviewed; name that person with --reviewer"):
        read_reviews(str(tmp_path / "file"), "csv", "")


def test_a_table_in_another_encoding_says_which_is_expected(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("image_id,name,verdict\n1,Bär,yes\n".encode("cp1252"))
    with pytest.raises(TagstreamError, match="expected a table as `tagstream sample --to csv` writes it, in UTF-8"):
        read(tmp_path / "file", "csv")
