"""The page of an explanation in a browser: chosen with the keyboard, read aloud, harmless."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model import Explanation, Recognizer
from pipeline.explanation.page import explanation_page
from pipeline.explanation.subject import Subject
from pipeline.settings import LabelSettings
from tests.fixtures.chromium import headless_chromium, open_page
from tests.fixtures.corpus import jpeg

HOSTILE = "</script><script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with headless_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def explanation(tiny_model: Path) -> Explanation:
    return Recognizer.from_pretrained(tiny_model, device="cpu").explain(jpeg(1), top_k=6)


def write(folder: Path, explanation: Explanation, place: str = "photo.jpg") -> Path:
    subject = Subject(place=place, data=b"", model="tiny", settings=LabelSettings())
    path = folder / "explanation.html"
    path.write_text(explanation_page(explanation, subject), encoding="utf-8")
    return path


def described(page: Any) -> str:
    return str(page.locator("#described").inner_text())


def stage_pixels(page: Any) -> np.ndarray:
    encoded = page.evaluate("document.getElementById('stage').toDataURL()").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")).astype(int)


def test_labels_and_maps_are_chosen_with_the_keyboard_alone(
    chromium: Any, tmp_path: Path, explanation: Explanation
) -> None:
    with open_page(chromium, write(tmp_path, explanation)) as opened:
        page = opened.page
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
        assert opened.faults == []


def test_the_chosen_map_is_described_and_drawn(chromium: Any, tmp_path: Path, explanation: Explanation) -> None:
    best = explanation.labels[0]
    maps = best.maps.clone()
    maps[1, 0] = 0
    maps[1, 0, 2, 3] = 0.5
    planted = replace(explanation, labels=[replace(best, maps=maps)])
    with open_page(chromium, write(tmp_path, planted)) as opened:
        page = opened.page
        page.get_by_role("radio", name=best.label.text).check(force=True)
        page.get_by_role("radio", name="layer 1 head 0").check(force=True)
        page.locator("#opacity").fill("100")
        told = "layer 1 head 0: 50\u00a0% on the image; most, 50.0\u00a0%, on the patch in row 3 of 4, column 4 of 4."
        assert described(page) == f"{best.label.text}, {told}"
        assert told in page.locator("#stage").get_attribute("aria-label")
        brightness = stage_pixels(page).sum(axis=-1)
        assert brightness[560, 784] > 500 > 100 > brightness[112, 112]
        assert opened.faults == []


def test_the_slider_uncovers_the_photograph(chromium: Any, tmp_path: Path, explanation: Explanation) -> None:
    with open_page(chromium, write(tmp_path, explanation)) as opened:
        covered = stage_pixels(opened.page)
        opened.page.locator("#opacity").fill("0")
        uncovered = stage_pixels(opened.page)
        photograph = np.asarray(explanation.view.resize((896, 896))).astype(int)
        assert np.abs(uncovered - photograph).mean() < 8 < np.abs(covered - photograph).mean()


@pytest.mark.parametrize(("width", "height", "scheme"), [(360, 740, "dark"), (1600, 1000, "light")])
def test_it_fits_phone_and_desktop(
    chromium: Any, tmp_path: Path, explanation: Explanation, width: int, height: int, scheme: str
) -> None:
    page_of_words = replace(explanation, labels=explanation.labels * 4)
    with open_page(
        chromium, write(tmp_path, page_of_words, "a" * 500), width=width, height=height, scheme=scheme
    ) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width
        assert opened.faults == []


@pytest.mark.parametrize("text", [HOSTILE, "\u202egnp.exe", "x" * 10_000])
def test_hostile_labels_are_text(chromium: Any, tmp_path: Path, explanation: Explanation, text: str) -> None:
    best = explanation.labels[0]
    hostile = replace(explanation, labels=[replace(best, label=replace(best.label, text=text))])
    with open_page(chromium, write(tmp_path, hostile, place=text), width=360) as opened:
        page = opened.page
        assert page.title().startswith("What the model looked at: ")
        assert page.locator("#labels bdi").first.text_content() == text[:1000]
        assert page.locator("#place").text_content() == text
        assert page.locator("img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert opened.faults == []


def test_without_labels_it_shows_the_answer_position(chromium: Any, tmp_path: Path, explanation: Explanation) -> None:
    with open_page(chromium, write(tmp_path, replace(explanation, labels=[]))) as opened:
        assert described(opened.page).startswith("before any label, rollout:")
        assert opened.page.get_by_role("radio").count() == 1 + 2 + 4
        assert opened.faults == []
