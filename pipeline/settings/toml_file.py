"""Settings as frozen dataclasses, read from TOML: unknown names and wrong types are errors that name them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from pipeline.errors import TagstreamError

S = TypeVar("S")


def read_settings(cls: type[S], values: Mapping[str, Any], origin: str) -> S:
    """Settings of a class from a parsed file.

    Args:
        cls: a dataclass whose fields all have defaults of type bool, int, float, str, tuple of str or dict, or are
            such dataclasses themselves; both of the latter are tables in the file. A field of `str | int` takes both.
        values: what the file holds.
        origin: the file, for messages.

    Raises TagstreamError for names and types that do not fit, and whatever the class itself refuses.
    """
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    given = {}
    for name, value in values.items():
        if name not in known:
            raise TagstreamError(f"{origin} has an unknown setting {name!r}; known are {', '.join(sorted(known))}")
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            given[name] = read_settings(hints[name], value, f"{origin}, table {name}")
        else:
            kinds = get_args(hints[name]) if hints[name] == str | int else (type(_default(known[name])),)
            given[name] = _checked(name, value, kinds, origin)
    return cls(**given)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _checked(name: str, value: Any, kinds: tuple[type[Any], ...], origin: str) -> Any:
    """A value, which has to be of one of these types."""
    expected = kinds[0]
    if expected is tuple:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise TagstreamError(f"{origin}: {name} is {value!r}; expected a list of strings")
    if expected is dict and isinstance(value, Mapping):
        return dict(value)
    fits = isinstance(value, kinds) or (expected is float and fits_float(value))
    if not fits or (isinstance(value, bool) and expected is not bool):
        is_table = is_dataclass(expected) or expected is dict
        wanted = "table" if is_table else f"value of type {' or '.join(kind.__name__ for kind in kinds)}"
        raise TagstreamError(f"{origin}: {name} is {value!r}; expected a {wanted}")
    return float(value) if expected is float else value


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises TagstreamError unless the value is one of the choices."""
    if value not in choices:
        raise TagstreamError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def fits_float(value: Any) -> bool:
    """Whether a value of TOML is a number, which may be a whole one; it has whole numbers that are too large for it."""
    return isinstance(value, float) or (type(value) is int and abs(value) < sys.float_info.max)


def check_range(name: str, value: float, low: float, high: float | None = None) -> None:
    """Raises TagstreamError unless the value lies between the limits, both included."""
    if not value >= low or (high is not None and value > high):
        raise TagstreamError(f"{name} is {value}; expected {low} {'or more' if high is None else f'to {high}'}")
    if value == math.inf:
        raise TagstreamError(f"{name} is {value}; expected a finite number")
