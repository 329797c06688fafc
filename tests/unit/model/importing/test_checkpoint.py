"""The import of the public checkpoint."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import AutoTokenizer

from model import Recognizer
from model.importing.checkpoint import import_nxtp
from model.importing.reference import CheckpointError, recognizer_from_reference
from tests.fixtures.recognizers.public_checkpoint import (
    IMAGE,
    PROMPT,
    WORDS,
    openai_state_dict,
    trained_weights,
    write_checkpoint,
    write_tokenizer,
    write_torchscript,
    write_transformers_folder,
)


@dataclass(frozen=True)
class Files:
    """The three inputs of an import, and what they were made from."""

    checkpoint: Path
    clip: Path
    tokenizer: Path
    processor: sentencepiece.SentencePieceProcessor

    def read(self, clip: Path | None = None) -> Recognizer:
        return import_nxtp(self.checkpoint, clip or self.clip, self.tokenizer)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("public")
    processor = write_tokenizer(folder / "tokenizer.model")
    trained = trained_weights(processor.vocab_size() + 2, processor.piece_to_id(","))
    write_checkpoint(folder / "nxtp.pth", trained)
    torch.save(openai_state_dict(), folder / "ViT.pt")
    return Files(folder / "nxtp.pth", folder / "ViT.pt", folder / "tokenizer.model", processor)


@pytest.fixture(scope="module")
def imported(files: Files) -> Recognizer:
    return files.read()


def expected_recognizer(files: Files, imported: Recognizer) -> Recognizer:
    """The recognizer that `recognizer_from_reference` makes of CLIP's and the trained weights together."""
    processor = files.processor
    clip = {
        f"vision_encoder.{k.removeprefix('visual.')}": v.half() for k, v in openai_state_dict().items() if "visual" in k
    }
    clip.pop("vision_encoder.proj")
    merged = clip | trained_weights(processor.vocab_size() + 2, processor.piece_to_id(","))
    return recognizer_from_reference(
        merged,
        tokenizer=imported.tokenizer,
        prompt_ids=[processor.vocab_size(), processor.bos_id(), *processor.encode(PROMPT)],
        delimiter_id=processor.piece_to_id(","),
        n_vision_heads=1,
        n_decoder_heads=1,
        rms_norm_eps=1e-5,
        image_size=IMAGE,
    )


def pixels() -> torch.Tensor:
    return torch.randn(3, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(0))


def test_it_labels_as_the_reference_weights_do(files: Files, imported: Recognizer) -> None:
    expected = expected_recognizer(files, imported).label_pixels(pixels(), top_k=10, keep_unfinished=True)
    assert imported.label_pixels(pixels(), top_k=10, keep_unfinished=True) == expected


def test_the_fake_checkpoint_writes_labels_that_end(imported: Recognizer) -> None:
    assert all(any(label.finished and label.text for label in labels) for labels in imported.label_pixels(pixels()))


def test_the_checkpoint_replaces_the_blocks_that_were_trained(imported: Recognizer, files: Files) -> None:
    trained = trained_weights(files.processor.vocab_size() + 2, files.processor.piece_to_id(","))
    norm = imported.module.vision_encoder.encoder.layers[1].layer_norm1.weight
    assert torch.equal(norm, trained["vision_encoder.transformer.resblocks.1.ln_1.weight"])


def test_clip_fills_in_the_blocks_that_were_frozen(imported: Recognizer) -> None:
    norm = imported.module.vision_encoder.encoder.layers[0].layer_norm1.weight
    assert torch.equal(norm, openai_state_dict()["visual.transformer.resblocks.0.ln_1.weight"].half())


def test_weights_keep_the_dtype_of_the_checkpoint(imported: Recognizer) -> None:
    assert {parameter.dtype for parameter in imported.module.parameters()} == {torch.float16}


def test_rotary_frequencies_stay_float32(imported: Recognizer) -> None:
    assert imported.module.decoder.model.rotary_emb.inv_freq.dtype == torch.float32


