"""Outlines of what the model saw of a picture, in a report and in an explanation, against the pixels that it saw."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from model import Recognizer
from model.images.preprocessing import ImagePreprocessor
from pipeline.explanation.page import explanation_page
from pipeline.explanation.subject import Subject
from pipeline.settings.labelling import LabelSettings
from tests.e2e.pages.explanation_pages import open_explanation
from tests.e2e.pages.report_pages import report_of
from tests.fixtures.browser import DESKTOP, PHONE, OpenPage
from tests.fixtures.corpus import encode, tar_bytes
from tests.fixtures.stored.reported import make_store

# 3:2, 2:1, 9:16, with four squares, on its side; the last has one square.
SIZES = [(360, 240), (400, 200), (180, 320), (160, 600), (500, 120), (200, 190)]
VIEWPORTS = [DESKTOP, pytest.param(PHONE, marks=pytest.mark.long)]
# Pixels of the screen for one of the page: what is cut out of a screenshot begins at a whole one.
SCALE = 3
# Shares of a picture's sides: a pixel of the screen in the smallest.
TOLERANCE = 0.015

Place = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of a picture's width and height."""


def graded(width: int, height: int) -> bytes:
    """A picture that tells of any of its parts where it lies: redder to the right, greener to the bottom."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    pixels = np.stack([red, green, np.full_like(red, 128)], axis=-1).round().astype(np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def place_of(pixels: np.ndarray) -> Place:
    """Which part of such a picture these pixels show."""
    # Edges are smoothed: what lies between them tells where they are.
    inner = slice(len(pixels) // 5, -(len(pixels) // 5))
    numbers = np.arange(len(pixels)) + 0.5
    edges = []
    for colour, other_axis in ((0, 0), (1, 1)):
        values = np.median(pixels[..., colour], axis=other_axis) / 255
        slope, start = np.polyfit(numbers[inner], values[inner], 1)
        edges.append((start, start + slope * len(pixels)))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def seen_places(data: bytes, image_size: int) -> list[Place]:
    """Where the squares lie that a recognizer of this size is given."""
    return [place_of(view.astype(float)) for view in ImagePreprocessor(image_size=image_size).views(data, 4)]


def outlined_places(shown: Locator) -> list[Place]:
    """Where the outlines lie in the picture that they are drawn on."""
    (picture,) = shown.locator("img").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().toJSON())")
    boxes = shown.locator(".outline").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().toJSON())")
    horizontal = [[(box[side] - picture["left"]) / picture["width"] for side in ("left", "right")] for box in boxes]
    vertical = [[(box[side] - picture["top"]) / picture["height"] for side in ("top", "bottom")] for box in boxes]
    return [(left, top, right, bottom) for (left, right), (top, bottom) in zip(horizontal, vertical, strict=True)]


def pictured_places(page: Page, shown: Locator) -> list[Place]:
    """Which parts of the picture lie within the outlines, by the pixels on the screen that are not theirs."""
    places = []
    outlines = shown.locator(".outline")
    boxes = [outline.bounding_box() for outline in outlines.all()]
    outlines.evaluate_all("(all) => all.forEach((one) => (one.style.visibility = 'hidden'))")
    for box in boxes:
        assert box is not None
        screen = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
        places.append(place_of(np.asarray(screen.resize((200, 200))).astype(float)))
    outlines.evaluate_all("(all) => all.forEach((one) => (one.style.visibility = 'visible'))")
    return places


def assert_alike(found: list[Place], expected: list[Place]) -> None:
    assert np.array(found) == pytest.approx(np.array(expected), abs=TOLERANCE)


@pytest.mark.parametrize("viewport", VIEWPORTS)
def test_a_report_outlines_the_squares_that_the_model_saw(open_page: OpenPage, tmp_path: Path, viewport: Any) -> None:
    pictures = [graded(*size) for size in SIZES]
    columns = [{"width": width, "height": height} for width, height in SIZES]
    shard = [{"labels": ["dog"], "columns": told} for told in columns]
    store = make_store(tmp_path, {"a": shard}, labelling={"views": 4})
    members = [(f"{number}.png", data) for number, data in enumerate(pictures)]
    (tmp_path / "shards" / "a.tar").write_bytes(tar_bytes(members))
    page = open_page(report_of(store, tmp_path), viewport=viewport, device_scale_factor=SCALE)
    page.locator(".card button").first.click()
    shown = page.locator("#detail .frame")
    for data in pictures[:-1]:
        expected = seen_places(data, 64)
        expect(shown.locator(".outline")).to_have_text([str(number + 1) for number in range(len(expected))])
        assert_alike(outlined_places(shown), expected)
        assert_alike(pictured_places(page, shown), expected)
        frame, picture = shown.bounding_box(), shown.locator("img").bounding_box()
        assert frame is not None
        assert picture is not None
        # All of it is seen, and as large as can be.
        assert picture["width"] <= frame["width"] + 0.5
        assert picture["height"] <= frame["height"] + 0.5
        assert max(picture["width"] / frame["width"], picture["height"] / frame["height"]) > 0.99
        page.keyboard.press("ArrowRight")
    expect(shown.locator("img")).to_be_visible()
    expect(shown.locator(".outline")).to_have_count(0)


@pytest.mark.parametrize("viewport", VIEWPORTS)
@pytest.mark.parametrize("size", [SIZES[0], *(pytest.param(size, marks=pytest.mark.long) for size in SIZES[1:4])])
def test_an_explanation_outlines_the_squares_that_the_model_saw(
    open_page: OpenPage, tmp_path: Path, tiny_model: Path, size: tuple[int, int], viewport: Any
) -> None:
    data = graded(*size)
    recognizer = Recognizer.from_pretrained(tiny_model, device="cpu")
    explanation = recognizer.explain(data, top_k=12, views="whole")
    subject = Subject(address="photo.png", data=b"", model="tiny", settings=LabelSettings())
    path = tmp_path / "explanation.html"
    path.write_text(explanation_page(explanation, subject), encoding="utf-8")
    page = open_explanation(open_page, path, viewport=viewport, device_scale_factor=SCALE)
    shown = page.locator("#overview")
    expected = seen_places(data, recognizer.preprocessor.image_size)
    assert_alike(outlined_places(shown), expected)
    assert_alike(pictured_places(page, shown), expected)
    chosen = shown.locator(".is-chosen")
    expect(chosen).to_have_text("1")
    page.get_by_role("radio", name=f"before any label, square {len(expected)}").check(force=True)
    expect(chosen).to_have_text(str(len(expected)))
    assert [violation["id"] for violation in Axe().run(page).response["violations"]] == []
