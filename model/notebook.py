"""How recognizers, labels and explanations show themselves in a notebook.

A label may spell anything: its text is escaped, shortened, and kept from turning the direction of its neighbours.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from PIL import Image
from torch import Tensor

from model.choices import RANKINGS
from model.heat_map import draw_over
from model.ranking import Label

_MAX_IMAGES = 20
_MAX_LABELS = 20
_MAX_MAPS = 5
_MAP_PIXELS = 176
_MAX_CHARACTERS = 80
_ROW = "display:flex;flex-wrap:wrap;gap:1.25em;align-items:flex-start"
_TRACK = "display:inline-block;width:8em;height:0.7em;background:rgba(128,128,128,0.25)"


class Labels(list[Label]):
    """An image's labels: a list, which a notebook shows with bars."""

    def __init__(self, labels: Iterable[Label] = (), ranking: str = "prob") -> None:
        super().__init__(labels)
        self.ranking = ranking

    def _repr_html_(self) -> str:
        rows = [_label_row(label, self.ranking) for label in self[:_MAX_LABELS]]
        if len(self) > _MAX_LABELS:
            rows.append(_table_row(f"and {len(self) - _MAX_LABELS:,} more"))
        return _table(rows) if rows else "<em>no labels</em>"


class LabelLists(list[list[Label]]):
    """The labels of several images: a list of lists."""

    def _repr_html_(self) -> str:
        shown = [
            f"<div><strong>image {number}</strong>{Labels(labels, _ranking(labels))._repr_html_()}</div>"
            for number, labels in enumerate(self[:_MAX_IMAGES])
        ]
        more = f"<div>and {len(self) - _MAX_IMAGES:,} more images</div>" if len(self) > _MAX_IMAGES else ""
        return f'<div style="{_ROW}">{"".join(shown)}{more}</div>' if shown else "<em>no images</em>"


def recognizer_html(facts: Mapping[str, str]) -> str:
    """A recognizer as a table of facts: name of each, and what it says."""
    rows = [_table_row(f"<strong>{name}</strong>", _text(fact)) for name, fact in facts.items()]
    return f"<div><strong>Recognizer</strong>{_table(rows)}</div>"


def explanation_html(views: Sequence[tuple[Image.Image, Tensor]], labels: Sequence[tuple[Label, Tensor]]) -> str:
    """The views, and over them what the best labels looked at.

    Args:
        views: what of the photograph the model saw, each with the attention rollout to the answer position, float32
            [patches_h, patches_w].
        labels: each label with its rollout, best first; rollouts are shaped as the answer's.
    """
    images = [view.resize((_MAP_PIXELS, _MAP_PIXELS), Image.Resampling.BICUBIC) for view, _ in views]
    squares = [""] if len(views) == 1 else [f", square {number}" for number in range(1, len(views) + 1)]
    figures = [_figure(image, f"what the model saw{square}") for image, square in zip(images, squares, strict=True)]
    for image, (_, answer_rollout), square in zip(images, views, squares, strict=True):
        figures.append(_figure(draw_over(image, answer_rollout, _MAP_PIXELS), f"before any label{square}"))
    for label, rollout in labels[:_MAX_MAPS]:
        drawn = draw_over(images[label.view], rollout, _MAP_PIXELS)
        figures.append(_figure(drawn, f"{_text(label.text)} {label.score:.3f}{squares[label.view]}"))
    n_shown = min(len(labels), _MAX_MAPS)
    note = f"{n_shown} of {len(labels)} labels; attention rollout, the brightest patch of each label counts most"
    return f'<div><div style="{_ROW}">{"".join(figures)}</div>{note if labels else "no labels"}</div>'


def _ranking(labels: list[Label]) -> str:
    return labels.ranking if isinstance(labels, Labels) else "prob"


def _label_row(label: Label, ranking: str) -> str:
    width = 100 * RANKINGS[ranking].bar_length(label.score)
    filled = f'<span style="display:block;width:{width:.1f}%;height:100%;background:#4c86cf"></span>'
    return _table_row(_text(label.text), f'<span style="{_TRACK}">{filled}</span>', f"{label.score:.3f}")


def _table(rows: list[str]) -> str:
    return f'<table style="border-collapse:collapse">{"".join(rows)}</table>'


def _table_row(*cells: str) -> str:
    return "<tr>" + "".join(f'<td style="text-align:left;padding:0.15em 0.6em">{cell}</td>' for cell in cells) + "</tr>"


def _text(text: str) -> str:
    shortened = text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
    return f"<bdi>{escape(shortened)}</bdi>"


def _figure(image: Image.Image, caption: str) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=88)
    source = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
    return (
        f'<figure style="margin:0"><img src="{source}" width="{_MAP_PIXELS}" height="{_MAP_PIXELS}" alt="">'
        f'<figcaption style="max-width:{_MAP_PIXELS}px;overflow-wrap:anywhere">{caption}</figcaption></figure>'
    )
