"""Floating point operations of the recognizer, from its sizes: a multiplication and an addition are two.

Matrix products alone are counted, each once and as large as the result needs: norms, softmax and rotary embeddings are
left out. Attention counts all columns of the prefix, masked or not. `image_tokens` is the setting of that name: what
image tokens are merged into before the decoder reads them; 0 is all of them.
"""

from __future__ import annotations

from model import RecognizerConfig
from model.sampling import Branches


def block_flops_per_token(config: RecognizerConfig) -> int:
    """Linear layers of one decoder block, one token."""
    text = config.text_config
    return 2 * text.hidden_size * (2 * query_width(config) + 2 * key_width(config) + 3 * text.intermediate_size)


def query_width(config: RecognizerConfig) -> int:
    text = config.text_config
    return text.num_attention_heads * (text.hidden_size // text.num_attention_heads)


def key_width(config: RecognizerConfig) -> int:
    text = config.text_config
    return text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)


def head_flops_per_token(config: RecognizerConfig) -> int:
    return 2 * config.text_config.hidden_size * config.text_config.vocab_size


def encode_flops(config: RecognizerConfig) -> int:
    """Encoder and projector, one image."""
    vision = config.vision_config
    n_patches, width = config.n_image_tokens, vision.hidden_size
    n_tokens = n_patches + 1
    patches = 2 * n_patches * width * vision.num_channels * vision.patch_size**2
    layer = n_tokens * (2 * width * (4 * width + 2 * vision.intermediate_size) + 4 * n_tokens * width)
    return patches + vision.num_hidden_layers * layer + 2 * n_patches * width * config.text_config.hidden_size


def merging_flops(config: RecognizerConfig, image_tokens: int) -> int:
    """Likeness of each two of an image's tokens, and means of those that are merged; nothing where all are kept."""
    n_kept = config.n_kept_tokens(image_tokens)
    if n_kept == config.n_image_tokens:
        return 0
    return 2 * config.n_image_tokens * (config.n_image_tokens + n_kept) * config.text_config.hidden_size


def prefix_tokens(config: RecognizerConfig, image_tokens: int) -> int:
    """Tokens of image and prompt that the decoder reads."""
    return config.n_kept_tokens(image_tokens) + len(config.prompt_ids)


def prefill_flops(config: RecognizerConfig, image_tokens: int = 0) -> int:
    """Merging, prefix and first logits, one image; the last block finishes the answer token alone."""
    n_tokens, n_blocks = prefix_tokens(config, image_tokens), config.text_config.num_hidden_layers
    attention_per_query = 4 * n_tokens * query_width(config)
    full_block = n_tokens * (block_flops_per_token(config) + attention_per_query)
    keys_and_values = 2 * config.text_config.hidden_size * 2 * key_width(config)
    last_block = n_tokens * keys_and_values + block_flops_per_token(config) - keys_and_values + attention_per_query
    blocks = (n_blocks - 1) * full_block + last_block
    return merging_flops(config, image_tokens) + blocks + head_flops_per_token(config)


def branch_flops(config: RecognizerConfig, branches: Branches, image_tokens: int = 0) -> int:
    """All steps of all branches: a branch feeds every token but its delimiter and attends to prefix and own tokens."""
    n_blocks = config.text_config.num_hidden_layers
    per_token = n_blocks * block_flops_per_token(config) + head_flops_per_token(config)
    total = 0
    for n_fed in fed_tokens(branches):
        n_columns = n_fed * prefix_tokens(config, image_tokens) + n_fed * (n_fed + 1) // 2
        total += n_fed * per_token + n_blocks * 4 * query_width(config) * n_columns
    return total


def recompute_flops(config: RecognizerConfig, top_k: int, n_steps: int) -> int:
    """Recomputation of one image: the encoder once, the prefix, then at every step all tokens of all branches."""
    n_blocks, total = config.text_config.num_hidden_layers, encode_flops(config)
    for step in range(n_steps + 1):
        n_rows, n_tokens = (top_k if step else 1), config.n_prefix_tokens + step
        blocks = n_blocks * n_tokens * (block_flops_per_token(config) + 4 * n_tokens * query_width(config))
        total += n_rows * (blocks + head_flops_per_token(config))
    return total


def fed_tokens(branches: Branches) -> list[int]:
    """Tokens each branch ran through the decoder."""
    return (branches.n_tokens_BK - branches.finished_BK.long()).flatten().tolist()
