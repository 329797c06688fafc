"""The report of a run beside another one, image by image."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from pipeline.naming.vocabulary import read_vocabulary
from tests.e2e.pages.report_pages import IMAGE, chart_rows, found, report_of, shown_keys, write_report
from tests.fixtures.browser import DESKTOP, PHONE, OpenPage
from tests.fixtures.stored.reported import OTHER, REJECTED, make_store


class TestComparison:
    """Another run beside it, image by image."""

    def test_an_image_without_labels_of_the_other_run_is_compared_as_any(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        mine = [{"labels": ["dog", "cat"]}, {"labels": ["dog"]}, {"labels": ["dog"]}]
        other = [{"labels": []}, REJECTED, {"labels": ["cat"]}]
        page = open_page(write_report(tmp_path, {"a": mine}, other={"a": other}))
        page.get_by_label("Kind").select_option("gained or lost labels")
        assert shown_keys(page) == ["0", "2"]
        page.locator(".card").first.locator("button").click()
        columns = page.locator("#detail .side-by-side section")
        assert columns.first.locator(".is-gained").count() == 2
        expect(columns.last).to_have_text(re.compile(f"{OTHER}.*none"))
        page.keyboard.press("Escape")
        names_gained = chart_rows(page, "Names gained and lost")
        assert names_gained == [["cat", "1", "1", "0"], ["dog", "2", "0", "0"]]

    def test_images_and_charts_count_the_same_changes(self, open_page: OpenPage, report: Path) -> None:
        # All images of the run are on the page.
        (text,) = re.findall(r'id="page-data">(.*?)</script>', report.read_text(), re.DOTALL)
        page = open_page(report)
        changes = page.evaluate("(images) => images.map(changesOf)", json.loads(text)["images"])
        gained, lost = (Counter(name for change in changes for name in change[what]) for what in ("gained", "lost"))
        rows = chart_rows(page, "Names gained and lost")
        assert {name: (int(n_gained), int(n_lost)) for name, n_gained, n_lost, _ in rows} == {
            name: (gained[name], lost[name]) for name in gained | lost
        }
        assert gained.total() > 50

    def test_what_the_other_run_rejected_is_said_and_not_compared(self, open_page: OpenPage, tmp_path: Path) -> None:
        page = open_page(write_report(tmp_path, {"a": [IMAGE, IMAGE]}, other={"a": [REJECTED, IMAGE]}))
        page.locator(".card").first.locator("button").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"rejected by {OTHER}: decode: ImageUnreadable")
        assert page.locator("#detail .is-gained").count() == 0

    def test_images_are_compared_by_as_many_labels_as_the_charts_are(self, open_page: OpenPage, tmp_path: Path) -> None:
        words = [f"word {chr(97 + n)}" for n in range(14)]
        # Of twelve labels ten are compared; the last of those is another one in the second image.
        mine = [{"labels": words[:12]}, {"labels": [*words[:9], "dog", "cat"]}]
        other = [{"labels": words[:10]}, {"labels": words[:10]}]
        store = make_store(tmp_path, {"a": mine}, other={"a": other}, top_ks=(20, 10))
        page = open_page(report_of(store, tmp_path, compare=OTHER))
        page.get_by_label("Kind").select_option("gained or lost labels")
        assert shown_keys(page) == ["1"]
        expect(page.locator(".card .is-gained .bar-text")).to_have_count(0)
        expect(page.locator(".card .remark.is-gained")).to_have_text("gained: dog")
        expect(page.locator(".card .remark.is-lost")).to_have_text("lost: word j")
        page.locator(".card").first.locator("button").click()
        assert page.locator("#detail .is-gained .bar-text").all_inner_texts() == ["dog"]
        assert page.locator("#detail .is-lost .bar-text").all_inner_texts() == ["word j"]
        expect(page.get_by_role("dialog")).to_contain_text("first 10")
        page.keyboard.press("Escape")
        assert chart_rows(page, "Names gained and lost") == [["dog", "1", "0", "0"], ["word j", "0", "1", "1"]]

    @pytest.mark.long
    def test_sensitive_names_take_their_places_among_those_that_are_compared(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        words = [f"word {chr(97 + n)}" for n in range(11)]
        store = make_store(tmp_path, {"a": [{"labels": words}]}, other={"a": [{"labels": words[:10]}]}, top_ks=(20, 10))
        vocabulary = replace(read_vocabulary(None), sensitive=frozenset({"word c"}))
        page = open_page(report_of(store, tmp_path, compare=OTHER, vocabulary=vocabulary))
        expect(page.locator("#left-out")).to_contain_text("1 name that the vocabulary default-")
        expect(page.locator(".card")).not_to_contain_text("word c")
        # The eleventh of the run is not the tenth of what is shown.
        page.get_by_label("Kind").select_option("gained or lost labels")
        assert found(page) == 0

    def test_the_run_with_fewer_labels_says_how_many_are_compared(self, open_page: OpenPage, tmp_path: Path) -> None:
        mine, other = [{"labels": ["dog", "cat", "sky"]}], [{"labels": ["cat", "dog"]}]
        store = make_store(tmp_path, {"a": mine}, other={"a": other}, top_ks=(10, 2))
        page = open_page(report_of(store, tmp_path, compare=OTHER))
        page.get_by_label("Kind").select_option("gained or lost labels")
        assert found(page) == 0
        page.get_by_role("tab", name="Charts").click()
        expect(page.locator("#charts")).to_contain_text("among the first 2 and")

    @pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_cards_have_room_for_all_that_they_say(self, open_page: OpenPage, tmp_path: Path, viewport: Any) -> None:
        mine = {"a": [{"labels": ["tree", "cat", "car", "bird", "sky"], "truth": ["photo"]}]}
        page = open_page(write_report(tmp_path, mine, other={"a": [IMAGE]}), viewport=viewport)
        remarks = page.locator(".card .remark")
        assert [text.split(":")[0] for text in remarks.all_inner_texts()] == ["missed", "gained", "lost"]
        assert remarks.evaluate_all("(all) => all.every((one) => one.scrollHeight <= one.clientHeight)")
        card, last = page.locator(".card").bounding_box(), remarks.last.bounding_box()
        assert card is not None
        assert last is not None
        assert last["y"] + last["height"] < card["y"] + card["height"]

    def test_bars_of_the_other_run_are_drawn_by_its_own_ranking(self, open_page: OpenPage, tmp_path: Path) -> None:
        mine, other = [{"labels": [("dog", 0.9)]}], [{"labels": [("dog", 4.0)]}]
        store = make_store(tmp_path, {"a": mine}, other={"a": other}, rankings=("prob", "ppl"))
        page = open_page(report_of(store, tmp_path, compare=OTHER))
        page.locator(".card").first.locator("button").click()
        widths = page.locator("#detail .bar-filled").evaluate_all("(bars) => bars.map((bar) => bar.style.width)")
        assert widths == ["90%", "25%"]
        expect(page.get_by_role("dialog")).to_contain_text("prob and ppl are not comparable")

    def test_nothing_is_said_of_rankings_where_they_are_the_same(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.locator(".card").first.locator("button").click()
        expect(page.get_by_role("dialog")).not_to_contain_text("comparable")

    def test_what_the_run_itself_rejected_is_not_lost(self, open_page: OpenPage, tmp_path: Path) -> None:
        page = open_page(write_report(tmp_path, {"a": [REJECTED, IMAGE]}, other={"a": [IMAGE, IMAGE]}))
        page.get_by_label("Kind").select_option("gained or lost labels")
        assert found(page) == 0
        page.get_by_label("Kind").select_option("rejected")
        page.locator(".card").first.locator("button").click()
        expect(page.locator("#detail .side-by-side section").last).to_contain_text("dog")
        assert page.locator("#detail .is-lost").count() == 0
