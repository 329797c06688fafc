"""Settings of a training job: files with tables and lists, ranges, and the presets that come along."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields, replace
from importlib.resources import files
from typing import Any

import pytest

from model.training.denoising import Corruption
from pipeline.errors import TagstreamError
from pipeline.naming.nouns import NOISE_WORDS
from pipeline.settings.toml_file import read_settings
from pipeline.training.settings import ModelSizes, TrainSettings

DEFAULTS = TrainSettings()
PRESETS = sorted(path.name for path in (files("jobs") / "presets").iterdir() if path.name.endswith(".toml"))
EVERYTHING = """
    steps = 7
    batch_size = 8
    micro_batch_size = 2
    learning_rate = 0.5
    warmup_steps = 3
    weight_decay = 0.25
    beta1 = 0.5
    beta2 = 0.75
    eps = 1e-3
    clip_norm = 2.0
    precision = "float32"
    optimizer = "muon"
    objective = "published"
    targets = "captions"
    noise_words = ["photo", "größe"]
    prompts = "fixed"
    max_labels = 4
    image_tokens = 2
    trainable = ["projector.*", "decoder.*"]
    embedding_rows = [","]
    shuffle_buffer = 0
    log_every = 1
    eval_every = 8
    eval_images = 3
    checkpoint_every = 4
    keep_checkpoints = 5
    dtype = "bfloat16"
    seed = 9

    [corruption]
    mask_share = 0.125
    noise_share = 0.25
    noise_std = 0.5
    label_share = 0.75
    weight = 2.0
    picture_share = 0.375

    [model]
    image_size = 28
    patch_size = 14
    vision_width = 32
    vision_blocks = 1
    vision_heads = 2
    decoder_width = 48
    decoder_blocks = 3
    decoder_heads = 4
    vocab_size = 300
"""


def read(text: str) -> TrainSettings:
    return read_settings(TrainSettings, tomllib.loads(text), "train.toml")


def plain(value: Any) -> Any:
    """A dataclass's values as TOML has them."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def holds(settings: TrainSettings, values: dict[str, Any]) -> bool:
    """Whether settings have these values, those in tables too."""
    described = settings.described()
    return all(
        value.items() <= described[name].items() if isinstance(value, dict) else described[name] == value
        for name, value in values.items()
    )


class TestFromAFile:
    """Settings as a TOML file gives them."""

    def test_every_setting_can_stand_in_a_file(self) -> None:
        given = tomllib.loads(EVERYTHING)
        assert set(given) == {field.name for field in fields(TrainSettings)}
        assert plain(asdict(read(EVERYTHING))) == given

    def test_no_value_of_that_file_is_a_default(self) -> None:
        defaults, read_values = plain(asdict(DEFAULTS)), plain(asdict(read(EVERYTHING)))
        assert [name for name in defaults if read_values[name] == defaults[name]] == []

    def test_an_empty_file_leaves_the_defaults(self) -> None:
        assert read("") == DEFAULTS

    def test_a_table_leaves_the_rest_of_it_at_its_defaults(self) -> None:
        settings = read("[model]\nimage_size = 64\n[corruption]\nmask_share = 0.5")
        assert settings == replace(DEFAULTS, model=ModelSizes(image_size=64), corruption=Corruption(mask_share=0.5))

    def test_an_unknown_name_is_refused_and_the_known_ones_are_named(self) -> None:
        with pytest.raises(
            TagstreamError, match=r"^train\.toml has an unknown setting 'lr'; known are .*learning_rate"
        ):
            read("lr = 0.1")


