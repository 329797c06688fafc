"""The table of models that are known: what they are licensed under, what they need, what was verified of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

_TABLE = Path(__file__).with_name("known_models.toml")
_N_SIMILAR = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownModel:
    """A row of known_models.toml. A field is None where it is not known."""

    name: str
    """The model's name on the hub, as `--model` takes it."""
    licence: str
    commercial: str
    """What the licence says of commercial use: `yes`, `no` or `conditions`."""
    architecture: str
    verified: str
    """What was tried of it, and on what."""
    gated: bool | None = None
    """Whether the hub asks for an account that has accepted the licence."""
    parameters: int | None = None
    """Number of its weights, as round as its page has it."""
    image_tokens: int | None = None
    """Tokens that a photograph of 1024 x 768 pixels takes, with one tile, or as many pixels as 256 tokens show."""
    needs: str = ""
    """Packages that its processor needs beside those of tagstream."""

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of its weights in bfloat16; the cache of each image comes on top."""
        return None if self.parameters is None else 2 * self.parameters


def known_models() -> list[KnownModel]:
    """The models of the table, in its order."""
    table = tomllib.loads(_TABLE.read_text())
    return [KnownModel(**{"verified": table["verified"], **row}) for row in table["model"]]


def similar_names(name: str) -> list[str]:
    """Names in the table that a misspelt or shortened one may mean, the nearest first, with or without the part before
    the slash.
    """
    spellings: dict[str, str] = {}
    for known in (model.name for model in known_models()):
        spellings |= {known.lower(): known, known.rpartition("/")[2].lower(): known}
    near = [spelling for spelling in spellings if spelling.startswith(name.lower())] if len(name) > 2 else []
    near += get_close_matches(name.lower(), spellings, n=_N_SIMILAR)
    near += get_close_matches(name.rpartition("/")[2].lower(), spellings, n=_N_SIMILAR)
    return list(dict.fromkeys(spellings[spelling] for spelling in near))[:_N_SIMILAR]
