"""Taggers of every kind: what loads them, and what is known of them without their weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import Recognizer
from model.folder import resolve_folder
from model.hub.options import HubOptions
from model.hub.recognizer import HubRecognizer
from model.tagger import load_name_tokens, load_tagger, measure_image_cost
from tests.fixtures.checkout import ROOT
from tests.fixtures.recognizers.hub_folders import save_hub_folder, tokenizer


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_hub_folder("llava", tmp_path_factory.mktemp("llava") / "model")


@pytest.fixture(scope="module")
def folders(llava: Path) -> dict[str, Path]:
    return {"nxtp": resolve_folder("demo"), "hub": llava}


@pytest.mark.parametrize(("kind", "cls"), [("nxtp", Recognizer), ("hub", HubRecognizer)])
def test_a_folder_is_loaded_as_the_kind_that_it_is(folders: dict[str, Path], kind: str, cls: type) -> None:
    assert isinstance(load_tagger(folders[kind], "cpu"), cls)


@pytest.mark.parametrize(("kind", "names"), [("nxtp", ["heart", "cat"]), ("hub", ["dog", "hot air balloon"])])
def test_labels_and_scores_come_from_one_prefix_and_are_those_of_each_alone(
    folders: dict[str, Path], kind: str, names: list[str]
) -> None:
    tagger = load_tagger(folders[kind], "cpu", "float32")
    pictures = [np.random.default_rng(seed).integers(0, 256, (80, 120, 3), dtype=np.uint8) for seed in range(2)]
    prepared = tagger.prepare([tagger.preprocessor.view(Image.fromarray(picture)) for picture in pictures])
    listed = tagger.list_names([[name] for name in names], 2)
    options = {"sampling": "one_shot", "max_label_tokens": 4}
    both = tagger.sample(prepared, 3, names=[listed], **options)
    labels_alone = tagger.rank(tagger.sample(prepared, 3, **options), "prob", keep_unfinished=True)
    (scores_alone,) = tagger.score_prepared(prepared, [listed])

    assert tagger.rank(both, "prob", keep_unfinished=True) == labels_alone
    assert torch.equal(both.listed[0], scores_alone)
    assert scores_alone.shape == (2, len(names))
    assert bool((scores_alone < 0).all())


@torch.inference_mode()
def test_a_hub_models_score_is_that_of_plain_passes_over_the_name_with_and_without_a_capital(llava: Path) -> None:
    recognizer = HubRecognizer.from_pretrained(llava)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    inputs = recognizer.prepare([recognizer.preprocessor.view(picture)])
    n_prompt, closing = inputs["input_ids"].shape[1], recognizer._tokens.closing_ids
    expected = []
    for written in ("dog", "Dog"):
        ids = recognizer.prompt.label_ids(tokenizer(), written)
        whole = torch.cat((inputs["input_ids"], torch.tensor([ids])), dim=1)
        longer = {**inputs, "input_ids": whole, "attention_mask": torch.ones_like(whole)}
        following = recognizer.model(**longer).logits[0, n_prompt - 1 :].log_softmax(-1)
        of_ids = sum(float(following[place, token]) for place, token in enumerate(ids))
        expected.append(of_ids + float(following[len(ids), closing].logsumexp(0)))
    (score,) = recognizer.score([picture], ["dog"])[0].tolist()
    assert score == pytest.approx(float(torch.tensor(expected).logsumexp(0)), rel=1e-4)


def test_tokens_of_names_are_known_without_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    without = shutil.copytree(folders["hub"], tmp_path / "without")
    (without / "model.safetensors").unlink()
    ids = load_name_tokens(without, HubOptions())("hot air balloon")
    assert tokenizer().decode(ids) == " hot air balloon"
    assert load_name_tokens(folders["nxtp"], HubOptions())("heart")


@pytest.mark.parametrize(
    ("name", "reason"), [("salt, pepper", "holds ',', which ends a label"), ("größe", "is read as")]
)
def test_a_name_that_a_hub_model_cannot_write_is_refused(llava: Path, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        load_name_tokens(llava, HubOptions())(name)


def test_what_a_photograph_costs_is_known_without_weights(llava: Path) -> None:
    cost = measure_image_cost(llava, HubOptions())
    assert (cost.n_tokens, cost.image_options) == (16, {})


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["nothing", "spins", "policy"],
)
def test_threads_of_torch_hardly_spin_where_nobody_says_how_they_wait(given: dict[str, str], spins: str) -> None:
    said = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in said}
    program = "import model, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment | given, capture_output=True, text=True, check=True)
    assert done.stdout == f"{spins} False\n"


@pytest.mark.parametrize(("architecture", "expected"), [("llava", True), ("paligemma", True), ("qwen3_vl", False)])
def test_models_with_a_square_view_are_told_from_those_that_take_any_shape(
    tmp_path: Path, architecture: str, expected: bool
) -> None:
    folder = save_hub_folder(architecture, tmp_path / "model")
    assert measure_image_cost(folder, HubOptions()).sees_squares is expected
