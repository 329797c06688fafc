"""A real browser, and pages in it that may neither fetch anything nor complain."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.e2e.pages.report_pages import write_report
from tests.fixtures.report_stores import REJECTED, random_shards

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Those of the background would ask hosts of its maker.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1366, "height": 900}
PHONE = {"width": 390, "height": 844}

OpenPage = Callable[..., Page]


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


def find_chromium() -> str | None:
    return os.environ.get("TAGSTREAM_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)


def launch(playwright: Playwright) -> Browser:
    # Its sandbox does not work for root.
    args = FLAGS + ["--no-sandbox"] * (os.geteuid() == 0)
    return playwright.chromium.launch(executable_path=find_chromium(), args=args)


@contextmanager
def opened(browser: Browser, file: Path, viewport: Any = DESKTOP, **options: Any) -> Iterator[Page]:
    context = browser.new_context(viewport=viewport, offline=True, **options)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
