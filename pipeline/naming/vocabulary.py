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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.errors import TagstreamError
from pipeline.naming.sensitive import sensitive_names
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
    allow: tuple[str, ...] = ()
    """Names that may be published; every other one is as if it were denied. Empty sets no limit."""
    sensitive: tuple[str, ...] = ()
    """Names that are marked in views and left out of exports."""
    sensitive_topics: tuple[str, ...] = ()
    """Topics of the list that comes along (pipeline/naming/sensitive.toml) whose names are sensitive, too."""


@dataclass(frozen=True, kw_only=True)
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
    allow: frozenset[str] | None = None
    """The names that may be published; None sets no limit."""
    sensitive: frozenset[str] = frozenset()
    """Names that are marked, and left out of what is published."""
    display: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By language (`de`) what names are called there."""

    @property
    def version(self) -> str:
        """The title with a digest of the rules that decide names, inflect's included: `default-1a2b3c4d`.

        What is sensitive and what names are called in other languages change no name: thresholds and compacted
        spellings go on to fit.
        """
        rules = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(self).items()}
        for name in ("sensitive", "display") if self.allow is not None else ("sensitive", "display", "allow"):
            del rules[name]
        rules["inflect"] = importlib.metadata.version("inflect")
        digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
        return f"{self.title}-{digest[:8]}"

    def name_of(self, label: str) -> str | None:
        """The name of a label; None for one that is denied, not allowed, or has no letters."""
        text = spelled(label)
        singular = self._singular(text)
        name = self.aliases.get(text) or self.aliases.get(singular) or singular
        is_left_out = not name or name in self.deny or (self.allow is not None and name not in self.allow)
        return None if is_left_out else name

    def without_limit(self) -> Vocabulary:
        """This vocabulary as if every name might be published."""
        return replace(self, allow=None)

    def mentions(self, name: str) -> bool:
        """Whether any rule is about this name, or has it for an alias."""
        return name in self._mentioned

    @cached_property
    def _mentioned(self) -> frozenset[str]:
        pairs = [name for table in (self.aliases, self.wider) for pair in table.items() for name in pair]
        shown = [name for names in self.display.values() for name in names]
        return frozenset((*pairs, *shown, *self.keep, *self.deny, *(self.allow or ()), *self.sensitive))

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

    TOML: the settings of `VocabularyFile` and the tables `aliases` (label = name), `wider` (name = wider term) and
    `display.LANGUAGE` (name = what it is called there). Names that are allowed, sensitive or displayed may be written
    as labels are: in the plural, or as an alias. CSV: columns `label`, `name` and, if wanted, `wider`; a label without
    a name is denied.

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
    origin = f"the vocabulary {title}"
    aliases, wider = (_table(values.pop(name, {}), name, title) for name in ("aliases", "wider"))
    display = values.pop("display", {})
    if not isinstance(display, dict) or not all(isinstance(table, dict) for table in display.values()):
        raise TagstreamError(f"{origin}: display is {display!r}; expected a table for each language, as [display.de]")
    settings = read_settings(VocabularyFile, values, origin)
    joined = {spelled(name).replace(" ", ""): spelled(name) for name in settings.compounds}
    rules = Vocabulary(
        title=title,
        fold_plurals=settings.fold_plurals,
        keep=frozenset(map(spelled, settings.keep)),
        deny=frozenset(map(spelled, settings.deny)),
        aliases={**joined, **aliases},
        wider=wider,
    )
    if "allow" in values and not settings.allow:
        raise TagstreamError(
            f"{origin}: allow is empty, so that nothing would have a name; list names, or leave it out"
        )
    sensitive = [*settings.sensitive, *sensitive_names(settings.sensitive_topics, origin)]
    return replace(
        rules,
        allow=frozenset(_named(rules, settings.allow, "allow")) if settings.allow else None,
        # A name that is denied is not published in any case.
        sensitive=frozenset(name for label in sensitive if (name := rules.name_of(label)) is not None),
        display={language: _shown(rules, language, table) for language, table in display.items()},
    )


def _named(rules: Vocabulary, labels: Iterable[str], setting: str) -> list[str]:
    """The names of labels that a setting lists. Raises TagstreamError for one that has none."""
    names = []
    for label in labels:
        name = rules.name_of(label)
        if name is None:
            why = "which deny leaves out; take it out of one of them" if spelled(label) else "which is no name"
            raise TagstreamError(f"the vocabulary {rules.title}: {setting} has {label!r}, {why}")
        names.append(name)
    return names


def _shown(rules: Vocabulary, language: str, table: Mapping[str, Any]) -> dict[str, str]:
    """What names are called in a language."""
    for label, text in table.items():
        if not isinstance(text, str) or not text.strip():
            raise TagstreamError(
                f"the vocabulary {rules.title}: display.{language} calls {label!r} {text!r}; expected a text"
            )
    return dict(zip(_named(rules, table, f"display.{language}"), table.values(), strict=True))


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
