"""Files that list images as people have them: of Hugging Face, of Excel, of several exporters of COCO."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.annotations.annotation import Annotation, CaptionsError
from pipeline.annotations.captions import match_files, read_captions

NAMES = ["a.jpg", "b.jpg"]
COCO: dict[str, Any] = {
    "images": [{"id": number, "file_name": name, "width": 1, "height": 1} for number, name in enumerate(NAMES)],
    "annotations": [{"id": 1, "image_id": 0, "category_id": 1}],
    "categories": [{"id": 1, "name": "dog"}],
}
GOOD, ZERO = COCO["annotations"][0], {"id": 0, "name": "dog"}
DOG, THING = (["a.jpg: dog"]), ["a.jpg: a thing", "b.jpg: a thing"]


def read(folder: Path, name: str, content: Any) -> tuple[list[str], list[str]]:
    """What a file says, as `file: caption or label`, and its problems."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    listed = read_captions([str(path)])
    told = [
        f"{file}: {text}"
        for file, annotation in listed.annotations.items()
        for text in (*annotation.captions, *sorted(annotation.labels))
    ]
    return told, listed.problems


def lines(separator: str, header: str, value: str) -> str:
    columns = header.split(separator)
    values = {columns[0].strip(): "", columns[-1].strip(): value}
    rows = [separator.join([name, *[" 0"] * (len(columns) - 2), values[columns[-1].strip()]]) for name in NAMES]
    return "\n".join([header, *rows, ""])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metadata.jsonl", "\n\n".join(json.dumps({"file_name": name, "text": "a thing"}) for name in NAMES), THING),
        ("metadata.csv", lines(",", "file_name,text", "a thing"), THING),
        ("captions.tsv", lines("\t", "file_name\tcaption", "a thing"), THING),
        ("excel.csv", lines(";", "file;caption", "a thing"), THING),
        ("excel-bom.csv", b"\xef\xbb\xbf" + lines(";", "File;Caption", "a thing").encode(), THING),
        ("excel-utf16.csv", lines("\t", "file_name\tcaption", "a thing").encode("utf-16"), THING),
        ("flickr30k.csv", lines("|", "image_name| comment_number| comment", " a thing"), THING),
        ("labels.csv", "file_name,label\na.jpg,dog; cat\n", ["a.jpg: cat", "a.jpg: dog"]),
        ("list.json", [{"image": name, "caption": ["a thing", None]} for name in NAMES[:1]], ["a.jpg: a thing"]),
        ("tags.json", [{"file_name": "a.jpg", "tags": ["dog"], "class": 3}], DOG),
        ("ids.json", COCO | {"annotations": [GOOD | {"image_id": "0", "category_id": "1"}]}, DOG),
        ("floats.json", COCO | {"annotations": [GOOD | {"image_id": 0.0, "category_id": 1.0}]}, DOG),
        ("zero.json", COCO | {"annotations": [GOOD | {"category_id": 0}], "categories": [ZERO]}, DOG),
        ("super.json", COCO | {"categories": [{"id": 1, "supercategory": "dog"}]}, DOG),
        ("disk.json", COCO | {"images": [{"id": 0, "file_name": "C:\\a.jpg"}]}, ["C:/a.jpg: dog"]),
        ("url.json", COCO | {"images": [{"id": 0, "file_name": "https://x.org/d/a.jpg?sig=1"}]}, ["d/a.jpg: dog"]),
        ("nan.json", json.dumps(COCO).replace('"category_id": 1', '"category_id": 1, "bbox": [NaN]'), DOG),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(COCO).encode(), DOG),
        ("coco.json.gz", gzip.compress(json.dumps(COCO).encode()), DOG),
        ("null.json", {"a.jpg": "dog", "b.jpg": None}, DOG),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)  # fmt: skip
def test_a_list_is_read(tmp_path: Path, name: str, content: Any, expected: list[str]) -> None:
    assert read(tmp_path, name, content)[0] == expected


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"image_id": 1, "category_id": None}, "has keys image_id, category_id; expected caption or category_id"),
        ({"image_id": 1, "category_id": 99}, "names category 99, which categories does not list with a name"),
        ({"image_id": 1, "bbox": [1, 2, 3, 4]}, "has keys image_id, bbox; expected caption or category_id"),
        ({"image_id": 1, "caption": None}, "caption is None; expected a text"),
        ({"image_id": None, "category_id": 1}, "expected image_id, a number or text"),
        (3, "annotations holds a int; expected objects"),
    ],
)
def test_one_bad_annotation_costs_itself(tmp_path: Path, bad: Any, problem: str) -> None:
    told, (found,) = read(tmp_path, "c.json", COCO | {"annotations": [GOOD, bad]})
    assert told == DOG
    assert problem in found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", "file,caption\na.jpg,dog\nb.jpg,one, two\n"),
        ("c.csv", "file,caption\na.jpg,dog\n,one\n"),
        ("c.jsonl", '{"file_name": "a.jpg", "caption": "dog"}\n{"file_name": \n'),
        ("c.jsonl", '{"file_name": "a.jpg", "caption": "dog"}\n["b.jpg", "cat"]\n'),
        ("c.json", {"a.jpg": "dog", "b.jpg": 3}),
        ("c.json", [{"file_name": "a.jpg", "caption": "dog"}, {"caption": "cat"}]),
        ("c.json", COCO | {"images": [*COCO["images"], {"id": 7}]}),
    ],
)
def test_one_bad_entry_costs_itself(tmp_path: Path, name: str, content: Any) -> None:
    told, problems = read(tmp_path, name, content)
    assert (told, len(problems)) == (DOG, 1)


def test_a_file_of_bad_entries_alone_is_refused_with_the_first(tmp_path: Path) -> None:
    with pytest.raises(CaptionsError, match=r"line 1: there is no file name in x, y \(2 entries are like this one\)"):
        read(tmp_path, "c.jsonl", '{"x": 1, "y": 2}\n{"z": 3}\n')


def test_a_table_that_is_no_utf_8_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CaptionsError, match=r"is not UTF-8 text: .*in Excel: CSV UTF-8"):
        read(tmp_path, "c.csv", "file,caption\na.jpg,café\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("A.JPG", "val/a.jpg"),
        ("val/A.jpg", "val/a.jpg"),
        ("a", "val/a.jpg"),
        ("images/1a2b3c4d-a.jpg", "val/a.jpg"),
        ("1a2b3c4d-A", "val/a.jpg"),
        ("1a2b3c4d-b.jpg", "1a2b3c4d-b.jpg"),
        ("c", None),
    ],
)
def test_a_name_that_is_no_file_may_be_spelled_in_another_way(name: str, file: str | None) -> None:
    files = ["val/a.jpg", "b.jpg", "1a2b3c4d-b.jpg"]
    matched, unmatched = match_files({name: Annotation(["x"])}, files)
    assert (list(matched), unmatched) == (([], [name]) if file is None else ([file], []))


def test_an_exact_name_comes_before_one_of_other_capitals() -> None:
    matched, _ = match_files({"a.jpg": Annotation(["x"])}, ["A.jpg", "a.jpg"])
    assert list(matched) == ["a.jpg"]
