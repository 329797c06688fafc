"""Names that a publisher may want to look at first: a list by topics, which a vocabulary switches on."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from pipeline.errors import TagstreamError


def sensitive_names(topics: Sequence[str], origin: str) -> list[str]:
    """The names of some topics of the list.

    Args:
        origin: the file that names the topics, for messages.

    Raises TagstreamError for a topic that the list does not have.
    """
    known = sensitive_topics()
    for topic in topics:
        if topic not in known:
            raise TagstreamError(f"{origin}: sensitive_topics has {topic!r}; expected some of {', '.join(known)}")
    return [name for topic in topics for name in known[topic]]


@cache
def sensitive_topics() -> dict[str, tuple[str, ...]]:
    """The list that comes along: names by topic, in lower case and the singular."""
    text = (files("pipeline.naming") / "sensitive.toml").read_text("utf-8")
    return {topic: tuple(names) for topic, names in tomllib.loads(text).items()}
