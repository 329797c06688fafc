"""Names as others get to see them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from tests.unit.pipeline.export.conftest import ExportFunction

WORDS = replace(read_vocabulary(None), sensitive=frozenset({"dog"}), display={"de": {"tree": "Baum"}})


def names_of_first_image(folder: Path, table: str) -> list[str]:
    with (folder / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["name"] for row in rows if row["image_id"] == rows[0]["image_id"]]


def test_sensitive_names_are_left_out_of_labels_and_truth_and_counted(export: ExportFunction, tmp_path: Path) -> None:
    exported = export("csv", vocabulary=WORDS)
    assert names_of_first_image(tmp_path / "out", "labels") == ["tree"]
    assert names_of_first_image(tmp_path / "out", "truth") == ["cat"]
    assert exported.notes == ["2 labels with a sensitive name are left out"]


def test_names_are_written_in_the_language_that_is_asked_for(export: ExportFunction, tmp_path: Path) -> None:
    export("csv", vocabulary=replace(WORDS, sensitive=frozenset()), language="de")
    # A name that the language does not have stays as it is.
    assert names_of_first_image(tmp_path / "out", "labels") == ["dog", "Baum"]


def test_a_language_that_the_vocabulary_lacks_is_an_error_that_names_those_that_it_has(export: ExportFunction) -> None:
    with pytest.raises(TagstreamError, match=r"the language is fr, and the vocabulary default has names in de; add"):
        export("csv", vocabulary=WORDS, language="fr")
