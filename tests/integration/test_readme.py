"""What the README shows is true: its queries run, its settings exist, its commands are commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from jobs.cli import tagstream
from pipeline.catalog.connection import run_query
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.settings.labelling import LabelSettings
from pipeline.settings.toml_file import read_settings
from pipeline.training.settings import TrainSettings
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import LabelFunction

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_query_runs(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 1, 4)
    label_instantly(tmp_path / "source", tmp_path / "store")
    connection = open_store(str(tmp_path / "store"))
    queries = [query for block in blocks("sql") for query in block.split(";") if query.strip()]

    assert len(queries) >= 3
    for query in queries:
        assert run_query(connection, query).description


def test_every_setting_of_the_example_files_exists(tmp_path: Path) -> None:
    labelling, vocabulary, training = blocks("toml")
    labelling, training = tomllib.loads(labelling), tomllib.loads(training)
    (tmp_path / "mine.toml").write_text(vocabulary)
    assert read_vocabulary(tmp_path / "mine.toml").name_of("Automobiles") == "car"
    assert read_settings(LabelSettings, labelling, "the example") == LabelSettings()
    assert read_settings(TrainSettings, training, "the example").corruption.mask_share == 0.15


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"(?:`|bin/)tagstream ([a-z-]+)", README))))
def test_every_command_is_a_command(verb: str) -> None:
    assert verb in tagstream.commands


def test_the_head_of_the_readme_is_reached_from_elsewhere_and_by_those_with_its_token_alone() -> None:
    """Ray's own default listens on the loopback and asks for nothing; these are options of its commands."""
    from ray.scripts.scripts import get_auth_token, start

    found = re.search(
        r"^export RAY_AUTH_MODE=token;.* ray get-auth-token (\S+) .*\nray start (--head .*?) +#", README, re.M
    )
    assert found
    assert get_auth_token.make_context("get-auth-token", [found[1]]).params == {"generate": True}
    assert start.make_context("start", found[2].split()).params["dashboard_host"] == "0.0.0.0"


def test_every_flag_is_a_flag() -> None:
    known = {flag for command in tagstream.commands.values() for option in command.params for flag in option.opts}
    of_other_programs = {"--device", "--head", "--dashboard-host", "--generate", "--help"}
    assert set(re.findall(r"(?<=[ `])--[a-z][a-z-]+", README)) - of_other_programs - known == set()
