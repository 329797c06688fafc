"""Which columns of a Parquet file are the image, the key, the caption and the truth."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from model.images.image_formats import SUFFIXES, format_of
from pipeline.errors import SourceError
from pipeline.sources.shard import ColumnNames

# In the order in which they are looked for; an exact spelling comes first.
_IMAGE_NAMES = ("bytes", "image", "image_bytes", "jpg", "jpeg", "png", "webp")
_KEY_NAMES = ("key", "__key__", "image_id", "id", "path", "file_name", "filename")
_CAPTION_NAMES = ("caption", "captions", "text", "txt")
_TRUTH_NAMES = ("labels", "label", "class", "category", "classes", "categories")
_OBJECTS, _CATEGORIES = "objects", ("category", "categories", "label", "labels")
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
_N_BASE64_CHARACTERS = 64
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)

Peek = Callable[[str], list[Any]]
"""The first values of a column."""


@dataclass(frozen=True, slots=True)
class TruthColumn:
    """Where a row's given labels are, and what they are called."""

    column: str
    field: str | None = None
    """Field of the column's objects that holds them; None where the column itself does."""
    names: tuple[str, ...] = ()
    """Names of the classes where the column holds their numbers."""

    def labels(self, value: Any) -> Any:
        """The labels in a column's value: a list, or None; what is no label stays as it is, for its reader to judge."""
        if self.field is not None:
            objects = value if isinstance(value, list) else [value or {}]
            found = [item for of_one in objects for item in _as_list((of_one or {}).get(self.field))]
            value = list(dict.fromkeys(found)) if value is not None else None
        if not self.names:
            return [value] if isinstance(value, str | bytes) else value
        # Hugging Face numbers what has no label -1.
        numbers = [number for number in _as_list(value) if isinstance(number, int) and number >= 0]
        known = [self.names[number] if number < len(self.names) else number for number in numbers]
        return known if value is not None and known else None


@dataclass(frozen=True, slots=True)
class FoundColumns:
    """What the columns of a file are taken for; None where the file has no such column."""

    image: str
    key: str | None
    caption: str | None
    truth: TruthColumn | None
    other_images: tuple[str, ...]
    """Further columns that hold images by their name or type. They are not read."""

    @property
    def sides(self) -> list[str]:
        """Names of the columns beside the image."""
        names = (self.key, self.caption, self.truth.column if self.truth is not None else None)
        return list(dict.fromkeys(name for name in names if name is not None and name != self.image))


def find_columns(schema: pa.Schema, file: str, given: ColumnNames, peek: Peek) -> FoundColumns:
    """What the columns of a file are.

    Args:
        file: what messages call it.
        given: columns that were asked for by name.

    Raises SourceError where no column holds images, or where one that was asked for cannot be what it was asked for.
    """
    features = _read_features(schema)
    images = _image_columns(schema, features, peek)
    if given.image is not None:
        _check(schema, file, "--image-column", given.image, _holds_images, "images as bytes")
        image = given.image
    elif images:
        image = images[0]
    else:
        raise SourceError(_explain_no_image(schema, file, peek))
    if given.key is not None:
        _check(schema, file, "--key-column", given.key, _is_key, "text or whole numbers")
    if given.caption is not None:
        _check(schema, file, "--caption-column", given.caption, _holds_texts, "text or lists of text")
    key = given.key or _named(schema, _KEY_NAMES, _is_key)
    caption = given.caption or _named(schema, _CAPTION_NAMES, _holds_texts)
    truth = _given_truth(schema, file, given.label, features) if given.label else _find_truth(schema, features)
    return FoundColumns(image, key, caption, truth, tuple(name for name in images if name != image))


def images_of(value: Any) -> Iterator[tuple[bytes | None, str | None]]:
    """Bytes and path of each image in a value of the image column; both are None where there is none."""
    for item in value if isinstance(value, list) else [value]:
        yield (item.get("bytes"), item.get("path")) if isinstance(item, dict) else (item, None)


def _image_columns(schema: pa.Schema, features: Mapping[str, Any], peek: Peek) -> list[str]:
    """Columns that hold images, the likeliest first; content is looked at where no name tells."""
    able = [field.name for field in schema if schema.names.count(field.name) == 1 and _holds_images(field.type)]
    named = [name for name in _IMAGE_NAMES if name in able]
    described = [name for name in able if _feature_type(_innermost(features.get(name))) == "Image"]
    spelled = [name for name in able if name.lower() in _IMAGE_NAMES]
    structs = [name for name in able if pa.types.is_struct(_item_type(schema.field(name).type))]
    found = list(dict.fromkeys((*named, *described, *spelled, *structs)))
    return found or [name for name in able if any(map(_looks_like_image, peek(name)))]


def _looks_like_image(value: Any) -> bool:
    return any(isinstance(data, bytes) and format_of(data) is not None for data, _ in images_of(value))


def _find_truth(schema: pa.Schema, features: Mapping[str, Any]) -> TruthColumn | None:
    """The column of given labels: texts, or numbers of classes that the file's description names."""
    by_name = [name for wanted in _TRUTH_NAMES for name in schema.names if name.lower() == wanted]
    described = [name for name in schema.names if _class_names(features.get(name))]
    for name in (*by_name, *described):
        if schema.names.count(name) == 1 and (truth := _truth_of(schema, name, features)) is not None:
            return truth
    return _truth_of(schema, _OBJECTS, features) if schema.names.count(_OBJECTS) == 1 else None


