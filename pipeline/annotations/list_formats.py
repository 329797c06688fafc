"""Formats of files that list images: COCO's annotations, objects, a mapping, tables. A bad entry costs itself alone."""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pipeline.annotations.annotation import Annotation, CaptionsError, Listed
from pipeline.annotations.side_files import decode_text

_FILE_FIELDS = (
    "file_name", "file", "filename", "image", "path", "image_name", "image_path", "image_file", "filepath", "imageid",
)  # fmt: skip
_CAPTION_FIELDS = ("caption", "captions", "text", "comment", "sentence", "sentences")
_LABEL_FIELDS = ("labels", "label", "tags", "class", "category")
_LABELS_SEPARATOR = ";"
_DELIMITERS = (",", ";", "\t", "|")
_MAX_CSV_CELL_BYTES = 16 << 20
_N_FIELDS_SHOWN = 8


def read_json(url: str, content: bytes, listed: Listed) -> None:
    """A `.json`: COCO's annotations, a list of objects, or {file name: caption or captions}."""
    try:
        value = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CaptionsError(f"{url} is no valid JSON: {error}") from error
    if isinstance(value, list) and value:
        _read_rows(url, _numbered(value), listed)
    elif not isinstance(value, dict):
        expected = "COCO annotations, objects with a file name, or {file name: caption}"
        raise CaptionsError(
            f"{url} holds {'an empty' if value == [] else 'a'} {type(value).__name__}; expected {expected}"
        )
    elif isinstance(value.get("images"), list) and isinstance(value.get("annotations"), list):
        _read_coco(url, value, listed)
    else:
        _read_mapping(url, value, listed)


