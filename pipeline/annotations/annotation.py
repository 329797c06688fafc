"""What lists of captions and labels say of one image, and what they hold that cannot be taken."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import TagstreamError


class CaptionsError(TagstreamError):
    """A captions file that cannot be read or understood."""


@dataclass(slots=True)
class Annotation:
    """What is known of one image."""

    captions: list[str] = field(default_factory=list)
    """Captions in the order they were read, each on one line."""
    labels: set[str] = field(default_factory=set)
    width: int | None = None
    """Width of the image in pixels."""
    height: int | None = None
    """Height of the image in pixels."""

    @property
    def is_empty(self) -> bool:
        return not self.captions and not self.labels

    def add_caption(self, text: str) -> None:
        if one_line := " ".join(text.split()):
            self.captions.append(one_line)

    def add_label(self, text: str) -> None:
        if label := " ".join(text.split()):
            self.labels.add(label)

    def merge(self, other: Annotation) -> None:
        self.captions += other.captions
        self.labels |= other.labels
        self.width, self.height = self.width or other.width, self.height or other.height


Annotations = dict[str, Annotation]


@dataclass(slots=True)
class Listed:
    """What files that list images hold."""

    annotations: Annotations = field(default_factory=dict)
    """By file name as it is written, without what a web address or a foreign disk puts in front."""
    problems: list[str] = field(default_factory=list)
    """Entries that cannot be taken, each in a sentence; they cost no other."""

    def of(self, name: str) -> Annotation:
        """The annotation of a file name; makes it."""
        return self.annotations.setdefault(name, Annotation())
