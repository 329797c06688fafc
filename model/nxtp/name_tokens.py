"""Names of a list as an NXTP recognizer writes them. No weights are needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

from model.nxtp.configuration import RecognizerConfig


class Tokenizer(Protocol):
    """What a recognizer needs of a tokenizer."""

    def decode(self, token_ids: list[int], /) -> str: ...

    def encode(self, text: str, /, *, add_special_tokens: bool) -> list[int]: ...


class NameTokens:
    """Token ids of names."""

    def __init__(self, tokenizer: Tokenizer, delimiter_id: int) -> None:
        """
        Args:
            delimiter_id: the token that ends a label.
        """
        self._tokenizer = tokenizer
        self._delimiter_id = delimiter_id

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Of a recognizer's local folder, of which only the tokenizer and config.json are read."""
        from transformers import AutoTokenizer

        config = RecognizerConfig.from_pretrained(folder)
        # Otherwise transformers asks on the terminal whether to run code that comes with a tokenizer.
        return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), config.delimiter_id)

    def ids(self, name: str) -> list[int]:
        """A name's token ids, what ends a label not included. Raises ValueError where the model cannot write it."""
        ids = self._tokenizer.encode(name, add_special_tokens=False)
        spelled = self._tokenizer.decode(ids).strip()
        if not ids or spelled != name or self._delimiter_id in ids:
            delimiter = self._tokenizer.decode([self._delimiter_id]).strip()
            raise ValueError(
                f"the name {name!r} is read as {spelled!r}; expected words of the model's vocabulary"
                f" without {delimiter!r}"
            )
        return ids