def test_the_prompt_is_read_by_the_vocabulary(files: Files, imported: Recognizer) -> None:
    processor = files.processor
    assert imported.config.prompt_ids == [processor.vocab_size(), processor.bos_id(), *processor.encode(PROMPT)]


def test_the_delimiter_is_the_comma_of_the_vocabulary(files: Files, imported: Recognizer) -> None:
    assert imported.config.delimiter_id == files.processor.piece_to_id(",")


def test_rms_norm_eps_and_heads_are_taken_as_given(files: Files) -> None:
    recognizer = import_nxtp(files.checkpoint, files.clip, files.tokenizer, n_decoder_heads=4, rms_norm_eps=1e-6)
    text = recognizer.config.text_config
    assert (text.num_attention_heads, text.rms_norm_eps) == (4, 1e-6)


def test_a_torchscript_archive_gives_the_same_recognizer(files: Files, imported: Recognizer, tmp_path: Path) -> None:
    write_torchscript(tmp_path / "ViT.pt", openai_state_dict())
    assert same_weights(files.read(tmp_path / "ViT.pt"), imported)


@pytest.mark.parametrize("whole", [True, False], ids=["CLIPModel", "CLIPVisionModel"])
def test_a_transformers_folder_gives_the_same_recognizer(
    files: Files, imported: Recognizer, tmp_path: Path, whole: bool
) -> None:
    write_transformers_folder(tmp_path / "clip", openai_state_dict(), whole=whole)
    assert same_weights(files.read(tmp_path / "clip"), imported)


def test_a_folder_of_pickled_weights_gives_the_same_recognizer(
    files: Files, imported: Recognizer, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    write_transformers_folder(tmp_path, openai_state_dict())
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(
        weights | {"vision_model.embeddings.position_ids": torch.arange(5)[None]}, tmp_path / "pytorch_model.bin"
    )
    assert same_weights(files.read(tmp_path), imported)


def same_weights(one: Recognizer, other: Recognizer) -> bool:
    theirs = other.module.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.module.state_dict().items())


def test_a_saved_import_labels_alike_when_loaded(imported: Recognizer, tmp_path: Path) -> None:
    imported.save_pretrained(tmp_path)
    loaded = Recognizer.from_pretrained(tmp_path, device="cpu", dtype="stored")
    assert loaded.label_pixels(pixels(), top_k=10) == imported.label_pixels(pixels(), top_k=10)


