"""Every `tagstream` command in infra/ is one that can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
import yaml

from jobs.cli import tagstream
from tests.fixtures.infra import INFRA, ROOT, build_example, strings


def commands() -> Iterator[str]:
    """What follows `tagstream` in the manifests, the examples and the page about them."""
    for manifest in build_example().values():
        for text in strings(manifest):
            yield from re.findall(r"^tagstream (.+)$", text.replace("\\\n", " "), re.MULTILINE)
    for service in yaml.safe_load((INFRA / "compose.yaml").read_text())["services"].values():
        # Where it is not said otherwise the image's entrypoint runs.
        if service.get("image", "").startswith("tagstream:") and "entrypoint" not in service:
            yield shlex.join(service["command"])
    for path in (INFRA / "schedule").iterdir():
        yield from re.findall(r"bin/tagstream (.+?)(?: > .*)?$", path.read_text().replace("\\\n", " "), re.MULTILINE)
    page = (INFRA / "README.md").read_text().replace("\\\n", " ")
    yield from re.findall(r"^(?:tagstream|docker run .*example.org/tagstream:\S+) (.+)$", page, re.MULTILINE)


COMMANDS = sorted(set(commands()))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_is_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Files that options name have to exist: from the root of the repository, or as they are mounted.
    monkeypatch.chdir(ROOT)
    whole = re.sub(r"\$\{\w+:\+(.*?)\}", r"\1", command)
    words = shlex.split(whole.replace("/etc/tagstream/", "infra/k8s/base/"))
    if words[0] == "submit":
        # Sends the command that follows it.
        words = words[1:]
    verb, *arguments = words
    tagstream.commands[verb].make_context(verb, arguments)


def test_every_labelling_command_names_a_model() -> None:
    """Without one the demo's would label, which knows pictograms."""
    labelling = [command for command in COMMANDS if re.match(r"(submit )?label ", command)]
    assert len(labelling) >= 5
    # compose.yaml labels the demo's scenes.
    without = [words for words in map(shlex.split, labelling) if "--model" not in words]
    assert [words[2] for words in without] == ["s3://tagstream/shards"]


def test_the_commands_are_found_everywhere() -> None:
    verbs = [shlex.split(command)[0] for command in COMMANDS]
    # A RayJob, the nightly job, cron and systemd, at the least.
    assert verbs.count("label") >= 4
    assert {"submit", "train"} <= set(verbs)


def test_a_flag_that_does_not_exist_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        tagstream.commands["label"].make_context("label", ["shards", "--store", "tags", "--max-rejects", "1"])
