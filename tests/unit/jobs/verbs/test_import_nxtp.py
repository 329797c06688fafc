"""`tagstream import-nxtp`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save

from jobs.verbs.import_nxtp import import_nxtp
from model import Recognizer
from tests.fixtures.recognizers.public_checkpoint import (
    openai_state_dict,
    trained_weights,
    write_checkpoint,
    write_tokenizer,
)
from tests.fixtures.servers.fake_hub import MEMBER, FakeHub, HubModel

LLAMA_PARAMS = {"dim": 128, "multiple_of": 256, "n_heads": 2, "n_layers": 2, "norm_eps": 1e-06, "vocab_size": -1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("public")
    processor = write_tokenizer(folder / "tokenizer.model")
    write_checkpoint(folder / "nxtp.pth", trained_weights(processor.vocab_size() + 2, processor.piece_to_id(",")))
    torch.save(openai_state_dict(), folder / "ViT.pt")
    names = {"--checkpoint": "nxtp.pth", "--clip": "ViT.pt", "--tokenizer": "tokenizer.model"}
    return [argument for option, name in names.items() for argument in (option, str(folder / name))]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(import_nxtp, [str(argument) for argument in arguments])


def test_it_writes_a_folder_that_labels(inputs: list[str], tmp_path: Path) -> None:
    run(*inputs, "--out", tmp_path / "model")
    recognizer = Recognizer.from_pretrained(tmp_path / "model", device="cpu")
    assert recognizer.label_pixels(torch.zeros(1, 3, 8, 8), keep_unfinished=True)[0]


def test_it_says_what_it_wrote_and_what_comes_next(inputs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = run(*inputs, "--out", out)
    recognizer = Recognizer.from_pretrained(out, device="cpu")
    n_parameters = sum(weights.numel() for weights in recognizer.module.parameters())
    assert result.exit_code == 0
    assert f"wrote {out}: {n_parameters:,} parameters in float16" in result.output
    assert str(recognizer.config.prompt_ids) in result.output
    assert "CC-BY-NC-4.0" in result.output
    assert result.output.endswith(f"next: tagstream label SOURCE --store STORE --model {out}\n")


def test_it_leaves_nothing_but_the_folder(inputs: list[str], tmp_path: Path) -> None:
    run(*inputs, "--out", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_folder_is_written_to(inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert run(*inputs, "--out", tmp_path / "model").exit_code == 0


def test_a_folder_that_holds_something_is_left_alone(inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("kept")
    result = run(*inputs, "--out", tmp_path)
    assert (result.exit_code, [path.name for path in tmp_path.iterdir()]) == (1, ["precious.txt"])
    assert "is not empty" in result.output


def test_eps_and_heads_are_read_from_params(inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(LLAMA_PARAMS))
    run(*inputs, "--params", tmp_path / "params.json", "--out", tmp_path / "model")
    text = Recognizer.from_pretrained(tmp_path / "model", device="cpu").config.text_config
    assert (text.rms_norm_eps, text.num_attention_heads) == (1e-06, 2)


def test_eps_can_be_given_without_params(inputs: list[str], tmp_path: Path) -> None:
    run(*inputs, "--rms-norm-eps", "1e-6", "--out", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["text_config"]["rms_norm_eps"] == 1e-06


def test_eps_given_twice_is_wrong_usage(inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(LLAMA_PARAMS))
    result = run(*inputs, "--params", tmp_path / "params.json", "--rms-norm-eps", "1e-6", "--out", tmp_path / "model")
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no params.json of Llama's"),
        ("[]", "is no params.json of Llama's"),
        ('{"n_heads": 32}', "norm_eps"),
        ('{"n_heads": "32", "norm_eps": 1e-5}', "expected a whole number"),
        (json.dumps(LLAMA_PARAMS | {"dim": 8192}), "8192 wide, the checkpoint's decoder is 128 wide"),
    ],
    ids=["broken", "list", "without eps", "text", "another Llama"],
)
def test_params_that_do_not_fit_are_refused(inputs: list[str], tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "params.json").write_text(content)
    result = run(*inputs, "--params", tmp_path / "params.json", "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert message in result.output


def test_a_failed_import_leaves_nothing(inputs: list[str], tmp_path: Path) -> None:
    run(*inputs, "--checkpoint", inputs[3], "--out", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_none_fails_with_the_reason(inputs: list[str], tmp_path: Path) -> None:
    result = run(*inputs, "--checkpoint", inputs[3], "--out", tmp_path / "model")
    assert (result.exit_code, result.output.startswith("Error: ")) == (1, True)
    assert "expected 'model', a dict of weights" in result.output


def test_without_sentencepiece_it_names_the_extra(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    result = run(*inputs, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert "pip install 'tagstream[import-nxtp]'" in result.output


def hub_models(inputs: list[str]) -> dict[str, HubModel]:
    """The three parts where the hub has them; the tokenizer is gated."""
    checkpoint, clip, tokenizer = (Path(path).read_bytes() for path in inputs[1::2])
    return {
        "kaiyuyue/nxtp": HubModel({"ckpt_epoch_03_iter_1656549.pth": checkpoint, "README.md": b"?"}),
        "someone/clip": HubModel({"ViT.pt": clip}),
        "meta-llama/Llama-2-7b-hf": HubModel({"tokenizer.model": tokenizer}, gated=True),
    }


class TestPartsOfTheHub:
    """Each part may be on the hub."""

    def test_they_are_fetched_for_those_who_may_have_them(
        self, inputs: list[str], hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.models = hub_models(inputs)
        monkeypatch.setenv("HF_TOKEN", MEMBER)
        result = run("--clip", "someone/clip/ViT.pt", "--out", tmp_path / "model")
        assert result.exit_code == 0
        assert "fetching kaiyuyue/nxtp/ckpt_epoch_03_iter_1656549.pth of the hub" in result.stderr
        assert Recognizer.from_pretrained(tmp_path / "model", device="cpu", dtype="stored").dtype == torch.float16

    def test_a_folder_of_clip_is_read_where_it_was_fetched_to(
        self, inputs: list[str], hub: FakeHub, tmp_path: Path
    ) -> None:
        hub.models = {"openai/clip-vit-large-patch14": HubModel({"model.safetensors": save({"?": torch.zeros(1)})})}
        result = run(*inputs[:2], *inputs[4:], "--out", tmp_path / "model")
        assert result.exit_code == 1
        assert "weight vision_encoder.positional_embedding" in result.output

    def test_the_gate_is_told_before_anything_large_is_fetched(
        self, inputs: list[str], hub: FakeHub, tmp_path: Path
    ) -> None:
        hub.models = hub_models(inputs)
        result = run("--out", tmp_path / "model")
        assert result.exit_code == 1
        assert (
            "Error: meta-llama/Llama-2-7b-hf is gated; accept its licence at "
            f"{hub.url}/meta-llama/Llama-2-7b-hf and set HF_TOKEN to a token of that account"
        ) in result.output
        assert not hub.sent

    def test_without_sentencepiece_nothing_large_is_fetched(
        self, inputs: list[str], hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.models = hub_models(inputs)
        monkeypatch.setenv("HF_TOKEN", MEMBER)
        monkeypatch.setitem(sys.modules, "sentencepiece", None)
        assert "pip install 'tagstream[import-nxtp]'" in run("--out", tmp_path / "model").output
        assert list(hub.sent) == ["tokenizer.model"]

    def test_a_file_that_the_repository_does_not_have_is_told_with_those_it_has(
        self, inputs: list[str], hub: FakeHub, tmp_path: Path
    ) -> None:
        hub.models = hub_models(inputs)
        result = run(*inputs, "--checkpoint", "kaiyuyue/nxtp/ckpt.pth", "--out", tmp_path / "model")
        expected = "kaiyuyue/nxtp has no file ckpt.pth; its files are README.md, ckpt_epoch_03_iter_1656549.pth"
        assert (result.exit_code, expected in result.output) == (1, True)

    def test_what_is_neither_here_nor_a_name_of_the_hub_is_wrong_usage(self, inputs: list[str], tmp_path: Path) -> None:
        result = run(*inputs, "--checkpoint", "nxtp.pth", "--out", tmp_path / "model")
        assert result.exit_code == 2
        assert "Invalid value for --checkpoint: there is no nxtp.pth; expected a file on this machine" in result.output


def test_its_help_fits_a_screen_and_shows_an_example() -> None:
    result = CliRunner().invoke(import_nxtp, ["--help"], terminal_width=80)
    assert len(result.output.splitlines()) <= 40
    assert "tagstream import-nxtp --checkpoint" in result.output
