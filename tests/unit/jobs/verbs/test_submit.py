"""`tagstream submit` and `jobs`: what is theirs of a command line, and what is the verb's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from click.testing import CliRunner, Result

from jobs.cli import tagstream
from pipeline.cluster import submission
from pipeline.cluster.submission import Upload

VERB = ["label", "s3://b/shards", "--store", "s3://b/tags"]
ADDRESS = ["--address", "http://head:8265"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, Sequence[str]]]:
    """Addresses and commands of the jobs that were sent; none is."""
    sent: list[tuple[str | None, Sequence[str]]] = []

    class Cluster:
        def __init__(self, address: str | None) -> None:
            self.address = address

        def submit(self, name: str, command: Sequence[str], upload: Upload) -> tuple[str, int]:
            sent.append((self.address, command))
            return f"{name}-1", 1000

    monkeypatch.setattr(submission, "JobCluster", Cluster)
    return sent


def run(*arguments: str) -> Result:
    return CliRunner().invoke(tagstream, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [*ADDRESS, "--no-wait", *VERB],
        [*VERB, *ADDRESS, "--no-wait"],
        ["--no-wait", *VERB, "--address=http://head:8265"],
    ],
)
def test_the_address_may_stand_anywhere_and_is_not_the_verbs(
    sent: list[tuple[str | None, Sequence[str]]], arguments: list[str]
) -> None:
    result = run("submit", *arguments)
    assert result.stdout == "label-1\n"
    assert sent == [("http://head:8265", ["python", "-m", "jobs.cli", *VERB])]


def test_that_a_profile_is_not_sent_is_told(
    sent: list[tuple[str | None, Sequence[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    result = run("submit", *ADDRESS, "--no-wait", *VERB)
    assert "Note: the AWS profile mine is not sent" in result.stderr
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert "profile" not in run("submit", *ADDRESS, "--no-wait", *VERB).stderr


@pytest.mark.parametrize("verb", ["labels", "submit", "jobs"])
def test_what_is_no_verb_for_a_cluster_is_refused(sent: list[tuple[str | None, Sequence[str]]], verb: str) -> None:
    result = run("submit", verb)
    assert (result.exit_code, sent) == (2, [])
    assert f"there is no verb {verb} to run on a cluster" in result.stderr


@pytest.mark.parametrize("flag", ["--follow", "--stop"])
def test_following_and_stopping_need_the_id_of_a_job(flag: str) -> None:
    result = run("jobs", flag)
    assert result.exit_code == 2
    assert "expected its ID" in result.stderr
