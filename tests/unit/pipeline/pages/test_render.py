"""Pages: self-contained, and safe whatever the data says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.pages import render as page
from pipeline.pages.render import render_page
from tests.fixtures.checkout import ROOT

PAGES = ROOT / "pipeline" / "pages"
NAMES = sorted(folder.name for folder in PAGES.iterdir() if (folder / "body.html").is_file())
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\u2028\u2029",
    "\"'&<>",
    "\x00",
    "]]>",
    "${x} $data",
    "\u202e",
]


class Parsed(HTMLParser):
    """A page as a browser's parser sees it: tags, attributes, what scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.title = ""
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within == "title":
            self.title += data


@pytest.mark.parametrize("name", NAMES)
def test_hostile_data_comes_back_as_it_was_and_adds_no_element(name: str) -> None:
    data = {"texts": HOSTILE, HOSTILE[0]: 1}
    parsed, plain = Parsed(render_page(name, "t", data)), Parsed(render_page(name, "t", {}))
    assert json.loads(parsed.scripts[0]) == data
    assert parsed.tags == plain.tags


def test_a_hostile_title_is_text() -> None:
    parsed = Parsed(render_page(NAMES[0], "</title><script>alert(1)</script>", {}))
    assert parsed.title == "</title><script>alert(1)</script>"
    assert len(parsed.scripts) == 2


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_lets_the_pages_own_scripts_run_and_nothing_be_fetched(name: str) -> None:
    parsed = Parsed(render_page(name, "t", {}, ["d3", "plot"]))
    (policy,) = (tag["content"] for _, tag in parsed.tags if tag.get("http-equiv") == "Content-Security-Policy")
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in parsed.scripts[1:]]
    named = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert f"script-src {named};" in (policy or "")
    assert "default-src 'none'" in (policy or "")
    assert not [tag for tag in parsed.tags if str(tag[1].get("src") or tag[1].get("href") or "data:")[:5] != "data:"]


@pytest.mark.parametrize("name", NAMES)
def test_no_script_of_ours_makes_html_of_text(name: str) -> None:
    ours = "".join(path.read_text() for path in [PAGES / "page.js", *(PAGES / name).glob("*.js")])
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", ours)


def test_a_number_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_page(NAMES[0], "t", {"score": float("nan")})


@pytest.mark.parametrize("library", sorted(path.name for path in (PAGES / "vendor").glob("*.js")))
def test_libraries_are_those_that_were_published(library: str) -> None:
    digests = dict(re.findall(r"\| `([\w.]+)` \|.*`([0-9a-f]{64})`", (PAGES / "vendor" / "README.md").read_text()))
    assert hashlib.sha256((PAGES / "vendor" / library).read_bytes()).hexdigest() == digests[library]


def test_parts_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.js").write_text(name)
    assert page._joined(tmp_path, ".js") == "a\nb\nc"
