"""A real browser, and pages in it that may neither fetch anything nor complain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.e2e.pages.report_pages import write_report
from tests.fixtures.browser import OpenPage, find_chromium, launch, opened
from tests.fixtures.stored.reported import REJECTED, random_shards

# A page that is drawn while other processes have the cores takes long; what is wrong with it stays so.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a screen.

    Not for the whole session: as long as Playwright lives, its event loop runs in this thread, and whatever other tests
    call here could not start one (`asyncio.run`).
    """
    if find_chromium() is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium; or TAGSTREAM_CHROMIUM=PROGRAM)")
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """A function that opens a file from the disk, offline; at the end nothing may have been asked for or gone wrong."""
    with ExitStack() as pages:
        yield lambda file, **options: pages.enter_context(opened(browser, file, **options))


@pytest.fixture(scope="module")
def shards() -> dict[str, list[dict[str, Any]]]:
    shards = random_shards(3, 20, seed=5)
    shards["s001"].append(REJECTED)
    return shards


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, shards: Any) -> Path:
    """Sixty images and a rejected sample, beside another run."""
    return write_report(tmp_path_factory.mktemp("report"), shards, other=random_shards(3, 20, seed=6))
