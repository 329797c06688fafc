"""The command as a user meets it: output, mistakes, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobs.cli import tagstream as group
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.pages import README, shown_outputs
from tests.fixtures.processes.commands import RunFunction


def test_the_demo_labels_prints_rows_answers_sql_and_makes_a_report_and_status_and_the_readme_tell_the_same(
    tagstream: RunFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tagstream("demo", "--store", "demo-store")
    # k, images, recall, hit
    measured = re.findall(r"^ *(1|10) +200 +(0\.\d+) +(0\.\d+|1)$", result.stdout, re.MULTILINE)

    assert result.returncode == 0, result.stderr
    assert "Labelled 200 images in 4 shards" in result.stdout
    assert "scene-000000" in result.stdout
    (_, _, hit_at_1), (_, recall_at_10, _) = measured
    # 0.98 and 0.95 on 2,000 scenes; 200 scatter by 0.02.
    assert float(hit_at_1) >= 0.93
    assert float(recall_at_10) >= 0.9
    assert "200 pictures, 1.6 MB; open demo-store.html" in result.stdout
    assert (tmp_path / "demo-store.html").is_file()
    assert "Next" in result.stdout
    assert "ray" not in result.stderr.lower()

    # What it labelled, status and sql tell alike.
    status = tagstream("status", "demo-store")
    counted = tagstream("sql", "demo-store", "SELECT count(*) AS n FROM labels", "--format", "json")
    assert (status.returncode, counted.returncode) == (0, 0), status.stderr + counted.stderr
    assert "200 = 200 labelled + 0 rejected, in 4 shards" in status.stdout
    assert f"{json.loads(counted.stdout)[0]['n']:,} labels" in result.stdout

    # What the README shows, the store answers.
    demo, *questions = shown_outputs(README)
    assert demo.command == "make demo"
    assert demo.is_in(result.stdout)
    assert len(questions) >= 2
    monkeypatch.chdir(tmp_path)
    for shown in questions:
        answer = CliRunner().invoke(group, shlex.split(shown.command)[1:])
        assert shown.is_in(answer.stdout), f"{shown.command}\n{answer.output}"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["label", "nowhere", "--store", "store"], 1, "nowhere does not exist"),
        (["label", ".", "--store", "store", "--model", "no-model"], 1, "there is no"),
        (["label", "source"], 2, "Missing option '--store'"),
        (["label", "source", "--store", "store", "--top-k", "0"], 1, "top_k is 0; expected 1 to 200"),
        (["label", "source", "--store", "store", "--changed", "maybe"], 2, "'maybe' is not one of"),
        (["label", "source", "--store", "store", "--config", "bad.toml"], 1, "unknown setting 'topk'"),
        (["status", "nowhere"], 1, "there is no store at nowhere"),
        (["sql", "nowhere", "SELECT 1"], 1, "there is no store at nowhere"),
        (["lable"], 2, "No such command 'lable'"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(
    main: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    write_tars(tmp_path / "source", 1, 1)
    (tmp_path / "bad.toml").write_text("topk = 5\n")
    monkeypatch.chdir(tmp_path)
    # In this process: a process of its own spends five seconds on imports before it answers.
    monkeypatch.setattr(sys, "argv", ["tagstream", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    errors = capsys.readouterr().err

    assert exit_info.value.code == code
    assert sentence in errors
    assert "Traceback" not in errors


@pytest.mark.long
def test_it_labels_where_files_are_called_like_its_packages_and_temporary_files_lie_deep(tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 1, 2)
    here, deep, store = tmp_path / "here", tmp_path / ("scratch" * 12), tmp_path / "label=cat" / "run=x" / "store"
    for folder in (here, deep):
        folder.mkdir()
    for name in ("model", "pipeline", "jobs", "schemas", "utils"):
        (here / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user was imported')")

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        # The working directory is on the path twice: by -m, and as people set it.
        environment = {**os.environ, "TMPDIR": str(deep), "PYTHONPATH": f"{ROOT}{os.pathsep}."}
        command = [sys.executable, "-m", "tagstream", *map(str, words)]
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)

    # On Ray, whose workers import them too, and whose sockets have short paths.
    labelled = run("label", tmp_path / "source", "--store", store, "--top-k", 1, "--address", "local")
    assert labelled.returncode == 0, labelled.stderr
    assert "Labelled 2 images" in labelled.stdout
    counted = run(
        "sql", store, "SELECT count(*) AS n FROM labels WHERE label <> 'cat' AND run <> 'x'", "--format", "csv"
    )
    assert counted.stdout == "n\n2\n", counted.stderr


def test_the_installed_command_shows_its_help(tagstream: RunFunction) -> None:
    result = tagstream("--help")

    assert result.returncode == 0
    assert "tagstream label s3://bucket/shards --store STORE" in result.stdout


@pytest.mark.parametrize("verb", ["", *group.list_commands(click.Context(group))])
def test_help_fits_a_screen_and_shows_an_example(verb: str) -> None:
    result = CliRunner().invoke(group, [*filter(None, [verb]), "--help"], prog_name="tagstream", terminal_width=80)

    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) <= 45
    assert f"  tagstream {verb}" in result.stdout