def read_json_lines(url: str, content: bytes, listed: Listed) -> None:
    """A `.jsonl`: an object a line, as Hugging Face's metadata.jsonl."""

    def rows() -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(decode_text(content).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                listed.problems.append(f"{url}, line {number} is no valid JSON: {error}")

    _read_rows(url, rows(), listed)


def read_table(url: str, content: bytes, listed: Listed) -> None:
    """A `.csv` or `.tsv` with a header; commas, semicolons, tabs or bars between the cells."""
    csv.field_size_limit(_MAX_CSV_CELL_BYTES)
    text = decode_text(content)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    try:
        header = [cell.strip() for cell in next(reader, [])]
        names = {column.lower(): column for column in header}
        has_content = any(name in names for name in (*_CAPTION_FIELDS, *_LABEL_FIELDS))
        if not any(name in names for name in _FILE_FIELDS) or not has_content:
            raise CaptionsError(
                f"{url} has the columns {', '.join(names) or 'of an empty file'}; expected one of "
                f"{', '.join(_FILE_FIELDS)}, and caption, text or labels"
            )
        _read_rows(url, _table_rows(url, reader, header, listed), listed)
    except csv.Error as error:
        raise CaptionsError(f"{url}, line {reader.line_num}: {error}") from error


def tidy(name: str) -> str:
    """A file name without what stands in front of it on another machine: a web address with its query, a disk."""
    name = name.strip()
    if "://" in name:
        name = urlsplit(name).path
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")


def _delimiter(text: str) -> str:
    """What separates the header's cells: that with which one of them is a known file name's."""
    header = text.partition("\n")[0]
    for delimiter in _DELIMITERS:
        cells = [cell.strip().strip('"').lower() for cell in header.split(delimiter)]
        if len(cells) > 1 and any(cell in _FILE_FIELDS for cell in cells):
            return delimiter
    return _DELIMITERS[0]


def _table_rows(url: str, reader: Any, header: Sequence[str], listed: Listed) -> Iterator[tuple[str, dict[str, Any]]]:
    for cells in reader:
        if not cells:
            continue
        if len(cells) > len(header):
            message = f"{url}, line {reader.line_num} has more cells than the header; put text with commas in quotes"
            listed.problems.append(message)
            continue
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
        for name in row:
            if name.lower() in _LABEL_FIELDS:
                row[name] = [label for label in row[name].split(_LABELS_SEPARATOR) if label.strip()]
        yield f"line {reader.line_num}", row


def _numbered(values: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    yield from ((f"entry {number}", value) for number, value in enumerate(values, start=1))


def _read_rows(url: str, rows: Iterable[tuple[str, Any]], listed: Listed) -> None:
    """Objects that each name a file, and say something of it."""
    for where, row in rows:
        if not isinstance(row, Mapping):
            listed.problems.append(f"{url}, {where} is a {type(row).__name__}; expected an object with a file name")
            continue
        fields = {str(name).lower(): value for name, value in row.items()}
        column = next((name for name in _FILE_FIELDS if name in fields), None)
        name = fields.get(column) if column is not None else None
        if not isinstance(name, str) or not name:
            what = f"the column {column} is empty" if column is not None else f"there is no file name in {_shown(row)}"
            listed.problems.append(f"{url}, {where}: {what}")
            continue
        annotation = listed.of(tidy(name))
        for field in _CAPTION_FIELDS:
            for text in _texts(url, f"{where}: {field}", fields.get(field), listed):
                annotation.add_caption(text)
        for field in _LABEL_FIELDS:
            # Numbers of classes are no names.
            value = None if _is_number(fields.get(field)) else fields.get(field)
            for text in _texts(url, f"{where}: {field}", value, listed):
                annotation.add_label(text)


def _read_coco(url: str, value: Mapping[str, Any], listed: Listed) -> None:
    names: dict[Any, str] = {}
    for image in _objects(url, value, "images", listed):
        image_id, name = _id(image.get("id")), image.get("file_name")
        if image_id is None or not isinstance(name, str):
            listed.problems.append(
                f"{url}: an entry of images has keys {_shown(image)}; expected file_name, a text, and id"
            )
            continue
        names[image_id] = tidy(name)
        listed.of(names[image_id]).merge(
            Annotation(width=_pixels(image.get("width")), height=_pixels(image.get("height")))
        )
    categories = {
        _id(category.get("id")): category.get("name") or category.get("supercategory")
        for category in _objects(url, value, "categories", listed)
    }
    for entry in _objects(url, value, "annotations", listed):
        image_id = _id(entry.get("image_id"))
        if image_id is None:
            listed.problems.append(
                f"{url}: an annotation has keys {_shown(entry)}; expected image_id, a number or text"
            )
            continue
        annotation = listed.of(names.get(image_id, f"image {image_id} of {url}"))
        caption, category = entry.get("caption"), categories.get(_id(entry.get("category_id")))
        if isinstance(caption, str):
            annotation.add_caption(caption)
        if isinstance(category, str):
            annotation.add_label(category)
        if not isinstance(caption, str) and not isinstance(category, str):
            listed.problems.append(f"{url}: {_explain_annotation(entry)}")


def _explain_annotation(entry: Mapping[str, Any]) -> str:
    if entry.get("category_id") is not None:
        return f"an annotation names category {entry['category_id']!r}, which categories does not list with a name"
    if "caption" in entry:
        return f"an annotation's caption is {entry['caption']!r}; expected a text"
    return f"an annotation has keys {_shown(entry)}; expected caption or category_id"


def _read_mapping(url: str, value: Mapping[str, Any], listed: Listed) -> None:
    for name, captions in value.items():
        annotation = listed.of(tidy(name))
        for text in _texts(url, repr(name), captions, listed):
            annotation.add_caption(text)


def _texts(url: str, where: str, value: Any, listed: Listed) -> list[str]:
    """The texts of a value: a text, or a list of them; what is none is a problem."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    items = value if isinstance(value, list) else [value]
    if any(not isinstance(item, str) for item in items):
        expected = "expected a caption or list of captions"
        listed.problems.append(f"{url}, {where} has a {type(value).__name__} that is no text; {expected}")
    return [item for item in items if isinstance(item, str)]


def _objects(url: str, value: Mapping[str, Any], key: str, listed: Listed) -> Iterator[dict[str, Any]]:
    entries = value.get(key, [])
    if not isinstance(entries, list):
        raise CaptionsError(f"{url}: {key} is a {type(entries).__name__}; expected a list")
    for entry in entries:
        if isinstance(entry, dict):
            yield entry
        else:
            listed.problems.append(f"{url}: {key} holds a {type(entry).__name__}; expected objects")


def _id(value: Any) -> int | str | None:
    """An identifier, alike whether it was written as 1, 1.0 or "1"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, list) and all(map(_is_number, value)) and bool(value))


def _pixels(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _shown(entry: Mapping[str, Any]) -> str:
    return ", ".join(list(map(str, entry))[:_N_FIELDS_SHOWN]) or "none"
