"""Reports as the tests of their pages write them, and what the pages show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from pipeline.naming.vocabulary import read_vocabulary
from pipeline.report.job import Report, ReportRequest
from pipeline.store.store import Store
from tests.fixtures.stored.reported import OTHER, RUN, make_store

IMAGE = {"labels": ["dog"]}
_N_COLUMNS = """[...document.querySelectorAll(".card")]
    .map((card) => card.getBoundingClientRect().top)
    .filter((top, place, tops) => top === tops[0]).length"""


def write_report(folder: Path, shards: Any, **options: Any) -> Path:
    other = options.pop("other", None)
    ranking = options.pop("ranking", "prob")
    store = make_store(folder, shards, other=other, rankings=(ranking, ranking))
    return report_of(store, folder, compare=OTHER if other else None, **options)


def report_of(store: Store, folder: Path, **options: Any) -> Path:
    out = folder / "report.html"
    options.setdefault("vocabulary", read_vocabulary(None))
    Report(ReportRequest(store=store.url, out=str(out), run=RUN, **options)).write()
    return out


def found(page: Page) -> int:
    """How many images the page says it shows."""
    text = page.get_by_role("status").inner_text()
    (number,) = re.findall(r"^[\d,]+", text)
    return int(number.replace(",", ""))


def shown_keys(page: Page) -> list[str]:
    return page.locator(".card-key").all_inner_texts()


def n_columns(page: Page) -> int:
    """Of the grid: cards that stand as high as the first one."""
    return int(page.evaluate(f"() => {_N_COLUMNS}"))


def wait_for_fewer_columns(page: Page, n_before: int) -> None:
    """Cards are laid out anew a while after the grid has got another width."""
    page.wait_for_function(f"(n_before) => {_N_COLUMNS} < n_before", arg=n_before)


def chart_rows(page: Page, title: str) -> list[list[str]]:
    """The numbers of a chart, as its table shows them."""
    page.get_by_role("tab", name="Charts").click()
    chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
    chart.get_by_text("Numbers", exact=True).click()
    expect(chart.locator("tbody tr").first).to_be_visible()
    return [row.locator("td").all_inner_texts() for row in chart.locator("tbody tr").all()]
