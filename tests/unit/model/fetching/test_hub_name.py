"""Names of models on the hub."""

from __future__ import annotations

import pytest

from model.fetching.hub_name import HubFile, HubName

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-2B-Instruct", None),
        ("org/name@main", "org/name", "main"),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("org/name@refs/pr/7", "org/name", "refs/pr/7"),
        (f"org/name@{COMMIT}", "org/name", COMMIT),
    ],
)
def test_a_name_has_a_repository_and_perhaps_a_revision(text: str, repository: str, revision: str | None) -> None:
    name = HubName.parse(text)
    assert name == HubName(repository, revision)
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "demo",
        "nxtp",
        "./nxtp",
        "../up",
        "/models/nxtp",
        "a/b/c",
        "org/",
        "/name",
        "org/name@",
        "org/a b",
        "s3://b/m",
        "",
    ],
)
def test_other_texts_name_no_model_of_the_hub(text: str) -> None:
    assert HubName.parse(text) is None


@pytest.mark.parametrize(("revision", "pinned"), [(None, False), ("main", False), (COMMIT[:12], False), (COMMIT, True)])
def test_a_name_is_pinned_by_a_whole_commit(revision: str | None, pinned: bool) -> None:
    assert HubName("org/name", revision).is_pinned == pinned


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("org/name", HubFile(HubName("org/name"), "default")),
        ("org/name@v1", HubFile(HubName("org/name", "v1"), "default")),
        ("org/name/a.pth", HubFile(HubName("org/name"), "a.pth")),
        ("org/name@v1/a.pth", HubFile(HubName("org/name", "v1"), "a.pth")),
        ("a.pth", None),
        ("/models/a.pth", None),
        ("./models/a.pth", None),
    ],
)
def test_a_file_of_the_hub_is_named_behind_its_model(text: str, file: HubFile | None) -> None:
    assert HubFile.parse(text, "default") == file
