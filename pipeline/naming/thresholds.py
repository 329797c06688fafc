"""The score from which a label is believed, for each name, as a file."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from model.choices import RANKINGS, Ranking
from pipeline.errors import TagstreamError
from pipeline.settings.toml_file import fits_float
from pipeline.storage.files import open_filesystem, storage_errors, write_whole
from pipeline.text import one_line

_HEADING = """\
# A label is confident where its score is {reaching} the threshold of its name, or `common` for names not listed.
# No score is {reaching} {never}.
"""
_DIRECTIONS = ("highest", "lowest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Thresholds and what they are for: another model's scores, or other names, they say nothing of."""

    run: str
    """Name of the run that the thresholds were learned from."""
    model_fingerprint: str
    """Fingerprint of the model whose scores the thresholds are for."""
    ranking: str
    """Name of the ranking whose scores the thresholds are for."""
    direction: str
    """Which scores are the best of this ranking: highest or lowest."""
    truth: str
    """What the thresholds were learned from: labels or captions."""
    vocabulary: str
    """Version of the vocabulary that gave the names."""
    labels: str = "open"
    """What the thresholds are for: what the recognizer wrote of itself (open), names of a list (listed), or both."""
    target_precision: float
    common: float
    """Threshold of names that have none of their own."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The threshold of each name; infinite (negative where the lowest is best) where no score is to be believed."""

    @property
    def lowest_first(self) -> bool:
        return self.direction == "lowest"


def write_thresholds(path: str | Path, thresholds: Thresholds) -> None:
    """Writes thresholds as TOML, whole or not at all. Raises StoreError where that cannot be done."""
    reaching, never = ("at or below", "-inf") if thresholds.lowest_first else ("at or above", "inf")
    lines = [_HEADING.format(reaching=reaching, never=never)]
    for name in _KEYS:
        value = getattr(thresholds, name)
        lines.append(f"{name} = {_quoted(value) if isinstance(value, str) else float(value)}\n")
    lines.append("\n[thresholds]\n")
    lines += [f"{_quoted(name)} = {float(value)}\n" for name, value in thresholds.thresholds.items()]
    filesystem, file = open_filesystem(str(path))
    with storage_errors(f"write the thresholds {path}"):
        write_whole(filesystem, file, "".join(lines).encode())


def read_thresholds(path: str | Path) -> Thresholds:
    """Thresholds from a TOML file. Raises TagstreamError, with file and key, for one that is not as written."""
    origin = f"the thresholds {path}"
    try:
        values = tomllib.loads(Path(path).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise TagstreamError(f"cannot read {origin}: {one_line(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise TagstreamError(f"{origin} are no valid TOML: {one_line(error)}") from error
    expected = {*_KEYS, "thresholds"}
    if unknown := sorted(values.keys() - expected):
        raise TagstreamError(f"{origin} have an unknown key {unknown[0]!r}; known are {', '.join(sorted(expected))}")
    if missing := sorted(expected - values.keys() - {"labels"}):
        raise TagstreamError(f"{origin} have no {missing[0]}; write them with `tagstream thresholds`")
    given = {name: _checked(name, values[name], kind, origin) for name, kind in _KEYS.items() if name in values}
    table = values["thresholds"]
    if not isinstance(table, dict):
        raise TagstreamError(f"{origin}: thresholds is {table!r}; expected a table of numbers")
    given["thresholds"] = {
        name: _checked(f"threshold {name!r}", value, "float", origin) for name, value in table.items()
    }
    thresholds = Thresholds(**given)
    _check_values(thresholds, origin)
    return thresholds


def direction_of(ranking: Ranking) -> str:
    """Which scores of a ranking are the best, as a file of thresholds says it: highest or lowest."""
    return "lowest" if ranking.lowest_first else "highest"


def _check_values(thresholds: Thresholds, origin: str) -> None:
    choices = {"ranking": tuple(RANKINGS), "direction": _DIRECTIONS, "truth": ("labels", "captions", "reviews")}
    choices["labels"] = ("open", "listed", "both")
    for name, allowed in choices.items():
        if (value := getattr(thresholds, name)) not in allowed:
            raise TagstreamError(f"{origin}: {name} is {value!r}; expected one of {', '.join(allowed)}")
    if thresholds.direction != (expected := direction_of(RANKINGS[thresholds.ranking])):
        raise TagstreamError(
            f"{origin}: direction is {thresholds.direction!r}; the best scores of the ranking {thresholds.ranking} are "
            f"the {expected}"
        )
    if not 0 < thresholds.target_precision <= 1:
        got = thresholds.target_precision
        raise TagstreamError(f"{origin}: target_precision is {got}; expected more than 0 and at most 1")


def _checked(name: str, value: Any, kind: str, origin: str) -> Any:
    if kind == "str":
        if isinstance(value, str):
            return value
        raise TagstreamError(f"{origin}: {name} is {value!r}; expected a text")
    # Infinite is a threshold that no score reaches.
    if not fits_float(value) or math.isnan(value):
        raise TagstreamError(f"{origin}: {name} is {value!r}; expected a number")
    return float(value)


def _quoted(text: str) -> str:
    """A basic string of TOML: as json has it, but that TOML wants the delete character escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


# Key -> type; the table `thresholds` stands last in a file.
_KEYS = {key.name: str(key.type) for key in fields(Thresholds) if key.name != "thresholds"}
