"""Names on the Hugging Face hub: of models, `org/name` or `org/name@revision`, and of single files in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[^@\s]+))?", re.ASCII)
_FILE = re.compile(r"(?P<model>[^/]+/[^/@]+(@[^/@]+)?)/(?P<file>[^@]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubName:
    """A model of the hub, at one of its revisions."""

    repository: str
    """`org/name`."""
    revision: str | None = None
    """A branch, a tag or a commit; None is the model's main branch."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The model that a text names; None where it cannot be the name of one."""
        match = _NAME.fullmatch(text)
        return cls(match["repository"], match["revision"]) if match else None

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, in full: then the name means the same model for ever."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model of the hub."""

    model: HubName
    file: str
    """Its path in the repository."""

    @classmethod
    def parse(cls, text: str, default: str) -> Self | None:
        """The file that `org/name/file` or `org/name@revision/file` names; None where a text cannot name one.

        Args:
            default: the file that is meant where only the model is named.
        """
        match = _FILE.fullmatch(text)
        model = HubName.parse(match["model"] if match else text)
        return cls(model, match["file"] if match else default) if model else None

    def __str__(self) -> str:
        return f"{self.model}/{self.file}"
