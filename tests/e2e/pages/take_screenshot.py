"""Takes the README's picture of a report: `python tests/e2e/pages/take_screenshot.py demo-store.html`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.fixtures.browser import launch, opened

OUT = Path(__file__).with_name("demo-report.png")
VIEWPORT = {"width": 1280, "height": 700}


def main() -> None:
    page_file = Path(sys.argv[1]).resolve()
    with sync_playwright() as playwright, launch(playwright) as browser, opened(browser, page_file, VIEWPORT) as page:
        page.locator("img").first.evaluate("(image) => image.decode()")
        screenshot = Image.open(io.BytesIO(page.screenshot()))
    # A palette is enough, and a third of the bytes.
    screenshot.convert("RGB").quantize(128).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
