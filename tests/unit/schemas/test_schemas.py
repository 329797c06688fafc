"""What is promised of the files on disk."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from schemas import (
    DRAWN,
    IMAGES_OF_HASHES,
    LABELS_OF_VIEWS,
    LISTED,
    REUSE_ORDER,
    REVIEWS,
    SPELLINGS,
    ComparisonSummary,
    DriftSummary,
    JobRecord,
    JobSummary,
    LockRecord,
    RunRecord,
    content_hash,
    image_id,
)
from tests.fixtures.checkout import ROOT


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("images", IMAGES_OF_HASHES),
        ("labels", LABELS_OF_VIEWS),
        ("listed", LISTED),
        ("spellings", SPELLINGS),
        ("drawn", DRAWN),
        ("reviews", REVIEWS),
        ("reuse", REUSE_ORDER),
    ],
)
def test_the_readme_describes_every_column_with_its_type(title, schema):
    text = (ROOT / "schemas" / "README.md").read_text()
    section = text.split(f"## {title}:")[1].split("## ")[0]
    described = re.findall(r"^\| (\w+) \| ([\w<>]+) \|", section, re.MULTILINE)[1:]
    types = [(field.name, str(field.type).replace("item: ", "").replace("element: ", "")) for field in schema]
    assert described == types


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("Summary of a job", JobSummary),
        ("Summary of a comparison", ComparisonSummary),
        ("Summary of drift", DriftSummary),
    ],
)
def test_the_readme_describes_every_field_of_a_summary(title, kind):
    text = (ROOT / "schemas" / "README.md").read_text()
    section = text.split(f"## {title}")[1].split("## ")[0]
    described = re.findall(r"^\| (\w+) \| ([^|]+) \|", section, re.MULTILINE)[1:]
    assert described == [(field.name, str(field.type).replace(" | ", " or ")) for field in fields(kind)]


@pytest.mark.parametrize(
    ("shard", "key", "repetition", "pinned"),
    [
        ("a", "b", 0, -17643764250920285),
        ("train/00000", "größe", 0, -8984216159483697034),
        ("a", "b", 1, -1017436334517011497),
        ("", "", 0, -7712737833812065720),
    ],
)
def test_image_ids_stay_what_they_are(shard, key, repetition, pinned):
    # Pinned: a store that was written before must still be joined with one that is written later.
    assert image_id(shard, key, repetition) == pinned


def test_image_ids_tell_shards_keys_and_repetitions_apart():
    samples = [("a", "b"), ("ab", ""), ("", "ab"), ("b", "a"), ("a", "b", 1), ("a", "b", 2), ("a", "b1")]
    assert len({image_id(*sample) for sample in samples}) == len(samples)
    assert all(-(1 << 63) <= image_id(*sample) < 1 << 63 for sample in samples)


def test_a_content_hash_is_a_blake2b_of_the_bytes():
    assert content_hash(b"x") == "442a44457137672b3218c1007dc8f76a"


@pytest.mark.parametrize("kind", [RunRecord, JobRecord, LockRecord, JobSummary, ComparisonSummary, DriftSummary])
def test_a_record_survives_json_and_fields_of_a_newer_version(kind):
    samples = {"int": 3, "float": 0.5, "str": "text"}
    record = kind(**{field.name: samples.get(str(field.type), {"a": 1}) for field in fields(kind)})
    newer = record.to_json().replace("{", '{"field_of_tomorrow": 1,', 1)
    assert kind.from_json(newer) == record


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "{", "{}"])
def test_what_is_no_record_is_an_error(text):
    with pytest.raises((ValueError, TypeError)):
        RunRecord.from_json(text)
