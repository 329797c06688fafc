"""What the README and the pages of the verbs show is true: queries run, settings exist, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from webdataset import WebDataset

from jobs.cli import tagstream
from model.hub.options import HubOptions
from pipeline.catalog.connection import run_query
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.settings.labelling import LabelSettings
from pipeline.settings.toml_file import read_settings
from pipeline.training.settings import TrainSettings
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import LabelFunction
from tests.fixtures.pages import PAGES, README, Shown, blocks, shown_commands

JOBS = ROOT / "jobs"
FOLDERS = sorted(path for path in ROOT.glob("*/README.md"))
COMMANDS = sorted({command for page in PAGES for command in shown_commands(page)})
TEXTS = {page: page.read_text("utf-8") for page in [*PAGES, *FOLDERS]}
# Files that options of the commands name.
FILES = {"label.toml", "larger.toml", "train.toml", "plan.json", "animals.txt", "mine.toml", "thresholds.toml"} | {
    "ckpt_epoch_03_iter_0021360.pth",
    "ViT-L-14.pt",
    "tokenizer.model",
}


def test_every_query_runs(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 1, 4)
    label_instantly(tmp_path / "source", tmp_path / "store")
    connection = open_store(str(tmp_path / "store"), run="latest")
    queries = [query for block in blocks(JOBS / "questions.md", "sql") for query in block.split(";") if query.strip()]

    assert len(queries) >= 3
    for query in queries:
        assert run_query(connection, query).description


def test_the_python_example_runs(
    label_instantly: LabelFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tars(tmp_path / "source", 1, 4)
    label_instantly(tmp_path / "source", tmp_path / "demo-store")
    scenes = WebDataset(str(JOBS / "demo" / "shards" / "scenes-00000.tar"), shardshuffle=False)
    (tmp_path / "scene.jpg").write_bytes(next(iter(scenes.slice(1, 2)))["jpg"])
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})

    # The scene is a shell.
    assert capsys.readouterr().out.startswith("[('shell', 0.9")


def test_every_setting_of_the_example_files_exists(tmp_path: Path) -> None:
    labelling, *examples = map(tomllib.loads, blocks(JOBS / "labelling.md", "toml"))
    (asking,) = map(tomllib.loads, blocks(JOBS / "models.md", "toml"))
    (training,) = map(tomllib.loads, blocks(JOBS / "training.md", "toml"))
    (vocabulary,) = blocks(JOBS / "questions.md", "toml")
    (tmp_path / "mine.toml").write_text(vocabulary)
    assert read_vocabulary(tmp_path / "mine.toml").name_of("Automobiles") == "car"
    assert read_settings(LabelSettings, labelling, "the example") == LabelSettings()
    assert [read_settings(LabelSettings, given, "the example") == LabelSettings() for given in examples] == [False]
    hub = HubOptions(image_options={"do_image_splitting": True})
    assert read_settings(LabelSettings, asking, "the example") == LabelSettings(hub=hub)
    assert read_settings(TrainSettings, training, "the example").corruption.picture_share == 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_typed(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).touch()
    verb, *arguments = shlex.split(command)
    tagstream.commands[verb].make_context(verb, arguments)


def test_commands_are_found_on_every_page_that_is_about_some() -> None:
    found = {page.name for page in PAGES if shown_commands(page)}
    assert found == {"README.md", "examples.md", "labelling.md", "models.md", "questions.md", "training.md"}


def test_every_verb_is_a_verb() -> None:
    told = {verb for text in TEXTS.values() for verb in re.findall(r"(?:`|bin/)tagstream ([a-z][a-z-]+)", text)}
    assert told - set(tagstream.commands) == set()
    assert len(told) >= 15


def test_every_verb_is_on_a_page() -> None:
    told = " ".join(TEXTS.values())
    assert [verb for verb in tagstream.commands if not re.search(rf"(?:`|tagstream ){verb}\b", told)] == []


def test_every_flag_is_a_flag() -> None:
    commands = [
        part
        for command in tagstream.commands.values()
        for part in (command.commands.values() if isinstance(command, click.Group) else [command])
    ]
    options = [option for command in commands for option in command.params]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    of_other_programs = {"--constraint", "--help", "--index-url", "--no-deps"}
    for page in PAGES:
        assert set(re.findall(r"(?<=[ `])--[a-z][a-z0-9-]+", TEXTS[page])) - of_other_programs - known == set(), page


def test_every_extra_is_an_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = {extra for text in TEXTS.values() for extra in re.findall(r"(?:\.|tagstream)\[([a-z-]+)\]", text)}
    assert told - set(extras) == set()
    assert {"cluster", "formats", "import-nxtp", "train"} <= told


def test_the_head_of_a_cluster_is_reached_from_elsewhere_and_by_those_with_its_token_alone() -> None:
    """Ray's own default listens on the loopback and asks for nothing; these are options of its commands."""
    from ray.scripts.scripts import get_auth_token, start

    found = re.search(
        r"^export RAY_AUTH_MODE=token;.* ray get-auth-token (\S+) .*\nray start (--head .*?) +#",
        TEXTS[ROOT / "infra" / "README.md"],
        re.M,
    )
    assert found
    assert get_auth_token.make_context("get-auth-token", [found[1]]).params == {"generate": True}
    assert start.make_context("start", found[2].split()).params["dashboard_host"] == "0.0.0.0"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: os.path.relpath(page, ROOT))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for address, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", TEXTS[page]):
        target = page.parent / address if address else page
        assert target.exists(), address
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}, address


@pytest.mark.parametrize(
    ("printed", "is_shown"),
    [
        ("run r: 2 images in 3.0 s\n\nlabel  score\n-----  -----\ndog    0.5\ncat    0.25\nowl    0.1\n", True),
        ("run r: 2 images in 9.9 s\nlabel  score\ndog    0.501\nowl    0.1\nmore\n", True),
        ("run r: 2 images in 3.0 s\nlabel  score\ndog    0.6\nowl    0.1\n", False),
        ("run r: 2 images in 3.0 s\nlabel  score\ncat    0.25\nowl    0.1\n", False),
        ("run r: 2 images in 3.0 s\nlabel  score\ndog    0.5\n", False),
        ("run r: 4 images in 3.0 s\nlabel  score\ndog    0.5\nowl    0.1\n", False),
        ("first\nrun r: 2 images in 3.0 s\nlabel  score\ndog    0.5\nowl    0.1\n", False),
    ],
)
def test_an_output_that_differs_from_what_is_shown_is_found(printed: str, is_shown: bool) -> None:
    lines = ("run r: 2 images in 3.0 s", "label  score", "-----  -----", "dog    0.5", "...", "owl    0.1")
    assert Shown("tagstream", lines).is_in(printed) is is_shown


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len(TEXTS[README].splitlines()) <= 200
