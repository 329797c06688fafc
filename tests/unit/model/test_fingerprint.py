"""Fingerprints of recognizer folders: what makes two the same, and what does not."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.fingerprint import fingerprint_folder

DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "config.json": {"delimiter_id": 1, "text_config": {"hidden_size": 8}, "transformers_version": "5.10"},
    "preprocessor_config.json": {"image_size": 28},
    "tokenizer.json": {"model": {"vocab": {"größe": 1}}},
    "tokenizer_config.json": {"name_or_path": "/somewhere/else"},
}
WEIGHTS = {"model-00001-of-00002.safetensors": b"first", "model-00002-of-00002.safetensors": b"second"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a fingerprint is of, without a recognizer that works."""
    for name, description in DESCRIPTIONS.items():
        (tmp_path / name).write_text(json.dumps(description))
    for name, content in WEIGHTS.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def change(folder: Path, name: str, **values: Any) -> None:
    (folder / name).write_text(json.dumps({**DESCRIPTIONS[name], **values}))


def test_it_is_the_digest_of_weights_and_descriptions_that_stores_of_before_hold(folder: Path) -> None:
    digest = hashlib.sha256()
    for name, content in WEIGHTS.items():
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\0".encode())
    for name, text in {
        "config.json": '{"delimiter_id": 1, "text_config": {"hidden_size": 8}}',
        "preprocessor_config.json": '{"image_size": 28}',
        "tokenizer.json": '{"model": {"vocab": {"gr\\u00f6\\u00dfe": 1}}}',
        "tokenizer_config.json": "{}",
    }.items():
        digest.update(f"{name}\0{text}\0".encode())
    assert fingerprint_folder(folder) == digest.hexdigest()


class TestDifferent:
    """What decides labels makes another recognizer."""

    @pytest.mark.parametrize("name", WEIGHTS)
    def test_other_weights(self, folder: Path, name: str) -> None:
        before = fingerprint_folder(folder)
        (folder / name).write_bytes(WEIGHTS[name][:-1] + b"\0")
        assert fingerprint_folder(folder) != before

    def test_weights_that_lie_in_each_others_files(self, folder: Path) -> None:
        before = fingerprint_folder(folder)
        for name, content in zip(WEIGHTS, reversed(WEIGHTS.values()), strict=True):
            (folder / name).write_bytes(content)
        assert fingerprint_folder(folder) != before

    @pytest.mark.parametrize("name", [*WEIGHTS, *DESCRIPTIONS])
    def test_a_file_that_is_not_there(self, folder: Path, name: str) -> None:
        before = fingerprint_folder(folder)
        (folder / name).unlink()
        assert fingerprint_folder(folder) != before

    @pytest.mark.parametrize("name", DESCRIPTIONS)
    def test_another_value_in_a_description(self, folder: Path, name: str) -> None:
        before = fingerprint_folder(folder)
        change(folder, name, added=None)
        assert fingerprint_folder(folder) != before

    def test_another_value_within_a_part_of_a_description(self, folder: Path) -> None:
        before = fingerprint_folder(folder)
        change(folder, "config.json", text_config={"hidden_size": 16})
        assert fingerprint_folder(folder) != before


class TestSame:
    """What decides no label does not."""

    def test_another_place(self, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        copy = shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "model")
        assert fingerprint_folder(copy) == fingerprint_folder(str(folder)) == fingerprint_folder(folder)

    @pytest.mark.parametrize("name", ["README.md", "pytorch_model.bin", "training.json", "generation_config.json"])
    def test_other_files_beside_it(self, folder: Path, name: str) -> None:
        before = fingerprint_folder(folder)
        (folder / name).write_text("{}")
        assert fingerprint_folder(folder) == before

    @pytest.mark.parametrize("name", ["transformers_version", "_name_or_path", "name_or_path"])
    @pytest.mark.parametrize("is_within", [False, True])
    def test_who_wrote_it(self, folder: Path, name: str, is_within: bool) -> None:
        before = fingerprint_folder(folder)
        written = {name: "another"}
        change(folder, "config.json", **({"text_config": {"hidden_size": 8, **written}} if is_within else written))
        assert fingerprint_folder(folder) == before

    def test_another_layout_of_the_same_values(self, folder: Path) -> None:
        before = fingerprint_folder(folder)
        turned = dict(reversed(DESCRIPTIONS["config.json"].items()))
        (folder / "config.json").write_text(json.dumps(turned, indent=2, ensure_ascii=False))
        assert fingerprint_folder(folder) == before


class TestHubModels:
    """Models of the hub have more files that decide labels."""

    @pytest.fixture
    def hub_folder(self, folder: Path) -> Path:
        change(folder, "config.json", model_type="qwen3_vl")
        return folder

    @pytest.mark.parametrize("name", ["processor_config.json", "generation_config.json", "vocab.json"])
    def test_another_description_makes_another_model(self, hub_folder: Path, name: str) -> None:
        (hub_folder / name).write_text(json.dumps({"eos_token_id": 1}))
        before = fingerprint_folder(hub_folder)
        (hub_folder / name).write_text(json.dumps({"eos_token_id": 2}))
        assert fingerprint_folder(hub_folder) != before

    @pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.model", "merges.txt"])
    def test_another_file_of_text_makes_another_model(self, hub_folder: Path, name: str) -> None:
        (hub_folder / name).write_text("{{ bos_token }}")
        before = fingerprint_folder(hub_folder)
        (hub_folder / name).write_text("{{ eos_token }}")
        assert fingerprint_folder(hub_folder) != before

    def test_how_videos_are_taken_decides_nothing(self, hub_folder: Path) -> None:
        before = fingerprint_folder(hub_folder)
        (hub_folder / "video_preprocessor_config.json").write_text("{}")
        assert fingerprint_folder(hub_folder) == before

    def test_of_a_recognizer_of_ours_such_files_decide_nothing(self, folder: Path) -> None:
        before = fingerprint_folder(folder)
        (folder / "generation_config.json").write_text("{}")
        assert fingerprint_folder(folder) == before

    def test_weights_in_the_hubs_cache_are_known_by_the_name_of_their_blob(self, hub_folder: Path) -> None:
        before = fingerprint_folder(hub_folder)
        name = next(iter(WEIGHTS))
        blob = hub_folder.parent / hashlib.sha256(WEIGHTS[name]).hexdigest()
        (hub_folder / name).rename(blob)
        (hub_folder / name).symlink_to(blob)
        blob.chmod(0)
        assert fingerprint_folder(hub_folder) == before

    def test_weights_behind_another_link_are_read(self, hub_folder: Path) -> None:
        before = fingerprint_folder(hub_folder)
        name = next(iter(WEIGHTS))
        elsewhere = hub_folder.parent / "weights"
        (hub_folder / name).rename(elsewhere)
        (hub_folder / name).symlink_to(elsewhere)
        assert fingerprint_folder(hub_folder) == before
        elsewhere.write_bytes(b"others")
        assert fingerprint_folder(hub_folder) != before
