"""What labels are called when they are counted: spelling variants, plurals and aliases under one name.

A vocabulary is applied when a store is read, never when images are labelled: the store keeps the labels as the
recognizer spelled them, and another vocabulary costs no inference.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.errors import TagstreamError
from pipeline.settings.toml_file import read_settings
from pipeline.text import one_line

_COLUMNS = {"label", "name", "wider"}
_BETWEEN_WORDS = re.compile(r"[\s_-]+")
# Singulars end like this more often than plurals do; the others are aliases.
_SINGULAR_ENDINGS = ("ss", "us", "is")


@dataclass(frozen=True, kw_only=True, slots=True)
class VocabularyFile:
    """A vocabulary as a file holds it."""

    fold_plurals: bool = True
    """Whether a plural has the name of its singular."""
    keep: tuple[str, ...] = ()
    """Words that look like plurals and are none: bus."""
    compounds: tuple[str, ...] = ()
    """Names of several words that are also written as one: hot dog."""
    deny: tuple[str, ...] = ()
    """Names that are never counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Rules from labels to names; every word is spelled as by `spelled`."""

    title: str
    fold_plurals: bool
    keep: frozenset[str]
    deny: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    """The name of each label that is an alias."""
    wider: Mapping[str, str] = field(default_factory=dict)
    """The wider term of each name that has one."""

    @property
    def version(self) -> str:
        """The title with a digest of the rules, inflect's included: `default-1a2b3c4d`."""
        rules = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(self).items()}
        rules["inflect"] = importlib.metadata.version("inflect")
        digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
        return f"{self.title}-{digest[:8]}"

    def name_of(self, label: str) -> str | None:
        """The name of a label; None for one that is denied or has no letters."""
        text = spelled(label)
        singular = self._singular(text)
        name = self.aliases.get(text) or self.aliases.get(singular) or singular
        return None if not name or name in self.deny else name

    def _singular(self, text: str) -> str:
        """The singular of a label's last word, with the words before it."""
        before, _, last = text.rpartition(" ")
        if not self.fold_plurals or last in self.keep or last.endswith(_SINGULAR_ENDINGS):
            return text
        return f"{before} {_singular_noun(last)}".strip()


def spelled(label: str) -> str:
    """A label in lower case, its words apart by single spaces: `Hot-Dog` is `hot dog`."""
    return _BETWEEN_WORDS.sub(" ", label.casefold()).strip()


def read_vocabulary(path: str | Path | None) -> Vocabulary:
    """A vocabulary from a TOML or CSV file, or the one that comes along.

    TOML: the settings of `VocabularyFile` and the tables `aliases` (label = name) and `wider` (name = wider term). CSV:
    columns `label`, `name` and, if wanted, `wider`; a label without a name is denied.

    Raises TagstreamError for a file that is none of this.
    """
    if path is None:
        default = files("pipeline.naming") / "default.toml"
        return _from_toml(default.read_text("utf-8"), "default")
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TagstreamError(f"cannot read the vocabulary {path}: {one_line(error)}") from error
    return _from_csv(text, path.stem) if path.suffix.lower() == ".csv" else _from_toml(text, path.stem)


def _from_toml(text: str, title: str) -> Vocabulary:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TagstreamError(f"the vocabulary {title} is no valid TOML: {error}") from error
    aliases, wider = (_table(values.pop(name, {}), name, title) for name in ("aliases", "wider"))
    settings = read_settings(VocabularyFile, values, f"the vocabulary {title}")
    joined = {spelled(name).replace(" ", ""): spelled(name) for name in settings.compounds}
    return Vocabulary(
        title=title,
        fold_plurals=settings.fold_plurals,
        keep=frozenset(map(spelled, settings.keep)),
        deny=frozenset(map(spelled, settings.deny)),
        aliases={**joined, **aliases},
        wider=wider,
    )


def _from_csv(text: str, title: str) -> Vocabulary:
    reader = csv.DictReader(text.splitlines())
    columns = set(reader.fieldnames or ())
    if not {"label", "name"} <= columns <= _COLUMNS:
        got = ", ".join(reader.fieldnames or ["nothing"])
        raise TagstreamError(f"the vocabulary {title} has the columns {got}; expected label, name and perhaps wider")
    rows = [{column: spelled(row[column] or "") for column in columns} for row in reader]
    return Vocabulary(
        title=title,
        fold_plurals=True,
        keep=frozenset(),
        deny=frozenset(row["label"] for row in rows if not row["name"]),
        aliases={row["label"]: row["name"] for row in rows if row["name"]},
        wider={row["name"]: row["wider"] for row in rows if row["name"] and row.get("wider")},
    )


def _table(value: Any, name: str, title: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise TagstreamError(f"the vocabulary {title}: {name} is {value!r}; expected a table of strings")
    return {spelled(left): spelled(right) for left, right in value.items()}


@cache
def _singular_noun(word: str) -> str:
    """The singular of a word that may be a plural."""
    if not word.isascii() or not word.isalpha():
        return word
    singular = _inflect().singular_noun(word)
    return singular or word


@cache
def _inflect() -> Any:
    import inflect

    return inflect.engine()
