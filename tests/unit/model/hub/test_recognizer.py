"""Models of the hub as recognizers: folder in, labels out."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.hub.inputs import few_tokens
from model.hub.options import HubOptions
from model.hub.recognizer import HubRecognizer
from model.sampling import SampledBatch
from tests.fixtures.recognizers.hub_folders import tokenizer

FindFolder = Callable[[str], Path]
Load = Callable[[str], HubRecognizer]
SIZES = [(56, 56), (120, 40), (48, 100)]


def picture(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "model"))


@pytest.mark.parametrize("architecture", ["llava", "paligemma", "qwen3_vl"])
def test_a_folder_becomes_a_recognizer_that_labels_pictures_of_any_shape(hub_recognizer: Load, architecture: str):
    recognizer = hub_recognizer(architecture)
    images = [picture(seed, size) for seed, size in enumerate(SIZES)]
    labels = recognizer.label(images, top_k=5, keep_unfinished=True)
    assert len(labels) == len(images)
    assert any(labels)
    for image in labels:
        scores = [label.score for label in image if label.finished]
        assert scores == sorted(scores, reverse=True)
    assert recognizer.branch_choice.is_shared


@pytest.mark.parametrize("architecture", ["llava", "qwen3_vl"])
def test_an_images_labels_do_not_depend_on_its_neighbours(hub_recognizer: Load, architecture: str):
    recognizer = hub_recognizer(architecture)
    images = [picture(seed, size) for seed, size in enumerate(SIZES)]
    together = recognizer.label(images, top_k=5, keep_unfinished=True)
    for image, labels in zip(images, together, strict=True):
        (alone,) = recognizer.label([image], top_k=5, keep_unfinished=True)
        assert [label.token_ids for label in alone] == [label.token_ids for label in labels]
        assert [label.score for label in alone] == pytest.approx([label.score for label in labels], rel=1e-4)


def test_bytes_are_labelled_as_the_image_that_they_hold(hub_recognizer: Load):
    recognizer = hub_recognizer("llava")
    assert recognizer.label([png(picture(1))], top_k=5) == recognizer.label([picture(1)], top_k=5)


def test_no_images_have_no_labels(hub_recognizer: Load):
    assert hub_recognizer("llava").label([]) == []


def test_labels_that_differ_in_case_or_an_article_are_one_with_the_sum_of_their_probabilities(hub_recognizer: Load):
    recognizer = hub_recognizer("llava")
    (comma,) = tokenizer().encode(",", add_special_tokens=False)
    branches = [
        ((*recognizer.prompt.label_ids(tokenizer(), text), comma), probability)
        for text, probability in [("dog", 0.25), ("Dog", 0.5), ("a dog", 0.125), ("cat", 0.0625)]
    ]
    sampled = SampledBatch(
        [[(ids, (probability, *[1.0] * (len(ids) - 1)), True) for ids, probability in branches]], torch.empty(1, 0, 0)
    )
    ((first, second),) = recognizer.rank(sampled)
    assert (first.text, first.score, second.text, second.score) == ("Dog", 0.875, "cat", 0.0625)


def test_every_label_begins_with_a_token_that_opens_one(hub_recognizer: Load):
    recognizer = hub_recognizer("llava")
    opens_V = recognizer._tokens.opens_V
    assert opens_V is not None
    labels = recognizer.label([picture(0), picture(1)], top_k=int(opens_V.sum()), keep_unfinished=True)
    assert all(opens_V[label.token_ids[0]] for image in labels for label in image)


def test_more_branches_than_tokens_that_open_a_label_are_refused(hub_recognizer: Load):
    recognizer = hub_recognizer("llava")
    opens_V = recognizer._tokens.opens_V
    assert opens_V is not None
    with pytest.raises(ValueError, match=rf"top_k is 90; expected 1 to {int(opens_V.sum())}"):
        recognizer.label([picture(0)], top_k=90)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"ranking": "sim"}, "ranking is 'sim'; a model of the hub has prob, ppl, none"),
        ({"sampling": "greedy"}, "sampling is 'greedy'; a model of the hub has one_shot"),
        ({"image_tokens": 9}, "image_tokens is 9; a model of the hub reads all of its image tokens: expected 0"),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_it_can(hub_recognizer: Load, asked: dict[str, str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        hub_recognizer("llava").label([picture(0)], top_k=2, **asked)


@pytest.mark.parametrize(("architecture", "n_tokens"), [("llava", 16), ("paligemma", 16), ("qwen3_vl", 6)])
def test_it_says_how_many_tokens_a_picture_costs(hub_recognizer: Load, architecture: str, n_tokens: int):
    recognizer = hub_recognizer(architecture)
    assert recognizer.n_image_tokens(np.asarray(picture(0, (96, 64)))) == n_tokens


def test_options_of_the_image_processor_keep_tokens_few(hub_folder: FindFolder):
    options = HubOptions(image_options={"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}})
    recognizer = HubRecognizer.from_pretrained(hub_folder("qwen3_vl"), options=options)
    assert recognizer.n_image_tokens(np.asarray(picture(0, (96, 64)))) == 2


def test_an_option_that_is_none_of_the_image_processors_is_refused(hub_folder: FindFolder):
    with pytest.raises(ValueError, match=r"image_options has tiles; CLIPImageProcessor\w* has .*crop_size"):
        HubRecognizer.from_pretrained(hub_folder("llava"), options=HubOptions(image_options={"tiles": 3}))


class Tiling:
    do_image_splitting = True


class Budgeted:
    merge_size, patch_size = 2, 14

    class size:  # noqa: N801
        shortest_edge, longest_edge = 56 * 56, 12_845_056


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        (Tiling(), {"do_image_splitting": False}),
        (Budgeted(), {"size": {"shortest_edge": 56 * 56, "longest_edge": 256 * 28 * 28}}),
        (object(), {}),
    ],
)
def test_by_default_a_picture_is_one_tile_or_256_tokens(processor: object, options: dict[str, object]):
    assert few_tokens(processor) == options


def test_large_pictures_are_made_smaller_in_the_same_shape(hub_folder: FindFolder):
    recognizer = HubRecognizer.from_pretrained(hub_folder("llava"), options=HubOptions(max_view_pixels=5_000))
    assert recognizer.preprocessor.view(picture(0, (200, 100))).shape == (50, 100, 3)
    assert recognizer.preprocessor.view(picture(0, (80, 40))).shape == (40, 80, 3)


def test_a_wide_picture_is_cut_into_squares_of_its_own_pixels_and_others_stay_whole(hub_folder: FindFolder):
    preprocessor = HubRecognizer.from_pretrained(hub_folder("llava")).preprocessor
    wide = picture(0, (80, 40))
    assert [
        np.array_equal(square, np.asarray(wide)[:, left : left + 40])
        for square, left in zip(preprocessor.views(wide, 4), (0, 40), strict=True)
    ] == [True, True]
    assert [view.shape for view in preprocessor.views(wide, 1)] == [(40, 80, 3)]
    assert [view.shape for view in preprocessor.views(picture(0, (44, 40)), 4)] == [(40, 44, 3)]


def test_weights_that_are_pickled_are_refused(hub_folder: FindFolder, tmp_path: Path):
    folder = copied(hub_folder("llava"), tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        HubRecognizer.from_pretrained(folder)


def test_weights_that_lack_a_part_are_refused(hub_folder: FindFolder, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = copied(hub_folder("llava"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "multi_modal_projector" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit its config.json; missing: .*projector"):
        HubRecognizer.from_pretrained(folder)


def test_code_that_lies_in_a_folder_is_not_run(hub_folder: FindFolder, tmp_path: Path):
    folder = copied(hub_folder("llava"), tmp_path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit")
    described = json.loads((folder / "config.json").read_text())
    described["model_type"] = "unheard_of"
    described["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"trust_remote_code|custom code"):
        HubRecognizer.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()
