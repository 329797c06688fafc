"""Token ids of names, from a recognizer's folder without its weights."""

from __future__ import annotations

import pytest

from model import Recognizer
from model.nxtp.name_tokens import NameTokens


def test_names_are_read_as_the_recognizer_reads_them(recognizer, tmp_path):
    recognizer.save_pretrained(tmp_path)
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    tokens = NameTokens.from_pretrained(tmp_path)
    assert tokens.ids("w20") == [20]
    with pytest.raises(ValueError, match="the name 'dog' is read as"):
        tokens.ids("dog")


def test_the_end_of_a_label_is_no_part_of_a_name():
    demo = Recognizer.from_pretrained("demo", device="cpu")
    tokens = NameTokens(demo.tokenizer, demo.config.delimiter_id)
    assert tokens.ids("dog")
    for name in ("dog, cat", "", " dog"):
        with pytest.raises(ValueError, match="expected words of the model's vocabulary without ','"):
            tokens.ids(name)
