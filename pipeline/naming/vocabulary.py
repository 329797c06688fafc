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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.errors import TagstreamError
from pipeline.naming.sensitive import sensitive_names
from pipeline.settings.toml_file import read_settings
from pipeline.text import one_line

_COLUMNS = {"label", "name", "wider", "allow", "sensitive"}
_DISPLAY = "display."
# What a cell of `allow` and `sensitive` may say; an empty one says no.
_ANSWERS = {"yes": True, "no": False, "": False}
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
    """Names that are marked, and left out of what is published; those that are denied or not allowed among them."""
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
        name = self.unlimited_name(label)
        is_left_out = not name or name in self.deny or (self.allow is not None and name not in self.allow)
        return None if is_left_out else name

    def unlimited_name(self, label: str) -> str:
        """The name of a label, whatever is denied or allowed; empty for one that has no letters."""
        text = spelled(label)
        singular = self._singular(text)
        return self.aliases.get(text) or self.aliases.get(singular) or singular

    def is_sensitive(self, label: str) -> bool:
        """Whether a label's name is sensitive, be it denied or not allowed as well."""
        return bool(self.sensitive) and self.unlimited_name(label) in self.sensitive

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
    `display.LANGUAGE` (name = what it is called there). Names that are denied, allowed, sensitive or displayed may be
    written as labels are: in the plural, or as an alias. CSV: a row a label with the columns `label` and `name` and, if
    wanted, `wider`, `allow` and `sensitive` (yes, no or empty) and `display.LANGUAGE`, which are all about the row's
    name; a label without a name is denied. Other settings need TOML.

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
        deny=frozenset(),
        aliases={**joined, **aliases},
        wider=wider,
    )
    return _with_choices(
        rules,
        deny=settings.deny,
        allow=settings.allow if "allow" in values else None,
        sensitive=[*settings.sensitive, *sensitive_names(settings.sensitive_topics, origin)],
        display={language: table.items() for language, table in display.items()},
    )


def _with_choices(
    rules: Vocabulary,
    deny: Iterable[str],
    allow: Iterable[str] | None,
    sensitive: Iterable[str],
    display: Mapping[str, Iterable[tuple[str, Any]]],
) -> Vocabulary:
    """The rules with what is counted, and what may be published and how.

    Args:
        deny, allow, sensitive: labels; None allows all.
        display: by language labels with what their names are called there.

    Raises TagstreamError for a label without a name, for a name with no text or with two, and where nothing is allowed.
    """
    rules = replace(rules, deny=frozenset(filter(None, map(rules.unlimited_name, deny))))
    allowed = None if allow is None else frozenset(_named(rules, allow, "allow"))
    if allowed is not None and not allowed:
        raise TagstreamError(
            f"the vocabulary {rules.title}: allow is empty, so that nothing would have a name; list names, or leave it "
            "out"
        )
    return replace(
        rules,
        allow=allowed,
        sensitive=frozenset(filter(None, map(rules.unlimited_name, sensitive))),
        display={language: _shown(rules, language, pairs) for language, pairs in display.items()},
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


def _shown(rules: Vocabulary, language: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """What names are called in a language."""
    shown: dict[str, str] = {}
    for label, text in pairs:
        origin = f"the vocabulary {rules.title}: display.{language}"
        if not isinstance(text, str) or not text.strip():
            raise TagstreamError(f"{origin} calls {label!r} {text!r}; expected a text")
        (name,) = _named(rules, [label], f"display.{language}")
        if shown.setdefault(name, text) != text:
            raise TagstreamError(f"{origin} calls {name!r} {shown[name]!r} and {text!r}; expected one of them")
    return shown


def _from_csv(text: str, title: str) -> Vocabulary:
    reader = csv.DictReader(text.splitlines())
    columns = list(reader.fieldnames or ())
    languages = [column.removeprefix(_DISPLAY) for column in columns if column.startswith(_DISPLAY)]
    known = _COLUMNS | {_DISPLAY + language for language in languages if language}
    if not {"label", "name"} <= set(columns) <= known:
        got = ", ".join(columns or ["nothing"])
        raise TagstreamError(
            f"the vocabulary {title} has the columns {got}; expected label and name, and perhaps wider, allow, "
            "sensitive and display.LANGUAGE (other settings need a TOML file)"
        )
    rows = [{column: row[column] or "" for column in columns} for row in reader]
    pairs = [(spelled(row["label"]), spelled(row["name"]), spelled(row.get("wider", ""))) for row in rows]
    rules = Vocabulary(
        title=title,
        fold_plurals=True,
        keep=frozenset(),
        deny=frozenset(),
        aliases={label: name for label, name, _ in pairs if name},
        wider={name: wider for _, name, wider in pairs if name and wider},
    )
    return _with_choices(
        rules,
        deny=[label for label, name, _ in pairs if not name],
        allow=_marked(rows, "allow", title) if "allow" in columns else None,
        sensitive=_marked(rows, "sensitive", title) if "sensitive" in columns else [],
        display={language: _displayed(rows, _DISPLAY + language) for language in languages},
    )


def _marked(rows: Sequence[Mapping[str, str]], column: str, title: str) -> list[str]:
    """The labels of a CSV file whose cell of a column says yes."""
    for row in rows:
        if row[column].strip().casefold() not in _ANSWERS:
            raise TagstreamError(
                f"the vocabulary {title}: {column} of {row['label']!r} is {row[column]!r}; expected yes, no or nothing"
            )
    return [row["label"] for row in rows if _ANSWERS[row[column].strip().casefold()]]


def _displayed(rows: Sequence[Mapping[str, str]], column: str) -> list[tuple[str, str]]:
    """Labels of a CSV file with the text of their cell of a column, where there is one."""
    return [(row["label"], text) for row in rows if (text := row[column].strip())]


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
