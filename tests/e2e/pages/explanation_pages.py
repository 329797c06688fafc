"""Pages of explanations as tests open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.fixtures.browser import OpenPage


def open_explanation(open_page: OpenPage, file: Path, **options: Any) -> Page:
    """The page once it is drawn: it begins when its pictures are decoded, which may be long after it was loaded."""
    page = open_page(file, **options)
    expect(page.locator("#described")).not_to_be_empty()
    return page
