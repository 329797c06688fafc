"""`tagstream models`."""

from __future__ import annotations

import csv
import io
import json

from click.testing import CliRunner

from jobs.verbs.models import models
from model.fetching.known_models import known_models


def run(*arguments: str) -> str:
    result = CliRunner().invoke(models, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_first_model_is_one_that_anybody_may_use_and_the_last_line_labels_with_it() -> None:
    lines = run().splitlines()
    name, _, commercial, gated, *_ = lines[2].split()
    assert (commercial, gated) == ("yes", "no")
    assert lines[-1] == f"next: tagstream label SOURCE --store STORE --model {name}"


def test_what_is_not_known_is_a_question_mark_and_what_was_not_tried_is_told() -> None:
    shown = run()
    row = next(line for line in shown.splitlines() if line.startswith("google/gemma-4"))
    assert row.split()[3] == "?"
    assert "no model of this table was tried with its own weights" in shown
    assert "google/gemma-4-E2B-it needs more packages: pip install torchvision" in shown


def test_the_table_fits_a_screen() -> None:
    lines = run().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


def test_csv_and_json_have_all_that_is_known_of_every_model() -> None:
    rows = json.loads(run("--format", "json"))
    assert [row["name"] for row in rows] == [model.name for model in known_models()]
    assert rows[0] == {
        "name": "HuggingFaceTB/SmolVLM-256M-Instruct",
        "licence": "apache-2.0",
        "commercial": "yes",
        "architecture": "idefics3",
        "verified": "its architecture, with small random weights: labels as by an uncached forward pass; transformers "
        "5.23, CPU",
        "gated": False,
        "parameters": 256_000_000,
        "image_tokens": 64,
        "needs": "",
        "memory_bytes": 512_000_000,
    }
    table = list(csv.DictReader(io.StringIO(run("--format", "csv"))))
    assert table[0].keys() == rows[0].keys()
    assert len(table) == len(rows)
