"""A recognizer to train from scratch: its vocabulary learned from labels, its weights small and random."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from model.images.preprocessing import ImagePreprocessor
from model.nxtp.configuration import RecognizerConfig
from model.nxtp.modeling import RecognizerModel
from model.nxtp.recognizer import Recognizer
from model.training.objective import PARAPHRASES, PROMPT_TEXT

DELIMITER = ","
IMAGE_TOKEN, BEGIN_TOKEN = "<|image|>", "<s>"
_MLP_RATIO = 4
_GATED_MLP_RATIO = 8 / 3
_MLP_MULTIPLE = 16


def train_tokenizer(labels: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned from labels and prompts: any text has tokens, frequent words have one.

    Args:
        labels: the labels of a corpus, as often as they occur.
        vocab_size: most tokens it may have, 256 bytes and the special tokens included.
    """
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[IMAGE_TOKEN, BEGIN_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The prompts are few and read at every step: as frequent as labels, their words get tokens of their own.
    tokenizer.train_from_iterator([*labels, *(PARAPHRASES * 100)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def new_recognizer(
    *,
    tokenizer: PreTrainedTokenizerFast,
    image_size: int,
    patch_size: int,
    vision_width: int,
    vision_blocks: int,
    vision_heads: int,
    decoder_width: int,
    decoder_blocks: int,
    decoder_heads: int,
    seed: int,
) -> Recognizer:
    """An untrained recognizer for a tokenizer of `train_tokenizer`; sizes in pixels, channels, blocks and heads."""
    vision = CLIPVisionConfig(
        hidden_size=vision_width,
        intermediate_size=vision_width * _MLP_RATIO,
        num_hidden_layers=vision_blocks,
        num_attention_heads=vision_heads,
        image_size=image_size,
        patch_size=patch_size,
        hidden_act="gelu",
    )
    mlp_width = round(decoder_width * _GATED_MLP_RATIO / _MLP_MULTIPLE) * _MLP_MULTIPLE
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=decoder_width,
        intermediate_size=mlp_width,
        num_hidden_layers=decoder_blocks,
        num_attention_heads=decoder_heads,
    )
    lead = tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, BEGIN_TOKEN])
    config = RecognizerConfig(
        vision_config=vision,
        text_config=text,
        prompt_ids=[*lead, *tokenizer.encode(PROMPT_TEXT, add_special_tokens=False)],
        delimiter_id=tokenizer.convert_tokens_to_ids(DELIMITER),
    )
    torch.manual_seed(seed)
    module = RecognizerModel(config)
    _initialise(module)
    return Recognizer(module, ImagePreprocessor(image_size=image_size), tokenizer)


@torch.no_grad()
def _initialise(module: RecognizerModel) -> None:
    """Weights with which the image reaches the answer from the first step.

    The encoder's blocks add nothing at first. The decoder's attention passes on the mean of what a token sees: its
    values and outputs are the identity, its MLPs add nothing, and tokens are small beside the image. Logits so begin as
    a linear function of the mean patch; with random blocks in between, a small recognizer learns the labels'
    frequencies for tens of thousands of images before it heeds the image.
    """
    embeddings = module.vision_encoder.embeddings
    matrices = [embeddings.patch_embedding, module.projector]
    for layer in module.vision_encoder.encoder.layers:
        attention = layer.self_attn
        matrices += [attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.fc1]
        nn.init.zeros_(attention.out_proj.weight)
        nn.init.zeros_(layer.mlp.fc2.weight)
    for layer in module.decoder.model.layers:
        attention = layer.self_attn
        matrices += [attention.q_proj, attention.k_proj, layer.mlp.gate_proj, layer.mlp.up_proj]
        nn.init.eye_(attention.v_proj.weight)
        nn.init.eye_(attention.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    for matrix in matrices:
        nn.init.normal_(matrix.weight, std=matrix.weight[0].numel() ** -0.5)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.3)
    nn.init.normal_(module.decoder.model.embed_tokens.weight, std=0.05)
    nn.init.normal_(module.decoder.lm_head.weight, std=0.02)
