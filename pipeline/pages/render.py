"""Self-contained HTML pages: one file that works from a disk, without a network.

A page's parts lie in `pages/<name>`: its body, its style, its scripts, which are joined in the order of their names.
What it shows is embedded as JSON and comes from sources that are not trusted: nothing of it is ever parsed as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Any

_PAGES = files("pipeline.pages")
# Styles may be inline: the chart library sets them. What could run or be fetched may not be.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; "
    "base-uri 'none'; form-action 'none'"
)


def render_page(name: str, title: str, data: Any, libraries: Sequence[str] = ()) -> str:
    """The page of that name as HTML.

    Args:
        data: what `takePageData()` gives to the page's scripts; anything that JSON has a form for, floats finite.
        libraries: names of `pages/vendor/<name>.min.js` that the scripts need, in their order.
    """
    folder = _PAGES.joinpath(name)
    sources = [_read(_PAGES.joinpath("vendor", f"{library}.min.js")) for library in libraries]
    sources.append('"use strict";\n' + _read(_PAGES.joinpath("page.js")) + _joined(folder, ".js"))
    return Template(_read(_PAGES.joinpath("page.html"))).substitute(
        policy=_POLICY.format(hashes=" ".join(_source_hash(source) for source in sources)),
        title=html.escape(title),
        style=_read(_PAGES.joinpath("page.css")) + _joined(folder, ".css"),
        body=_read(folder.joinpath("body.html")),
        data=_embedded_json(data),
        scripts="\n".join(f"<script>{source}</script>" for source in sources),
    )


def _embedded_json(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _source_hash(source: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _joined(folder: Traversable, suffix: str) -> str:
    parts = sorted((part for part in folder.iterdir() if part.name.endswith(suffix)), key=lambda part: part.name)
    return "\n".join(_read(part) for part in parts)


def _read(file: Traversable) -> str:
    return file.read_text("utf-8")