def _given_truth(schema: pa.Schema, file: str, name: str, features: Mapping[str, Any]) -> TruthColumn:
    _check(schema, file, "--label-column", name, lambda _: True, "labels")
    truth = _truth_of(schema, name, features)
    if truth is None:
        raise SourceError(
            f"the column {name} of {file} (--label-column) is {schema.field(name).type}; expected text, lists of text, "
            "or numbers of classes whose names Hugging Face's description of the file lists (ClassLabel)"
        )
    return truth


def _truth_of(schema: pa.Schema, name: str, features: Mapping[str, Any]) -> TruthColumn | None:
    data_type = schema.field(name).type
    if _holds_texts(data_type):
        return TruthColumn(name)
    if (names := _class_names(features.get(name))) and pa.types.is_integer(_item_type(data_type)):
        return TruthColumn(name, names=names)
    objects = _item_type(data_type)
    if not pa.types.is_struct(objects):
        return None
    for field in _CATEGORIES:
        if objects.get_field_index(field) < 0:
            continue
        described = _innermost(features.get(name))
        names = _class_names(described.get(field)) if isinstance(described, dict) else ()
        of_field = objects.field(field).type
        if _holds_texts(of_field):
            return TruthColumn(name, field)
        if names and pa.types.is_integer(_item_type(of_field)):
            return TruthColumn(name, field, names)
    return None


def _named(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    """The first column of these names that fits: exact spellings first, then others."""

    def is_one(name: str) -> bool:
        return schema.names.count(name) == 1 and fits(schema.field(name).type)

    exact = (name for name in names if is_one(name))
    spelled = (name for wanted in names for name in schema.names if name.lower() == wanted and is_one(name))
    return next(chain(exact, spelled), None)


def _check(
    schema: pa.Schema, file: str, option: str, name: str, fits: Callable[[pa.DataType], bool], expected: str
) -> None:
    if schema.names.count(name) != 1:
        count = "has no column" if name not in schema.names else "has more than one column"
        raise SourceError(f"{file} {count} {name} ({option}); it has {_listed(schema)}")
    if not fits(schema.field(name).type):
        raise SourceError(
            f"the column {name} of {file} ({option}) is {schema.field(name).type}; expected {expected}; the file has "
            f"{_listed(schema)}"
        )


def _explain_no_image(schema: pa.Schema, file: str, peek: Peek) -> str:
    """Why a file has no images, and what to do where its texts tell."""
    texts = [field.name for field in schema if schema.names.count(field.name) == 1 and _holds_texts(field.type)]
    for name in texts:
        for value in peek(name):
            if reason := _explain_text(name, value[0] if isinstance(value, list) and value else value):
                return f"{file} holds no images: {reason}; it has {_listed(schema)}"
    return (
        f"{file} has no image column; expected a binary column or the struct {{bytes, path}}, named "
        f"{' or '.join(_IMAGE_NAMES[:2])} or whose bytes begin like an image, or --image-column; it has "
        f"{_listed(schema)}"
    )


def _explain_text(name: str, text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    if text.startswith(("http://", "https://")):
        return (
            f"the column {name} holds web addresses, and tagstream downloads none; img2dataset does: img2dataset "
            f"--url_list FILE --input_format parquet --url_col {name} --output_format webdataset --output_folder FOLDER"
        )
    if _is_base64_image(text):
        return (
            f"the column {name} holds base64 text, and bytes are expected; write them with "
            f"pyarrow or pandas as base64.b64decode of the column"
        )
    if text.rpartition(".")[2].lower() in SUFFIXES:
        return (
            f"the column {name} names files ({text[:80]}); label the folder of these files, or write their bytes into "
            "a column"
        )
    return None


def _is_base64_image(text: str) -> bool:
    start = _DATA_URL.sub("", text[:200])[:_N_BASE64_CHARACTERS]
    try:
        return len(start) == _N_BASE64_CHARACTERS and format_of(base64.b64decode(start, validate=True)) is not None
    except (binascii.Error, ValueError):
        return False


def _read_features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's library says of the columns; empty where it says nothing that can be read."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _innermost(feature: Any) -> Any:
    """The feature of the items of a list of features, however deep."""
    while True:
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        else:
            return feature


def _feature_type(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _class_names(feature: Any) -> tuple[str, ...]:
    feature = _innermost(feature)
    names = feature.get("names") if _feature_type(feature) == "ClassLabel" else None
    is_texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names or ()) if is_texts else ()


def _item_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if any(is_kind(data_type) for is_kind in _LISTS) else data_type


def _holds_images(data_type: pa.DataType) -> bool:
    """Whether values are bytes, Hugging Face's struct with bytes, or lists of these."""
    data_type = _item_type(data_type)
    if pa.types.is_struct(data_type):
        return data_type.get_field_index("bytes") >= 0 and _is_bytes(data_type.field("bytes").type)
    return _is_bytes(data_type)


def _is_bytes(data_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(data_type):
        return _is_bytes(data_type.value_type)
    return any(is_kind(data_type) for is_kind in _BYTES)


def _is_text(data_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(data_type):
        return _is_text(data_type.value_type)
    return any(is_kind(data_type) for is_kind in _TEXTS)


def _holds_texts(data_type: pa.DataType) -> bool:
    return _is_text(_item_type(data_type))


def _is_key(data_type: pa.DataType) -> bool:
    return _is_text(data_type) or bool(pa.types.is_integer(data_type))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
