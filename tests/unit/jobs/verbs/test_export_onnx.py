"""`tagstream export-onnx`: what it says, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer

from jobs.cli import tagstream
from jobs.demo.shipped import read_shipped
from model import Recognizer
from model.exporting import onnx_folder
from model.fingerprint import fingerprint_folder
from pipeline.errors import TagstreamError
from tests.fixtures.recognizers.hub_folders import save_hub_folder
from tests.fixtures.recognizers.onnx_runner import OnnxRunner


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tagstream, ["export-onnx", *map(str, arguments)], catch_exceptions=False)


def cells(table: list[str], graphs: str = "float32") -> dict[str, str]:
    """The row of these graphs in the table that is printed, by column."""
    header, _, *rows = [re.split(r"\s{2,}", line.strip()) for line in table]
    return next(dict(zip(header, row, strict=True)) for row in rows if row[0] == graphs)


def refusal(*arguments: str | Path) -> str:
    """The one sentence with which an export is refused."""
    with pytest.raises(TagstreamError) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.long
def test_a_model_is_written_and_checked(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "onnx"
    result = run(tiny_model, "--out", out, "--scenes", 2)
    assert result.exit_code == 0
    first, _, *table = result.output.splitlines()
    assert re.fullmatch(rf"Written: {re.escape(str(out))}, three graphs in float32, [\d.]+ MB", first)
    assert cells(table)["same labels"] == "2 scenes"
    assert json.loads((out / "manifest.json").read_text())["fingerprint"] == fingerprint_folder(tiny_model)
    assert [path.name for path in out.parent.iterdir()] == ["onnx"]


def test_a_folder_that_exists_is_left_alone(tiny_model: Path, tmp_path: Path) -> None:
    assert refusal(tiny_model, "--out", tmp_path) == f"{tmp_path} exists; name a new folder with --out"


def test_a_place_that_cannot_be_written_to_is_named(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "onnx"
    assert refusal(tiny_model, "--out", out).startswith(f"{out} cannot be written: ")


def test_a_missing_package_is_named(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_folder, "_NEEDED", ("onnx", "no_such_package"))
    message = refusal(tiny_model, "--out", tmp_path / "onnx")
    assert message.endswith("not installed: no_such_package; pip install 'tagstream[onnx]'")


def test_a_model_of_the_hub_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    message = refusal(save_hub_folder("llava", tmp_path / "llava"), "--out", tmp_path / "onnx")
    assert "export-onnx, train and truncate take NXTP recognizers" in message


@pytest.mark.long
def test_a_model_whose_positions_depend_on_values_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    recognizer = Recognizer.from_pretrained("demo", device="cpu")
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    recognizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["rope_parameters"] = rope
    path.write_text(json.dumps(config))
    message = refusal(path.parent, "--out", tmp_path / "onnx", "--scenes", 1)
    assert f"{path.parent} cannot be exported: torch" in message
    assert [found.name for found in tmp_path.iterdir()] == ["model"]


@pytest.mark.long
def test_the_demo_model_gives_the_same_labels_on_200_scenes(tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path / "onnx")
    found = cells(result.output.splitlines()[2:])
    assert float(found["logits differ by"]) < 1e-4
    assert (found["same labels"], found["first ten kept"]) == ("200 scenes", "2,000 of 2,000")


@pytest.mark.long
def test_the_demo_model_in_int8_finds_what_it_finds_in_float32(tmp_path: Path) -> None:
    result = run("demo", "--int8", "--out", tmp_path / "onnx", "--scenes", 50)
    table = result.output.splitlines()[2:]
    assert cells(table, "float32")["same labels"] == "50 scenes"
    n_kept, n_all = cells(table, "int8")["first ten kept"].split(" of ")
    assert n_all == "500"
    assert int(n_kept) > 450
    runner, tokenizer = OnnxRunner(tmp_path / "onnx"), Tokenizer.from_file(str(tmp_path / "onnx" / "tokenizer.json"))
    recognizer = Recognizer.from_pretrained("demo", device="cpu")
    scenes = read_shipped(3)
    crops = np.stack([recognizer.preprocessor.view(scene) for scene in scenes])
    found = [tokenizer.decode(labels[0][0]).strip() for labels in runner.sample(runner.prepare(crops), 5)]
    assert found == [labels[0].text for labels in recognizer.label(scenes, top_k=5)]
