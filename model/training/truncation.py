"""Truncation of the decoder: fewer blocks, as the paper cuts Llama's 32 to 6 and then to 1."""

from __future__ import annotations

import copy

from model.nxtp.modeling import RecognizerModel
from model.nxtp.recognizer import Recognizer


def truncate(recognizer: Recognizer, n_blocks: int) -> Recognizer:
    """The recognizer with the first `n_blocks` blocks of its decoder; all else is as it was. Train it to be of use.

    Raises ValueError unless it has that many blocks, and at least one is kept.
    """
    n_before = recognizer.config.text_config.num_hidden_layers
    if not 1 <= n_blocks <= n_before:
        raise ValueError(f"blocks is {n_blocks}; expected 1 to {n_before}, the model's number of decoder blocks")
    config = copy.deepcopy(recognizer.config)
    config.text_config.num_hidden_layers = n_blocks
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = config.text_config.layer_types[:n_blocks]
    module = RecognizerModel(config).to(recognizer.device, recognizer.dtype)
    kept = {
        name: tensor
        for name, tensor in recognizer.module.state_dict().items()
        if not name.startswith("decoder.model.layers.") or int(name.split(".")[3]) < n_blocks
    }
    module.load_state_dict(kept)
    return Recognizer(module, recognizer.preprocessor, recognizer.tokenizer)
