"""Labels and prompts as token ids, as the decoder writes and reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model.nxtp.configuration import RecognizerConfig
from model.training.objective import PROMPT_TEXT


def label_token_ids(tokenizer: Any, label: str, config: RecognizerConfig) -> list[int]:
    """A label's token ids without its delimiter; empty where the model cannot write it.

    That is so for a label which holds the delimiter, or has more tokens than a label may have.
    """
    token_ids: list[int] = tokenizer.encode(label, add_special_tokens=False)
    # By text too: a vocabulary may have other tokens that hold the delimiter.
    has_delimiter = config.delimiter_id in token_ids or tokenizer.decode([config.delimiter_id]).strip() in label
    return [] if has_delimiter or len(token_ids) > config.max_label_tokens else token_ids


def prompt_token_ids(tokenizer: Any, config: RecognizerConfig, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of other prompts, with the model's own lead (image and begin tokens) in front.

    Raises ValueError where the model's prompt is not `PROMPT_TEXT`, so that no lead can be told.
    """
    own: list[int] = tokenizer.encode(PROMPT_TEXT, add_special_tokens=False)
    n_lead = len(config.prompt_ids) - len(own)
    if n_lead < 0 or config.prompt_ids[n_lead:] != own:
        raise ValueError(
            f"the model's prompt {config.prompt_ids} does not end in the tokens {own} of {PROMPT_TEXT!r}; "
            'paraphrases need that, train with prompts = "fixed"'
        )
    lead = config.prompt_ids[:n_lead]
    return [[*lead, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]
