"""Llama's sentencepiece vocabulary as a transformers tokenizer that needs no sentencepiece."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers
from tokenizers import Tokenizer as FastTokenizer
from transformers import PreTrainedTokenizerFast

from model.importing.reference import CheckpointError

# They follow the sentencepiece vocabulary, in this order.
IMAGE_TOKEN, EMPTY_TOKEN = "<|image|>", "<|empty|>"
# Kinds of pieces, as numbered by sentencepiece.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4


class LlamaVocabulary:
    """The tokens of a recognizer: those of Llama's `tokenizer.model`, then `<|image|>` and `<|empty|>`."""

    def __init__(self, path: Path) -> None:
        """Reads the sentencepiece model.

        Raises CheckpointError for another file or another kind of model, FileNotFoundError, and ImportError where
        sentencepiece is not installed.
        """
        self.path = path
        self.processor, self.proto = _read_model(path)
        self.pieces = list(self.proto.pieces)
        self.image_id, self.empty_id = len(self.pieces), len(self.pieces) + 1

    def __len__(self) -> int:
        return len(self.pieces) + 2

    def piece_id(self, piece: str) -> int:
        """Id of a piece that must be in the vocabulary."""
        token_id = int(self.processor.piece_to_id(piece))
        if self.processor.id_to_piece(token_id) != piece:
            raise CheckpointError(f"{self.path} has no piece {piece!r}")
        return token_id

    def prompt_ids(self, prompt: str) -> list[int]:
        """`<|image|>`, the beginning of the sequence, the prompt."""
        bos_id = int(self.processor.bos_id())
        if bos_id < 0:
            raise CheckpointError(f"{self.path} has no piece that begins a sequence; expected Llama's tokenizer.model")
        return [self.image_id, bos_id, *self.processor.encode(prompt)]

    def make_tokenizer(self, prompt: str) -> PreTrainedTokenizerFast:
        """The same vocabulary as a transformers tokenizer.

        transformers' own LlamaTokenizer writes control tokens into the text that it decodes, sentencepiece leaves them
        out. Raises CheckpointError where the two spell a token differently or read `prompt` differently.
        """
        fast = FastTokenizer(self._model())
        fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        fast.decoder = self._decoder()
        fast.add_special_tokens([IMAGE_TOKEN, EMPTY_TOKEN])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=fast,
            unk_token=self.proto.trainer_spec.unk_piece,
            bos_token=self.processor.id_to_piece(self.processor.bos_id()),
            eos_token=self.processor.id_to_piece(self.processor.eos_id()) if self.processor.eos_id() >= 0 else None,
            pad_token=EMPTY_TOKEN,
            extra_special_tokens=[IMAGE_TOKEN],
            clean_up_tokenization_spaces=False,
        )
        self._check(tokenizer, prompt)
        return tokenizer

    def _model(self) -> models.BPE:
        """Byte-pair encoding with sentencepiece's scores as the order of merges."""
        vocabulary = {piece.piece: token_id for token_id, piece in enumerate(self.pieces)}
        words = {piece.piece for piece in self.pieces if piece.type in (_NORMAL, _USER_DEFINED)}
        merges = []
        for piece in sorted(self.pieces, key=lambda piece: -piece.score):
            splits = ((piece.piece[:cut], piece.piece[cut:]) for cut in range(1, len(piece.piece)))
            if piece.piece in words:
                merges += [(left, right) for left, right in splits if left in words and right in words]
        unknown = self.proto.trainer_spec.unk_piece
        return models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)

    def _decoder(self) -> decoders.Sequence:
        """sentencepiece's rules: control tokens vanish, bytes join, one leading space goes, the others are spaces."""
        silent = "|".join(re.escape(piece.piece) for piece in self.pieces if piece.type == _CONTROL)
        unknown = "|".join(re.escape(piece.piece) for piece in self.pieces if piece.type == _UNKNOWN)
        return decoders.Sequence(
            [
                decoders.Replace(Regex(f"^(?:{silent})$"), ""),
                decoders.Replace(Regex(f"^(?:{unknown})$"), self.proto.trainer_spec.unk_surface),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Replace(Regex("^▁"), ""),
                decoders.Replace("▁", " "),
            ]
        )

    def _check(self, tokenizer: PreTrainedTokenizerFast, prompt: str) -> None:
        """Raises CheckpointError unless both read the prompt and spell every token alike."""
        wrong = [i for i in range(len(self.pieces)) if tokenizer.decode([i]) != self.processor.decode([i])]
        if wrong:
            ours, theirs = tokenizer.decode(wrong[:1]), self.processor.decode(wrong[:1])
            raise CheckpointError(
                f"{len(wrong)} tokens of {self.path} would be spelled differently, the first is {wrong[0]}: {ours!r} "
                f"for {theirs!r}; expected Llama's tokenizer.model"
            )
        ids = tokenizer.encode(f"{IMAGE_TOKEN}{EMPTY_TOKEN}{prompt}", add_special_tokens=False)
        expected = [self.image_id, self.empty_id, *self.processor.encode(prompt)]
        if ids != expected:
            raise CheckpointError(f"{self.path}: the prompt would be read as {ids}; sentencepiece reads {expected}")


def _read_model(path: Path) -> tuple[Any, Any]:
    """sentencepiece's processor of a model file, and the file's content."""
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise ImportError(
            "reading Llama's tokenizer.model needs sentencepiece; pip install 'tagstream[import-nxtp]'"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; expected Llama's tokenizer.model")
    content = path.read_bytes()
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(content)
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except Exception as error:
        # protobuf's DecodeError cannot be named without importing protobuf, and sentencepiece raises RuntimeError.
        raise CheckpointError(
            f"{path} is no sentencepiece model ({error}); expected Llama's tokenizer.model"
        ) from error
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    is_llamas = (
        trainer.model_type == trainer.BPE
        and trainer.byte_fallback
        and normalizer.add_dummy_prefix
        and not normalizer.remove_extra_whitespaces
        and not normalizer.precompiled_charsmap
    )
    if not is_llamas:
        raise CheckpointError(
            f"{path} is another kind of sentencepiece model; expected Llama's: byte-pair encoding with byte fallback "
            "and no normalization"
        )
    return processor, proto