class TestRanges:
    """What a setting may be."""

    @pytest.mark.parametrize(
        "text",
        [f"{name} = 0" for name in ("steps", "batch_size", "max_labels", "log_every", "eval_every", "eval_images")]
        + ["checkpoint_every = 0", "keep_checkpoints = 0", "micro_batch_size = -1", "warmup_steps = -1", "seed = -1"]
        + ["weight_decay = -0.1", "clip_norm = -1.0", "clip_norm = nan", "shuffle_buffer = -1"]
        + ["learning_rate = 0.0", "learning_rate = -1.0", "learning_rate = nan"]
        + [
            'precision = "int8"',
            'dtype = "auto"',
            'optimizer = "sgd"',
            'objective = "best"',
            'targets = "tags"',
            'prompts = "none"',
        ],
    )
    def test_a_value_out_of_range_is_refused_with_what_was_expected(self, text: str) -> None:
        with pytest.raises(TagstreamError, match=rf"^{text.split()[0]} is .*; expected "):
            read(text)

    @pytest.mark.parametrize("name", ["mask_share", "noise_share", "label_share", "picture_share"])
    @pytest.mark.parametrize("value", ["-0.1", "1.1", "nan"])
    def test_a_share_lies_between_none_and_all(self, name: str, value: str) -> None:
        with pytest.raises(TagstreamError, match=rf"^{name} is {value}; expected 0 to 1$"):
            read(f"[corruption]\n{name} = {value}")

    def test_no_token_can_be_masked_and_noisy(self) -> None:
        with pytest.raises(TagstreamError, match=r"^mask_share \+ noise_share is 1\.25; expected 0 to 1$"):
            read("[corruption]\nmask_share = 0.75\nnoise_share = 0.5")

    @pytest.mark.parametrize("name", ["noise_std", "weight"])
    def test_the_strength_of_denoising_is_not_negative(self, name: str) -> None:
        with pytest.raises(TagstreamError, match=rf"^{name} is -1\.0; expected 0 or more$"):
            read(f"[corruption]\n{name} = -1.0")

    @pytest.mark.parametrize(
        "name", ["clip_norm", "learning_rate", "weight_decay", "corruption.weight", "corruption.noise_std"]
    )
    @pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
    def test_no_number_is_without_an_end(self, name: str, value: str) -> None:
        with pytest.raises(TagstreamError, match=rf"^{name.removeprefix('corruption.')} is {value}; expected "):
            read(f"{name} = {value}")

    @pytest.mark.parametrize(
        "text",
        [
            "steps = 1",
            "warmup_steps = 0",
            "clip_norm = 0.0",
            "shuffle_buffer = 0",
            'precision = "auto"',
            'dtype = "float16"',
            "[corruption]\nmask_share = 1.0",
            "[corruption]\nmask_share = 0.25\nnoise_share = 0.75",
        ],
    )
    def test_the_ends_of_a_range_belong_to_it(self, text: str) -> None:
        assert holds(read(text), tomllib.loads(text))


class TestDescription:
    """Settings as a checkpoint keeps them."""

    def test_they_survive_json(self) -> None:
        described = read(EVERYTHING).described()
        assert json.loads(json.dumps(described)) == described

    def test_they_read_back_as_the_same_settings(self) -> None:
        settings = read(EVERYTHING)
        assert read_settings(TrainSettings, settings.described(), "training.json") == settings

    def test_all_image_tokens_are_described_as_before_there_was_a_choice(self) -> None:
        assert "image_tokens" not in DEFAULTS.described()
        assert replace(DEFAULTS, image_tokens=9).described() == {**DEFAULTS.described(), "image_tokens": 9}

    def test_pictures_that_are_left_as_they_are_are_described_as_before_there_was_a_choice(self) -> None:
        assert "picture_share" not in DEFAULTS.described()["corruption"]
        described = replace(DEFAULTS, corruption=Corruption(picture_share=0.5)).described()
        assert described["corruption"] == {**DEFAULTS.described()["corruption"], "picture_share": 0.5}

    def test_noise_words_are_those_of_the_nouns(self) -> None:
        assert DEFAULTS.described()["noise_words"] == list(NOISE_WORDS)


class TestPresets:
    """The files that come along."""

    def test_there_are_presets(self) -> None:
        assert "demo.toml" in PRESETS

    @pytest.mark.parametrize("name", PRESETS)
    def test_a_preset_is_read_without_complaint(self, name: str) -> None:
        values = tomllib.loads((files("jobs") / "presets" / name).read_text("utf-8"))
        assert holds(read_settings(TrainSettings, values, name), values)

    @pytest.mark.parametrize("name", PRESETS)
    def test_the_sizes_of_a_preset_fit_together(self, name: str) -> None:
        values = tomllib.loads((files("jobs") / "presets" / name).read_text("utf-8"))
        sizes = read_settings(TrainSettings, values, name).model
        assert sizes.image_size % sizes.patch_size == 0
        assert sizes.vision_width % sizes.vision_heads == 0
        assert sizes.decoder_width % sizes.decoder_heads == 0
