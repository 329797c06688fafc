"""What becomes of a verb's arguments when it is sent to a cluster."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from jobs.cli import tagstream
from jobs.sending.sent_command import SentCommand, prepare

STORE = ["--store", "s3://b/tags"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "label.toml").write_text("top_k = 5\n")
    (tmp_path / "mine.csv").write_text("automobile,car\n")
    (tmp_path / "list.txt").write_text("# shards\ns3://b/1.tar\n\n/shared/2.tar\n")
    (tmp_path / "local.txt").write_text("s3://b/1.tar\nshards/2.tar\n")
    (tmp_path / "my-model").mkdir()
    (tmp_path / "dog.jpg").touch()


def send(*arguments: str) -> SentCommand:
    with click.Context(tagstream, info_name="tagstream") as context:
        return prepare(tagstream.commands[arguments[0]], arguments[1:], context)


@pytest.mark.parametrize(
    "arguments",
    [
        ["label", "s3://b/{000..099}.tar", *STORE, "--model", "demo", "--top-k", "5"],
        ["label", "/shared/photos", "--store=/shared/tags", "--model", "someone/nxtp", "--verbose"],
        ["label", "@s3://b/list.txt", *STORE, "--model", "/shared/nxtp", "--config", "/shared/label.toml"],
        ["recall", "s3://b/tags", "--k", "1,10", "--by", "label"],
        ["train", "s3://b/t", "--val", "s3://b/v", "--out", "s3://b/m", "--preset", "demo", "--workers", "4"],
        ["explain", "000000000790", *STORE, "--out", "s3://b/dog.html"],
        ["sql", "s3://b/tags", "SELECT '@list.txt'", "--out", "/shared/labels.parquet"],
    ],
)
def test_what_means_the_same_on_the_cluster_is_sent_as_it_is(arguments: list[str]) -> None:
    assert send(*arguments) == SentCommand(arguments[1:], {})


def test_files_that_options_name_go_along_and_are_named_by_their_place_there() -> None:
    sent = send("label", "s3://b", *STORE, "--config", "label.toml")
    assert sent == SentCommand(
        ["s3://b", *STORE, "--config", "inputs/0/label.toml"], {"inputs/0/label.toml": Path("label.toml")}
    )


def test_files_behind_an_equals_sign_go_along_too(tmp_path: Path) -> None:
    sent = send("recall", "s3://b/tags", f"--vocabulary={tmp_path}/mine.csv")
    assert sent.arguments == ["s3://b/tags", "--vocabulary=inputs/0/mine.csv"]
    assert sent.files == {"inputs/0/mine.csv": tmp_path / "mine.csv"}


def test_a_list_of_shards_goes_along() -> None:
    sent = send("label", "@list.txt", *STORE, "--config", "label.toml")
    assert sent.arguments == ["@inputs/0/list.txt", *STORE, "--config", "inputs/1/label.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["label", "s3://b", *STORE, "--summary", "nightly.json"],
            "'--summary' is nightly.json, a path on this machine",
        ),
        (["label", "photos", *STORE], "'SOURCE...' is photos, a path on this machine, which the cluster does not see"),
        (["label", "s3://b/photos", *STORE, "--reuse", "tags"], "'--reuse' is tags, a path on this machine"),
        (["label", "s3://b", "photos", *STORE], "'SOURCE...' is photos, a path on this machine"),
        (["label", "s3://b", "--store", "./tags"], "'--store' is ./tags, a path on this machine"),
        (["label", "s3://b", *STORE, "--model", "my-model"], "'--model' is my-model, a path on this machine"),
        (["train", "s3://b", "--val", "v", "--out", "s3://m"], "'--val' is v, a path on this machine"),
        (["train", "s3://b", "--out", "m"], "'--out' is m, a path on this machine"),
        (["explain", "dog.jpg", "--out", "s3://b/dog.html"], "'IMAGE' is dog.jpg, a path on this machine"),
        (["demo"], "'--store' is demo-store, a path on this machine"),
        (["label", "@local.txt", *STORE], "local.txt lists shards/2.tar, a path on this machine"),
        (["label", "@nowhere.txt", *STORE], "there is no file nowhere.txt on this machine"),
        (["label", "s3://b", *STORE, "--config", "nowhere.toml"], "there is no file nowhere.toml on this machine"),
        (["label", "s3://b"], "Missing option '--store'"),
        (["label", *STORE], "Missing argument 'SOURCE...'"),
        (["label", "s3://b", *STORE, "--changed", "what"], "'what' is not one of"),
        (["label", "s3://b", *STORE, "--topk", "5"], "No such option"),
    ],
)
def test_what_cannot_work_there_is_refused_here(arguments: list[str], message: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        send(*arguments)
    assert message in refused.value.format_message()
