"""The page of an explanation in a browser: chosen with the keyboard, read aloud, harmless."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page

from model import Explanation, Recognizer
from pipeline.explanation.page import explanation_page
from pipeline.explanation.subject import Subject
from pipeline.settings.labelling import LabelSettings
from tests.e2e.pages.explanation_pages import open_explanation
from tests.fixtures.browser import DESKTOP, PHONE, WIDTHS, OpenPage
from tests.fixtures.corpus import jpeg

HOSTILE = "</script><script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">"


@pytest.fixture(scope="module")
def explanation(tiny_model: Path) -> Explanation:
    return Recognizer.from_pretrained(tiny_model, device="cpu").explain(jpeg(1), top_k=6)


def write(folder: Path, explanation: Explanation, address: str = "photo.jpg") -> Path:
    subject = Subject(address=address, data=b"", model="tiny", settings=LabelSettings())
    path = folder / "explanation.html"
    path.write_text(explanation_page(explanation, subject), encoding="utf-8")
    return path


def described(page: Page) -> str:
    return str(page.locator("#described").inner_text())


def stage_pixels(page: Page) -> np.ndarray:
    encoded = page.evaluate("document.getElementById('stage').toDataURL()").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")).astype(int)


def test_labels_and_maps_are_chosen_with_the_keyboard_alone(
    open_page: OpenPage, tmp_path: Path, explanation: Explanation
) -> None:
    page = open_explanation(open_page, write(tmp_path, explanation))
    assert described(page).startswith("before any label, rollout:")
    # The slider, the labels, the maps: three stops.
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert described(page).startswith(f"{explanation.labels[0].label.text}, rollout:")
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert described(page).startswith(f"{explanation.labels[0].label.text}, layer 0 head 1:")


def test_the_chosen_map_is_described_and_drawn(open_page: OpenPage, tmp_path: Path, explanation: Explanation) -> None:
    best = explanation.labels[0]
    maps = best.maps.clone()
    maps[1, 0] = 0
    maps[1, 0, 2, 3] = 0.5
    page = open_explanation(open_page, write(tmp_path, replace(explanation, labels=[replace(best, maps=maps)])))
    page.get_by_role("radio", name=best.label.text).check(force=True)
    page.get_by_role("radio", name="layer 1 head 0").check(force=True)
    page.locator("#opacity").fill("100")
    told = "layer 1 head 0: 50\u00a0% on the image; most, 50.0\u00a0%, on the patch in row 3 of 4, column 4 of 4."
    assert described(page) == f"{best.label.text}, {told}"
    assert told in str(page.locator("#stage").get_attribute("aria-label"))
    brightness = stage_pixels(page).sum(axis=-1)
    assert brightness[560, 784] > 500 > 100 > brightness[112, 112]


def test_the_slider_uncovers_the_photograph(open_page: OpenPage, tmp_path: Path, explanation: Explanation) -> None:
    page = open_explanation(open_page, write(tmp_path, explanation))
    covered = stage_pixels(page)
    page.locator("#opacity").fill("0")
    photograph = np.asarray(explanation.view.resize((896, 896))).astype(int)
    assert np.abs(stage_pixels(page) - photograph).mean() < 8 < np.abs(covered - photograph).mean()


def test_of_several_squares_each_label_shows_its_own(open_page: OpenPage, tmp_path: Path, tiny_model: Path) -> None:
    explanation = Recognizer.from_pretrained(tiny_model, device="cpu").explain(jpeg(1, 96, 64), top_k=12, views="whole")
    of_second = next(explained.label for explained in explanation.labels if explained.label.view == 1)
    page = open_explanation(open_page, write(tmp_path, explanation))
    assert described(page).startswith("before any label, square 1, rollout:")
    page.locator("#opacity").fill("0")
    page.get_by_role("radio", name=f"{of_second.text}").first.check(force=True)
    square = np.asarray(explanation.views[1].image.resize((896, 896))).astype(int)
    assert np.abs(stage_pixels(page) - square).mean() < 8
    assert (
        page.locator("#overview").get_attribute("aria-label") == "The photograph with its 2 squares; shown is square 2"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_every_width(open_page: OpenPage, tmp_path: Path, explanation: Explanation, width: int) -> None:
    crowded = replace(explanation, labels=explanation.labels * 4)
    page = open_explanation(open_page, write(tmp_path, crowded, "a" * 500), viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    open_page: OpenPage, tmp_path: Path, explanation: Explanation, viewport: Any, scheme: str
) -> None:
    page = open_explanation(open_page, write(tmp_path, explanation), viewport=viewport, color_scheme=scheme)
    assert [violation["id"] for violation in Axe().run(page).response["violations"]] == []


@pytest.mark.parametrize(
    "text", [HOSTILE, *(pytest.param(text, marks=pytest.mark.long) for text in ("\u202egnp.exe", "x" * 10_000))]
)
def test_hostile_labels_are_text(open_page: OpenPage, tmp_path: Path, explanation: Explanation, text: str) -> None:
    best = explanation.labels[0]
    hostile = replace(explanation, labels=[replace(best, label=replace(best.label, text=text))])
    page = open_explanation(open_page, write(tmp_path, hostile, address=text), viewport=PHONE)
    assert page.title().startswith("What the model looked at: ")
    assert page.locator("#labels bdi").first.text_content() == text[:1000]
    assert page.locator("#place").text_content() == text
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_without_labels_it_shows_the_answer_position(
    open_page: OpenPage, tmp_path: Path, explanation: Explanation
) -> None:
    page = open_explanation(open_page, write(tmp_path, replace(explanation, labels=[])))
    assert described(page).startswith("before any label, rollout:")
    assert page.get_by_role("radio").count() == 1 + 2 + 4
