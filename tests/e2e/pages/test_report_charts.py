"""The report's charts and numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from pipeline.store.store import Store
from tests.e2e.pages.report_pages import IMAGE, chart_rows, report_of, write_report
from tests.fixtures.browser import DESKTOP, PHONE, OpenPage
from tests.fixtures.stored.reported import REJECTED, RUN, make_store
from tests.fixtures.stored.tables import job_record


def store_with_job(folder: Path, **job: Any) -> Store:
    """A store whose run has one job, of this record."""
    store = make_store(folder, {"a": [IMAGE]})
    store.run(RUN).write_job(job_record(RUN, **job))
    return store


def tiles(page: Page) -> dict[str, str]:
    """What the head says, by name."""
    return {
        tile.locator("dt").inner_text(): tile.locator("dd").inner_text() for tile in page.locator("#tiles > div").all()
    }


class TestCharts:
    """Drawn, with their numbers, SQL and command."""

    def test_every_chart_is_drawn_and_has_its_numbers(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_role("tab", name="Charts").click()
        charts = page.locator(".chart")
        expect(charts.first.get_by_role("img")).to_be_visible()
        assert charts.count() == 10
        for chart in charts.all():
            # Its place is there before it is drawn.
            expect(chart.get_by_role("img").locator("svg")).not_to_have_count(0)
            # What a part holds is made once it is opened.
            chart.get_by_text("Numbers", exact=True).click()
            expect(chart.locator("tbody tr")).not_to_have_count(0)
            chart.get_by_text("SQL", exact=True).click()
            expect(chart.locator("pre").first).to_contain_text("SELECT")
            chart.get_by_text("Command", exact=True).click()
            expect(chart.locator("pre").last).to_have_text(re.compile("^tagstream "))

    def test_sql_that_cannot_be_asked_as_it_stands_says_so(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_role("tab", name="Charts").click()
        for title, is_query in (("Most frequent labels", True), ("Calibration", False)):
            chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
            chart.get_by_text("SQL", exact=True).click()
            expect(chart.get_by_text("Run by the command below.")).to_have_count(0 if is_query else 1)

    def test_jobs_that_labelled_nothing_have_no_throughput(self, open_page: OpenPage, tmp_path: Path) -> None:
        store = make_store(tmp_path, {"a": [REJECTED] * 2})
        store.run(RUN).write_job(job_record(RUN, n_labelled=0, n_rejected=2, labelling_s=0.0, images_per_s=0.0))
        page = open_page(report_of(store, tmp_path))
        (row,) = chart_rows(page, "Throughput")
        assert row[1] == "done"
        chart = page.locator(".chart", has=page.get_by_role("heading", name="Throughput"))
        expect(chart.locator(".nothing")).to_have_text("None.")
        assert chart.get_by_role("img").count() == 0

    @pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_classes_of_rejected_samples_can_be_read(self, open_page: OpenPage, report: Path, viewport: Any) -> None:
        page = open_page(report, viewport=viewport)
        page.get_by_role("tab", name="Charts").click()
        chart = page.locator(".chart", has=page.get_by_role("heading", name="Rejected samples"))
        expect(chart.locator("svg").get_by_text("decode: ImageUnreadable")).to_be_visible()
        frame, name = (
            part.bounding_box()
            for part in (chart.locator("svg"), chart.locator("svg").get_by_text("decode: ImageUnreadable"))
        )
        assert frame is not None
        assert name is not None
        assert name["x"] >= frame["x"]

    def test_axes_of_counts_have_whole_numbers(self, open_page: OpenPage, tmp_path: Path) -> None:
        shards = {"a": [{"labels": ["cat"]}, REJECTED]}
        page = open_page(write_report(tmp_path, shards, other={"a": [IMAGE, REJECTED]}))
        page.get_by_role("tab", name="Charts").click()
        expected = {
            ("Rejected samples", "x"): ["0", "1"],
            ("Most frequent labels", "x"): ["0", "1"],
            ("Labels an image", "x"): ["0", "1"],
            ("Labels an image", "y"): ["0", "1"],
            ("Scores", "y"): ["0", "1"],
            ("Names gained and lost", "x"): ["1", "0", "1"],
        }
        shown = {}
        for title, axis in expected:
            chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
            ticks = chart.locator(f'svg [aria-label="{axis}-axis tick label"] text')
            expect(ticks.first).to_be_attached()
            shown[title, axis] = ticks.all_text_contents()
        assert shown == expected

    def test_charts_are_drawn_again_for_another_width(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_role("tab", name="Charts").click()
        chart = page.locator(".chart .plot svg").first
        before = chart.get_attribute("width")
        page.set_viewport_size(PHONE)
        expect(chart).not_to_have_attribute("width", str(before))
        assert int(chart.get_attribute("width") or 0) < PHONE["width"]


class TestNumbers:
    """As people read them."""

    @pytest.mark.parametrize(
        ("images_per_s", "shown"),
        [
            (0.0123, "0.012"),
            (99.7, "100"),
            pytest.param(9.96, "10", marks=pytest.mark.long),
            pytest.param(99.4, "99", marks=pytest.mark.long),
            pytest.param(12345.678, "12,346", marks=pytest.mark.long),
        ],
    )
    def test_a_rate_is_no_power_of_ten(
        self, open_page: OpenPage, tmp_path: Path, images_per_s: float, shown: str
    ) -> None:
        page = open_page(report_of(store_with_job(tmp_path, images_per_s=images_per_s), tmp_path))
        assert tiles(page)["images/s"] == shown

    def test_tables_separate_thousands(self, open_page: OpenPage, tmp_path: Path) -> None:
        job = {"n_images": 1234567890, "n_rejected": 12, "seconds": 123456.789, "images_per_s": 12.345678}
        page = open_page(report_of(store_with_job(tmp_path, **job), tmp_path))
        assert chart_rows(page, "Throughput")[0][2:] == ["1,234,567,890", "12", "123,457", "12.35"]

    @pytest.mark.parametrize(
        ("usd_per_hour", "a_million", "cost"),
        [
            (0.0001, "0.0069", "0.000000056 USD at 0.0001 USD an hour"),
            pytest.param(0.1, "6.94", "0.000056 USD at 0.1 USD an hour", marks=pytest.mark.long),
            (36_000.0, "2,500,000.00", "20.00 USD at 36,000 USD an hour"),
        ],
    )
    def test_what_costs_little_does_not_cost_nothing(
        self, open_page: OpenPage, tmp_path: Path, usd_per_hour: float, a_million: str, cost: str
    ) -> None:
        store = store_with_job(tmp_path, seconds=2.0, n_images=4)
        page = open_page(report_of(store, tmp_path, usd_per_hour=usd_per_hour))
        assert tiles(page)["USD a million"] == a_million
        page.get_by_role("tab", name="Run").click()
        expect(page.locator("#facts")).to_contain_text(cost)
