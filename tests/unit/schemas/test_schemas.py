"""What is promised of the files on disk."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from schemas import IMAGES, LABELS, JobRecord, RunRecord, content_hash, image_id
from tests.conftest import ROOT


@pytest.mark.parametrize(("title", "schema"), [("images", IMAGES), ("labels", LABELS)])
def test_the_readme_describes_every_column_with_its_type(title, schema):
    text = (ROOT / "schemas" / "README.md").read_text()
    section = text.split(f"## {title}:")[1].split("## ")[0]
    described = re.findall(r"^\| (\w+) \| ([\w<>]+) \|", section, re.MULTILINE)[1:]
    types = [(field.name, str(field.type).replace("item: ", "").replace("element: ", "")) for field in schema]
    assert described == types


def test_image_ids_stay_what_they_are():
    # Pinned: a store that was written before must still be joined with one that is written later.
    assert image_id("a", "b") == -17643764250920285
    assert image_id("a", "b", 1) != image_id("a", "b")
    assert image_id("ab", "") != image_id("a", "b")


def test_a_content_hash_is_a_blake2b_of_the_bytes():
    assert content_hash(b"x") == "442a44457137672b3218c1007dc8f76a"


@pytest.mark.parametrize("kind", [RunRecord, JobRecord])
def test_a_record_survives_json_and_fields_of_a_newer_version(kind):
    samples = {"int": 3, "float": 0.5, "str": "text"}
    record = kind(**{field.name: samples.get(str(field.type), {"a": 1}) for field in fields(kind)})
    newer = record.to_json().replace("{", '{"field_of_tomorrow": 1,', 1)
    assert kind.from_json(newer) == record