def test_the_saved_tokenizer_needs_no_sentencepiece(imported: Recognizer, files: Files, tmp_path: Path) -> None:
    imported.save_pretrained(tmp_path)
    ids = files.processor.encode("wine glass")
    program = (
        "import sys; sys.modules['sentencepiece'] = None; sys.modules['google.protobuf'] = None\n"
        "from transformers import AutoTokenizer\n"
        f"print(AutoTokenizer.from_pretrained({str(tmp_path)!r}).decode({ids}), end='')"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "wine glass"


@pytest.fixture(scope="module")
def tokenizer(imported: Recognizer, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("saved")
    imported.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


class TestTokenizer:
    """The saved tokenizer against sentencepiece."""

    def test_every_token_is_spelled_alike(self, tokenizer, files: Files) -> None:
        n_pieces = files.processor.vocab_size()
        assert [tokenizer.decode([i]) for i in range(n_pieces)] == [
            files.processor.decode([i]) for i in range(n_pieces)
        ]

    def test_every_token_behind_another_is_spelled_alike(self, tokenizer, files: Files) -> None:
        first = files.processor.encode("dog")[0]
        pairs = [[first, i] for i in range(files.processor.vocab_size())]
        assert [tokenizer.decode(pair) for pair in pairs] == [files.processor.decode(pair) for pair in pairs]

    def test_random_sequences_are_spelled_alike(self, tokenizer, files: Files) -> None:
        generator = random.Random(0)
        # Without bytes: runs of bytes that are no UTF-8 are replaced byte by byte here, character by character there.
        ids = [i for i in range(files.processor.vocab_size()) if not files.processor.is_byte(i)]
        sequences = [generator.choices(ids, k=generator.randint(2, 8)) for _ in range(500)]
        assert [tokenizer.decode(s) for s in sequences] == [files.processor.decode(s) for s in sequences]

    @pytest.mark.parametrize(
        "text", [*WORDS, "wine glass", "teddy bear", "naïve café", "日本", "42 dogs", "a  b", " c"]
    )
    def test_labels_are_read_alike(self, tokenizer, files: Files, text: str) -> None:
        assert tokenizer.encode(text, add_special_tokens=False) == files.processor.encode(text)

    @pytest.mark.parametrize("text", ["dining table", "naïve café", "日本 🐙", "a  b"])
    def test_labels_come_back_as_they_were(self, tokenizer, text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text

    def test_the_two_extra_tokens_follow_the_vocabulary(self, tokenizer, files: Files) -> None:
        n_pieces = files.processor.vocab_size()
        assert tokenizer.convert_tokens_to_ids(["<|image|>", "<|empty|>"]) == [n_pieces, n_pieces + 1]


def without(weights: dict, name: str) -> dict:
    return {key: tensor for key, tensor in weights.items() if key != name}


@pytest.fixture
def trained(files: Files) -> dict[str, torch.Tensor]:
    return trained_weights(files.processor.vocab_size() + 2, files.processor.piece_to_id(","))


@pytest.mark.parametrize(
    "name",
    [
        "language_decoder.layers.1.attention.wk.weight",
        "language_decoder.tok_embeddings.weight",
        "vision_encoder.proj.weight",
    ],
)
def test_a_weight_missing_from_the_checkpoint_is_named(files: Files, trained, tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path / "nxtp.pth", without(trained, name))
    with pytest.raises(CheckpointError, match=rf"missing.*{name}|{name}.*missing"):
        import_nxtp(tmp_path / "nxtp.pth", files.clip, files.tokenizer)


@pytest.mark.parametrize(
    "name",
    ["conv1.weight", "positional_embedding", "ln_pre.bias", "transformer.resblocks.0.attn.in_proj_weight"],
)
def test_a_weight_missing_from_clip_is_named(files: Files, tmp_path: Path, name: str) -> None:
    torch.save(without(openai_state_dict(), f"visual.{name}"), tmp_path / "ViT.pt")
    with pytest.raises(CheckpointError, match=rf"missing.*vision_encoder\.{name}|vision_encoder\.{name}.*missing"):
        files.read(tmp_path / "ViT.pt")


def test_a_weight_left_over_in_the_checkpoint_is_named(files: Files, trained, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "nxtp.pth", trained | {"language_decoder.adapter.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"language_decoder\.adapter\.weight"):
        import_nxtp(tmp_path / "nxtp.pth", files.clip, files.tokenizer)


def test_a_bias_left_over_in_the_checkpoint_is_named(files: Files, trained, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "nxtp.pth", trained | {"language_decoder.output.bias": torch.ones(2).half()})
    with pytest.raises(CheckpointError, match=r"left over.*language_decoder\.output\.bias"):
        import_nxtp(tmp_path / "nxtp.pth", files.clip, files.tokenizer)


@pytest.mark.parametrize("name", ["visual.layer1.0.conv1.weight", "visual.ln_mid.weight", "audio.ln_1.weight"])
def test_a_weight_left_over_in_clip_is_named(files: Files, tmp_path: Path, name: str) -> None:
    torch.save(openai_state_dict() | {name: torch.ones(2)}, tmp_path / "ViT.pt")
    with pytest.raises(CheckpointError, match=name.removeprefix("visual.")):
        files.read(tmp_path / "ViT.pt")


def test_a_weight_left_over_in_a_transformers_folder_is_named(files: Files, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_transformers_folder(tmp_path, openai_state_dict())
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"vision_model.adapter.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"left over.*adapter\.weight"):
        files.read(tmp_path)


def test_another_clip_is_told_by_its_shapes(files: Files, tmp_path: Path) -> None:
    clip = openai_state_dict()
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    torch.save(clip | {name: clip[name][:64]}, tmp_path / "ViT.pt")
    with pytest.raises(CheckpointError, match=r"mlp\.c_fc\.weight is \[128, 64\] .*\[64, 64\] in CLIP"):
        files.read(tmp_path / "ViT.pt")


def test_a_tokenizer_of_another_size_is_refused(files: Files, tmp_path: Path) -> None:
    n_pieces = write_tokenizer(tmp_path / "tokenizer.model", vocab_size=320).vocab_size()
    n_rows = files.processor.vocab_size() + 2
    with pytest.raises(CheckpointError, match=f"{n_rows} token embeddings.*{n_pieces + 2} tokens"):
        import_nxtp(files.checkpoint, files.clip, tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    "options",
    [{"model_type": "unigram", "vocab_size": 330}, {"normalization_rule_name": "nmt_nfkc"}, {"byte_fallback": False}],
    ids=["unigram", "normalized", "without bytes"],
)
def test_another_kind_of_sentencepiece_model_is_refused(files: Files, tmp_path: Path, options: dict) -> None:
    write_tokenizer(tmp_path / "tokenizer.model", **options)
    with pytest.raises(CheckpointError, match="another kind of sentencepiece model"):
        import_nxtp(files.checkpoint, files.clip, tmp_path / "tokenizer.model")


def test_a_tokenizer_that_is_no_sentencepiece_model_is_refused(files: Files, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("no model")
    with pytest.raises(CheckpointError, match="no sentencepiece model"):
        import_nxtp(files.checkpoint, files.clip, tmp_path / "tokenizer.model")


def test_a_vocabulary_without_the_delimiter_is_refused(files: Files) -> None:
    with pytest.raises(CheckpointError, match="no piece ';'"):
        import_nxtp(files.checkpoint, files.clip, files.tokenizer, delimiter=";")


def test_without_sentencepiece_the_error_names_the_extra(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"pip install 'tagstream\[import-nxtp\]'"):
        files.read()


class _Trap:
    """Unpickled without care, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["checkpoint", "clip"])
def test_a_pickle_that_would_run_code_is_refused(files: Files, tmp_path: Path, where: str) -> None:
    torch.save({"model": {"module.x": torch.ones(1)}, "epoch": _Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    paths = {"checkpoint": files.checkpoint, "clip": files.clip, where: tmp_path / "trap.pt"}
    with pytest.raises(CheckpointError, match=r"mkdir.*can run code"):
        import_nxtp(paths["checkpoint"], paths["clip"], files.tokenizer)
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_dressed_up_as_torchscript_is_refused(files: Files, tmp_path: Path) -> None:
    trap = pickle.dumps(_Trap(tmp_path / "sprung"), protocol=2)
    with zipfile.ZipFile(tmp_path / "trap.pt", "w") as archive:
        for name, content in {"data.pkl": trap, "constants.pkl": trap, "version": b"3\n", "code/x.py": b""}.items():
            archive.writestr(f"archive/{name}", content)
    with pytest.raises(CheckpointError, match="no readable TorchScript archive"):
        files.read(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_without_its_weights_is_refused(files: Files, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "nxtp.pth")
    with pytest.raises(CheckpointError, match="holds state_dict; expected 'model'"):
        import_nxtp(tmp_path / "nxtp.pth", files.clip, files.tokenizer)


def test_a_truncated_checkpoint_is_refused(files: Files, tmp_path: Path) -> None:
    content = files.checkpoint.read_bytes()
    (tmp_path / "nxtp.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_nxtp(tmp_path / "nxtp.pth", files.clip, files.tokenizer)


def test_a_missing_file_is_named(files: Files, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.pth; expected the public checkpoint"):
        import_nxtp(tmp_path / "absent.pth", files.clip, files.tokenizer)


def test_a_folder_without_weights_is_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        files.read(tmp_path)


def test_heads_that_do_not_divide_the_decoder_are_refused(files: Files) -> None:
    with pytest.raises(CheckpointError, match="7 heads do not divide the decoder's width of 128"):
        import_nxtp(files.checkpoint, files.clip, files.tokenizer, n_decoder_heads=7)
