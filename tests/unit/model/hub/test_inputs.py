"""What a model's processor makes of pictures: few tokens by default, and what the options say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from model.hub.inputs import image_token_count, load_processor, make_inputs, resolve_image_options
from model.hub.options import HubOptions
from model.hub.prompt import Prompt
from tests.fixtures.recognizers.hub_folders import tokenizer

IMAGE_TOKEN_ID = 5
PHOTOGRAPH = np.zeros((768, 1024, 3), np.uint8)


def with_image_tokens(**names: str) -> tf.PreTrainedTokenizerFast:
    """The tiny models' tokenizer, which knows its tokens of images by these names too."""
    made = tokenizer()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>", **names},
    )


def save_without_videos(folder: Path, kind: str, text: Any, **description: Any) -> None:
    """A folder as of a processor that knows videos, which cannot be made where torchvision is missing."""
    text.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"processor_class": kind, **description}))


def save_qwen2_vl(folder: Path) -> None:
    """Its hub folders bound the pixels by names that go before `size`."""
    pixels = {"min_pixels": 56 * 56, "max_pixels": 12_845_056, "patch_size": 14, "merge_size": 2}
    kind = "Qwen2VLImageProcessor"
    save_without_videos(folder, "Qwen2VLProcessor", with_image_tokens(), image_processor_type=kind, **pixels)


def save_internvl(folder: Path) -> None:
    """Its processor asks for tiles, whatever its image processor says."""
    names = {"start_image_token": "<start>", "end_image_token": "<end>", "context_image_token": "<image>"}
    pictures = tf.GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=12).to_dict()
    save_without_videos(folder, "InternVLProcessor", with_image_tokens(**names), image_seq_length=4, **pictures)


def save_aya_vision(folder: Path) -> None:
    pictures = tf.GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=12)
    sizes = {"patch_size": 14, "img_size": 56, "downsample_factor": 2}
    tokens = {"img_patch_token": "<image>", "start_of_img_token": "<start>", "end_of_img_token": "<end>"}
    tf.AyaVisionProcessor(pictures, tokenizer(), image_token="<turn>", **sizes, **tokens).save_pretrained(folder)


def save_idefics3(folder: Path) -> None:
    pictures = tf.Idefics3ImageProcessorPil(size={"longest_edge": 224}, max_image_size={"longest_edge": 56})
    tf.Idefics3Processor(pictures, tokenizer(), image_seq_len=4).save_pretrained(folder)


def save_gemma3(folder: Path) -> None:
    names = {"boi_token": "<start>", "eoi_token": "<end>", "image_token": "<image>"}
    pictures = tf.Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, do_pan_and_scan=True)
    tf.Gemma3Processor(pictures, with_image_tokens(**names), image_seq_length=4).save_pretrained(folder)


def tokens_of_photograph(folder: Path, placeholder: str, options: HubOptions) -> int:
    processor = load_processor(folder, options)
    image_options = resolve_image_options(processor.image_processor, options)
    prompt = Prompt(f"{placeholder} Objects:", "Objects:", adds_special_tokens=True)
    inputs = make_inputs(processor, prompt, [PHOTOGRAPH], torch.float32, image_options)
    return image_token_count(inputs, IMAGE_TOKEN_ID)


@pytest.mark.parametrize(
    ("save", "placeholder", "n_tokens"),
    [
        (save_qwen2_vl, "<image>", 234),
        (save_internvl, "<image>", 4),
        (save_aya_vision, "<turn>", 4),
        (save_idefics3, "<image>", 4),
        (save_gemma3, "<start>", 4),
    ],
)
def test_by_default_a_photograph_costs_few_tokens_whatever_a_folder_says(
    save: Callable[[Path], None], placeholder: str, n_tokens: int, tmp_path: Path
):
    save(tmp_path)
    assert tokens_of_photograph(tmp_path, placeholder, HubOptions()) == n_tokens


@pytest.mark.parametrize(
    ("save", "options", "n_tokens"),
    [
        (save_qwen2_vl, {"size": {"shortest_edge": 28 * 28, "longest_edge": 60 * 28 * 28}}, 48),
        (save_internvl, {"crop_to_patches": True, "max_patches": 6}, 28),
    ],
)
def test_options_go_before_what_a_folder_and_a_processor_say(
    save: Callable[[Path], None], options: dict[str, Any], n_tokens: int, tmp_path: Path
):
    save(tmp_path)
    assert tokens_of_photograph(tmp_path, "<image>", HubOptions(image_options=options)) == n_tokens


@pytest.mark.parametrize("kind", ["LlavaProcessor", "Qwen3VLProcessor"])
def test_code_of_an_image_processor_is_not_run_whatever_a_terminal_answers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("builtins.input", lambda _: "y")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit")
    unknown = {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Evil"}}
    save_without_videos(tmp_path, kind, with_image_tokens(), **unknown)
    with pytest.raises(ValueError, match=r"trust_remote_code|custom code"):
        load_processor(tmp_path, HubOptions())
    assert not (tmp_path / "ran").exists()
