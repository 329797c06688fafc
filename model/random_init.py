"""Recognizers with random weights, for benchmarks, tests and a demo without downloads."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from model.configuration import RecognizerConfig
from model.modeling import RecognizerModel
from model.preprocessing import ImagePreprocessor
from model.recognizer import Recognizer

DELIMITER = ","
PROMPT = ("<|image|>", "<s>", "The", "objects", "in", "the", "image", "are")


def word_tokenizer(words: list[str], vocab_size: int | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word: the prompt's words, the delimiter, `words`, filled up to `vocab_size`."""
    vocabulary = dict.fromkeys([*PROMPT, DELIMITER, *words])
    for filler in range(len(vocabulary), vocab_size or 0):
        vocabulary[f"w{filler}"] = None
    ids = {word: token_id for token_id, word in enumerate(vocabulary)}
    tokenizer = FastTokenizer(models.WordLevel(ids, unk_token=PROMPT[1]))
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def random_recognizer(
    *,
    vision: CLIPVisionConfig,
    text: LlamaConfig,
    words: list[str] | None = None,
    end_share: float = 0.4,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Recognizer:
    """A recognizer that writes random labels of one to a few tokens.

    Args:
        vision, text: sizes of the two halves.
        words: what its tokens spell; default w9, w10, ...
        end_share: share of the tokens after which a label ends.
        seed: of the weights.
        device, dtype: where and in which dtype the weights are made (in place: a large model never passes through the
        CPU).
    """
    tokenizer = word_tokenizer(words or [], text.vocab_size)
    ids = tokenizer.get_vocab()
    config = RecognizerConfig(
        vision_config=vision,
        text_config=text,
        prompt_ids=[ids[word] for word in PROMPT],
        delimiter_id=ids[DELIMITER],
    )
    torch.manual_seed(seed)
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module = RecognizerModel(config)
    finally:
        torch.set_default_dtype(default_dtype)
    with torch.no_grad():
        _spread_labels(module, end_share, seed)
    return Recognizer(module, ImagePreprocessor(image_size=vision.image_size), tokenizer)


def _spread_labels(module: RecognizerModel, end_share: float, seed: int) -> None:
    """Sets the token weights so that labels differ and end: plain random weights close almost no label.

    Embeddings are made large enough to survive the blocks. `end_share` of them get a component along one direction, and
    the delimiter's output row points along it.
    """
    embedding_VD, output_VD = module.decoder.model.embed_tokens.weight, module.decoder.lm_head.weight
    vocab_size, width = embedding_VD.shape
    generator = torch.Generator(device=embedding_VD.device).manual_seed(seed + 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=embedding_VD.device, dtype=torch.float32)

    direction_D = torch.nn.functional.normalize(normal(width), dim=0)
    ends_V = torch.rand(vocab_size, generator=generator, device=embedding_VD.device) < end_share
    rows_VD = normal(vocab_size, width)
    rows_VD -= (rows_VD @ direction_D)[:, None] * direction_D
    embedding_VD.copy_(rows_VD + ends_V[:, None] * width**0.5 * direction_D)
    # The hidden state's length is sqrt(width): 10 is far above the largest of vocab_size random logits of deviation
    # 1.5.
    output_VD.copy_(1.5 * normal(vocab_size, width) / width**0.5)
    output_VD[module.config.delimiter_id] = 20 * direction_D / width**0.5
