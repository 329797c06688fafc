"""Captions and labels of images from files that list them: COCO's annotations, plain JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import TagstreamError
from pipeline.storage.files import open_filesystem, storage_errors

_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
_CAPTION_COLUMNS = ("caption", "text")
_LABELS_COLUMN = "labels"
_LABELS_SEPARATOR = ";"
_MAX_CSV_CELL_BYTES = 16 << 20


class CaptionsError(TagstreamError):
    """A captions file that cannot be read or understood."""


@dataclass(slots=True)
class Annotation:
    """What is known of one image."""

    captions: list[str] = field(default_factory=list)
    """Captions in the order they were read, each on one line."""
    labels: set[str] = field(default_factory=set)
    width: int | None = None
    """Width of the image in pixels."""
    height: int | None = None
    """Height of the image in pixels."""

    @property
    def is_empty(self) -> bool:
        return not self.captions and not self.labels

    def add_caption(self, text: str) -> None:
        if one_line := " ".join(text.split()):
            self.captions.append(one_line)

    def add_label(self, text: str) -> None:
        if label := " ".join(text.split()):
            self.labels.add(label)

    def merge(self, other: Annotation) -> None:
        self.captions += other.captions
        self.labels |= other.labels
        self.width, self.height = self.width or other.width, self.height or other.height


Annotations = dict[str, Annotation]


def read_captions(urls: Iterable[str]) -> Annotations:
    """Annotations by file name as it is written, of all files together.

    Args:
        urls: `.json` in one of three forms (COCO captions; COCO instances, whose categories become labels; {file name:
            caption or list of captions}), or `.csv` with a header: a column file, filename, file_name, image or path,
            and caption or text, and/or labels separated by semicolons. A file may have many rows.

    Raises CaptionsError saying what was expected where; StoreError where a file cannot be opened.
    """
    annotations: Annotations = {}
    for url in urls:
        filesystem, path = open_filesystem(url)
        with storage_errors(f"read the captions {url}"):
            content = filesystem.cat_file(path)
        try:
            _read_file(url, content, annotations)
        except UnicodeDecodeError as error:
            raise CaptionsError(f"{url} is not UTF-8 text: {error}") from error
    return annotations


def match_files(annotations: Mapping[str, Annotation], files: Iterable[str]) -> tuple[Annotations, list[str]]:
    """Annotations by the file they belong to, and the names that belong to none.

    A name belongs to the file of that path, or else to the one file of which it is the end (`1.jpg` to `val/1.jpg`), or
    else to the longest that is its own end (`coco/val/1.jpg` to `val/1.jpg`). Names without a caption or label are not
    reported.

    Args:
        annotations: by file name.
        files: paths relative to the folder of images.

    Raises CaptionsError for a name that may be any of several files, and for a file that may have several names.
    """
    by_base: dict[str, list[str]] = {}
    for file in files:
        by_base.setdefault(posixpath.basename(file), []).append(file)
    matched: Annotations = {}
    names: dict[str, str] = {}
    unmatched = []
    for name, annotation in annotations.items():
        found = _files_named(name, by_base.get(posixpath.basename(name), []))
        if len(found) > 1:
            raise CaptionsError(f"{name} in the captions may be {found[0]} or {found[1]}; name files by their path")
        if found:
            other = names.setdefault(found[0], name)
            if not _is_end(name, other) and not _is_end(other, name):
                raise CaptionsError(f"{other} and {name} in the captions may both be {found[0]}; pack the folder above")
            matched.setdefault(found[0], Annotation()).merge(annotation)
        elif not annotation.is_empty:
            unmatched.append(name)
    return matched, unmatched


def _files_named(name: str, candidates: list[str]) -> list[str]:
    if name in candidates:
        return [name]
    longer = [file for file in candidates if _is_end(name, file)]
    shorter = [file for file in candidates if _is_end(file, name)]
    return longer or sorted(shorter, key=len)[-1:]


def _is_end(short: str, long: str) -> bool:
    return short == long or long.endswith("/" + short)


def _read_file(url: str, content: bytes, annotations: Annotations) -> None:
    if url.lower().endswith(".csv"):
        _read_csv(url, content.decode("utf-8-sig"), annotations)
        return
    if not url.lower().endswith(".json"):
        raise CaptionsError(f"{url} is neither .json nor .csv; expected COCO annotations, a JSON mapping or a CSV")
    try:
        value = json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CaptionsError(f"{url} is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CaptionsError(
            f"{url} holds a {type(value).__name__}; expected COCO annotations or {{file name: caption}}"
        )
    if isinstance(value.get("images"), list) and isinstance(value.get("annotations"), list):
        _read_coco(url, value, annotations)
    else:
        _read_mapping(url, value, annotations)


def _read_coco(url: str, value: Mapping[str, Any], annotations: Annotations) -> None:
    names: dict[Any, str] = {}
    for image in _objects(url, value, "images"):
        name = _tidy(_text(url, "images", image, "file_name"))
        names[_field(url, "images", image, "id")] = name
        known = annotations.setdefault(name, Annotation())
        known.merge(Annotation(width=_pixels(image.get("width")), height=_pixels(image.get("height"))))
    categories = {
        _field(url, "categories", category, "id"): _text(url, "categories", category, "name")
        for category in _objects(url, value, "categories")
    }
    for entry in _objects(url, value, "annotations"):
        image_id = _field(url, "annotations", entry, "image_id")
        annotation = annotations.setdefault(names.get(image_id, f"image {image_id} of {url}"), Annotation())
        if "caption" not in entry and "category_id" not in entry:
            raise CaptionsError(f"{url}: an annotation has keys {_shown(entry)}; expected caption or category_id")
        if "caption" in entry:
            annotation.add_caption(_text(url, "annotations", entry, "caption"))
        if "category_id" in entry:
            category_id = entry["category_id"]
            if category_id not in categories:
                raise CaptionsError(
                    f"{url}: an annotation names category {category_id!r}, which categories does not list"
                )
            annotation.add_label(categories[category_id])


def _read_mapping(url: str, value: Mapping[str, Any], annotations: Annotations) -> None:
    for name, captions in value.items():
        listed = [captions] if isinstance(captions, str) else captions
        if not isinstance(listed, list) or not all(isinstance(caption, str) for caption in listed):
            raise CaptionsError(
                f"{url}: {name!r} has a {type(captions).__name__}; expected a caption or list of captions"
            )
        annotation = annotations.setdefault(_tidy(name), Annotation())
        for caption in listed:
            annotation.add_caption(caption)


def _read_csv(url: str, content: str, annotations: Annotations) -> None:
    csv.field_size_limit(_MAX_CSV_CELL_BYTES)
    reader = csv.DictReader(io.StringIO(content, newline=""))
    try:
        header = {(column or "").strip().lower(): column for column in reader.fieldnames or ()}
        file_column = next((header[name] for name in _FILE_COLUMNS if name in header), None)
        caption_column = next((header[name] for name in _CAPTION_COLUMNS if name in header), None)
        labels_column = header.get(_LABELS_COLUMN)
        if file_column is None or (caption_column is None and labels_column is None):
            raise CaptionsError(
                f"{url} has the columns {', '.join(header) or 'of an empty file'}; expected one of "
                f"{', '.join(_FILE_COLUMNS)}, and caption, text or labels"
            )
        for row in reader:
            if None in row:
                raise CaptionsError(
                    f"{url}, line {reader.line_num} has more cells than the header; put text with commas in quotes"
                )
            if not row[file_column]:
                raise CaptionsError(f"{url}, line {reader.line_num}: the column {file_column} is empty")
            annotation = annotations.setdefault(_tidy(row[file_column]), Annotation())
            if caption_column is not None:
                annotation.add_caption(row[caption_column] or "")
            if labels_column is not None:
                for label in (row[labels_column] or "").split(_LABELS_SEPARATOR):
                    annotation.add_label(label)
    except csv.Error as error:
        raise CaptionsError(f"{url}, line {reader.line_num}: {error}") from error


def _tidy(name: str) -> str:
    return posixpath.normpath(name.strip().replace("\\", "/")).lstrip("/")


def _pixels(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _objects(url: str, value: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    entries = value.get(key, [])
    if not isinstance(entries, list):
        raise CaptionsError(f"{url}: {key} is a {type(entries).__name__}; expected a list")
    for entry in entries:
        if not isinstance(entry, dict):
            raise CaptionsError(f"{url}: {key} holds a {type(entry).__name__}; expected objects")
        yield entry


def _field(url: str, where: str, entry: Mapping[str, Any], key: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, int | str):
        raise CaptionsError(f"{url}: an entry of {where} has keys {_shown(entry)}; expected {key}, a number or text")
    return value


def _text(url: str, where: str, entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise CaptionsError(f"{url}: an entry of {where} has keys {_shown(entry)}; expected {key}, a text")
    return value


def _shown(entry: Mapping[str, Any]) -> str:
    return ", ".join(list(entry)[:8]) or "none"
