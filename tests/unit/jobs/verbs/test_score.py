"""`tagstream score`: a table for a handful of images."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.verbs.score import score


def test_every_image_is_scored_once_with_its_best_names_first(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\nrose\n")
    image = str(tmp_path / "a.png")
    Image.new("RGB", (40, 30), "red").save(image)
    arguments = [image, image, "--names", str(tmp_path / "names.txt"), "--top", "2", "--format", "csv"]
    rows = list(csv.DictReader(CliRunner().invoke(score, arguments, catch_exceptions=False).stdout.splitlines()))
    assert [(row["image"], row["rank"]) for row in rows] == [(image, "1"), (image, "2")]
    assert {row["name"] for row in rows} <= {"dog", "cat", "rose"}
    assert 1 > float(rows[0]["score"]) >= float(rows[1]["score"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "Missing argument 'IMAGES"), (["a.png"], "Missing option '--names'")]
)
def test_images_and_names_are_needed(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(score, arguments)
    assert (result.exit_code, message in result.output) == (2, True)
