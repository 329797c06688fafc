"""The files that a model consists of, on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.fetching.architecture import NXTP_MODEL_TYPE
from model.fetching.files import check_folder, is_model_file
from model.fetching.refusal import ModelUnusableError

NXTP = {
    "config.json": json.dumps({"model_type": NXTP_MODEL_TYPE}),
    "preprocessor_config.json": "{}",
    "model.safetensors": "weights",
}
VLM = {"config.json": '{"model_type": "llava"}', "processor_config.json": "{}", "model.safetensors": "weights"}
SHARDED = {
    **{name: content for name, content in VLM.items() if name != "model.safetensors"},
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ),
    "model-00001-of-00002.safetensors": "half",
}
WHOLE = {**SHARDED, "model-00002-of-00002.safetensors": "half"}
FORMER = {**VLM, "preprocessor_config.json": "{}"}
del FORMER["processor_config.json"]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    "files", [NXTP, VLM, FORMER, WHOLE], ids=["nxtp", "saved by transformers 5", "saved before", "in parts"]
)
def test_a_folder_that_has_all_is_accepted(tmp_path: Path, files: dict[str, str]) -> None:
    check_folder(write(tmp_path, files))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {},
            "there is no model at m; expected a folder with config.json and *.safetensors, found no files; "
            "`tagstream models` lists some that can be used",
        ),
        (
            {"README.md": "", "config.json": "{}"},
            "m holds no weights; expected model.safetensors, found README.md, config.json; `tagstream models` lists "
            "some that can be used",
        ),
        (
            {"config.json": "{", "model.safetensors": ""},
            "config.json of m is no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"
            "; download the file again",
        ),
        ({"config.json": "[]", "model.safetensors": ""}, "config.json of m holds a list; expected an object"),
        (
            {name: content for name, content in VLM.items() if name != "processor_config.json"},
            "m has no processor_config.json and no preprocessor_config.json, so that nothing says how it wants its "
            "images; save its processor into the same folder",
        ),
        (
            {**NXTP, "preprocessor_config.json": None, "processor_config.json": "{}"},
            "m has no preprocessor_config.json, so that nothing says how it wants its images; save its processor into "
            "the same folder",
        ),
        (
            SHARDED,
            "m lacks parts of its weights that model.safetensors.index.json names (model-00002-of-00002.safetensors); "
            "copy or download it again",
        ),
        (
            {**WHOLE, "model.safetensors.index.json": "{}"},
            "model.safetensors.index.json of m has no weight_map; download the file again",
        ),
        (
            {**VLM, "model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5"},
            "model.safetensors in m is a pointer of Git LFS and not the weights; run `git lfs pull` in that folder",
        ),
    ],
)
def test_a_folder_that_has_not_is_refused_in_one_sentence(
    tmp_path: Path, files: dict[str, str | None], sentence: str
) -> None:
    write(tmp_path, {name: content for name, content in files.items() if content is not None})
    with pytest.raises(ModelUnusableError) as caught:
        check_folder(tmp_path, "m")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "is_read"),
    [
        ("config.json", True),
        ("chat_template.jinja", True),
        ("tokenizer.model", True),
        ("merges.txt", True),
        ("model-00001-of-00002.safetensors", True),
        ("consolidated.safetensors", False),
        ("pytorch_model.bin", False),
        ("modeling_x.py", False),
        ("README.md", False),
        ("training_args.pt", False),
    ],
)
def test_pickles_code_and_second_copies_of_the_weights_are_not_read(name: str, is_read: bool) -> None:
    assert is_model_file(name) == is_read
