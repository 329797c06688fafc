"""The report in a browser, from the disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pipeline.analysis.vocabulary import read_vocabulary
from pipeline.report.job import Report, ReportRequest
from pipeline.store import Store
from tests.e2e.pages.conftest import DESKTOP, PHONE, OpenPage
from tests.fixtures.report_stores import OTHER, REJECTED, RUN, make_store, random_shards
from tests.fixtures.tables import job_record

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"quoted\" 'single' & `back` ${alert(3)}",
    "\u202eright to left\u202c",
    "שלום עולם",
    "nul \x00 and \x1b[31m",
    "w" * 10_000,
    "javascript:alert(4)",
]
IMAGE = {"labels": ["dog"]}
# What axe calls serious keeps people from using a page.
GRAVE = {"serious", "critical"}


def write_report(folder: Path, shards: Any, **options: Any) -> Path:
    other = options.pop("other", None)
    ranking = options.pop("ranking", "prob")
    store = make_store(folder, shards, other=other, rankings=(ranking, ranking))
    return report_of(store, folder, compare=OTHER if other else None, **options)


def report_of(store: Store, folder: Path, **options: Any) -> Path:
    out = folder / "report.html"
    Report(ReportRequest(store=store.url, out=str(out), run=RUN, vocabulary=read_vocabulary(None), **options)).write()
    return out


@pytest.fixture(scope="module")
def shards() -> dict[str, list[dict[str, Any]]]:
    shards = random_shards(3, 20, seed=5)
    shards["s001"].append(REJECTED)
    return shards


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, shards: Any) -> Path:
    """Sixty images and a rejected sample, beside another run."""
    return write_report(tmp_path_factory.mktemp("report"), shards, other=random_shards(3, 20, seed=6))


@pytest.fixture(scope="module")
def large_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("large"), random_shards(4, 500), sample=2000)


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [{"labels": [(text, 0.5), ("dog", 0.25)], "caption": text, "truth": [text]} for text in HOSTILE]
    rejected = {**REJECTED, "columns": {**REJECTED["columns"], "error": HOSTILE[0], "message": HOSTILE[1]}}
    return write_report(tmp_path_factory.mktemp("hostile"), {"a": [*images, rejected]})


def found(page: Page) -> int:
    """How many images the page says it shows."""
    text = page.get_by_role("status").inner_text()
    (number,) = re.findall(r"^[\d,]+", text)
    return int(number.replace(",", ""))


def shown_keys(page: Page) -> list[str]:
    return page.locator(".card-key").all_inner_texts()


def n_columns(page: Page) -> int:
    """Of the grid: cards that stand as high as the first one."""
    tops = page.locator(".card").evaluate_all("(cards) => cards.map((card) => card.getBoundingClientRect().top)")
    return sum(top == tops[0] for top in tops)


def searched_texts(shards: Any) -> list[str]:
    """Of each image its caption, labels and truth, and what the other run lists for it."""
    texts = []
    for shard, others in random_shards(3, 20, seed=6).items():
        for mine, other in zip(shards[shard], others, strict=False):
            labels = [label for label, _ in [*mine["labels"], *other["labels"]]]
            texts.append(" ".join([mine["caption"], *labels, *(mine["truth"] or [])]))
    return texts


def store_with_job(folder: Path, **job: Any) -> Store:
    """A store whose run has one job, of this record."""
    store = make_store(folder, {"a": [IMAGE]})
    store.write_job(job_record(RUN, **job))
    return store


def tiles(page: Page) -> dict[str, str]:
    """What the head says, by name."""
    return {
        tile.locator("dt").inner_text(): tile.locator("dd").inner_text() for tile in page.locator("#tiles > div").all()
    }


def chart_rows(page: Page, title: str) -> list[list[str]]:
    """The numbers of a chart, as its table shows them."""
    page.get_by_role("tab", name="Charts").click()
    chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
    chart.get_by_text("Numbers", exact=True).click()
    expect(chart.locator("tbody tr").first).to_be_visible()
    return [row.locator("td").all_inner_texts() for row in chart.locator("tbody tr").all()]


def true_names(image: dict[str, Any]) -> set[str | None]:
    name_of = read_vocabulary(None).name_of
    return {name_of(label) for label in image["truth"] or []} - {None}


def listed_names(image: dict[str, Any]) -> list[str | None]:
    return [read_vocabulary(None).name_of(label) for label, _ in image["labels"]]


class TestGallery:
    """Images, search, filters, orders."""

    def test_images_are_drawn_with_their_labels(self, open_page: OpenPage, report: Path, shards: Any) -> None:
        page = open_page(report)
        assert found(page) == 61
        card = page.locator(".card").first
        expect(card).to_contain_text(shards["s000"][0]["labels"][0][0])
        assert card.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 96

    def test_a_search_finds_labels_captions_and_keys(self, open_page: OpenPage, report: Path, shards: Any) -> None:
        page = open_page(report)
        page.keyboard.press("/")
        page.keyboard.type("HOT dog")
        texts = [text.lower() for text in searched_texts(shards)]
        assert 0 < found(page) == sum("hot" in text and "dog" in text for text in texts) < 61
        page.get_by_role("button", name="Clear").click()
        expect(page.get_by_role("status")).to_contain_text("61 images")

    def test_a_label_and_its_lowest_score_filter(self, open_page: OpenPage, report: Path, shards: Any) -> None:
        page = open_page(report)
        page.get_by_label("Label", exact=True).fill("dog")
        page.get_by_label("Score from").fill("0.5")
        expected = [
            image
            for images in shards.values()
            for image in images
            if any(
                name == "dog" and score >= 0.5
                for name, (_, score) in zip(listed_names(image), image["labels"], strict=True)
            )
        ]
        assert 0 < found(page) == len(expected) < 30

    @pytest.mark.parametrize(
        ("typed", "keys"),
        [
            ("Ambul", ["0", "1", "2"]),
            ("AMBULANCE", ["0", "1"]),
            ("ambulances", ["1"]),
            ("hot_dog", ["3"]),
            ("hot-", ["3"]),
            ("dog", []),
            ("bulance", []),
        ],
    )
    def test_a_label_is_found_in_any_case_and_by_its_beginning(
        self, open_page: OpenPage, tmp_path: Path, typed: str, keys: list[str]
    ) -> None:
        labels = ["ambulance", "Ambulances", "ambulance driver", "hot dog"]
        page = open_page(write_report(tmp_path, {"a": [{"labels": [label]} for label in labels]}))
        page.get_by_label("Label", exact=True).fill(typed)
        assert shown_keys(page) == keys

    def test_of_very_many_labels_the_most_frequent_are_proposed(self, open_page: OpenPage, tmp_path: Path) -> None:
        # More than a call can have arguments.
        images = [
            {"labels": ["zebra"] + [f"label number {image * 100 + rank} of many" for rank in range(99)]}
            for image in range(1500)
        ]
        page = open_page(write_report(tmp_path, {"a": images}, sample=1500))
        assert found(page) == 1500
        proposed = page.locator("#label-names option").evaluate_all(
            "(options) => options.map((option) => option.value)"
        )
        assert len(proposed) == 2000
        assert proposed == sorted(proposed)
        assert proposed[-1] == "zebra"

    @pytest.mark.parametrize(
        ("choice", "holds"),
        [
            ("with a hit", lambda true, listed: bool(true & set(listed))),
            ("with a miss", lambda true, listed: bool(true - set(listed))),
            ("all found", lambda true, listed: bool(true) and true <= set(listed)),
            ("best label true", lambda true, listed: listed[0] in true),
        ],
    )
    def test_hits_and_misses_filter(
        self, open_page: OpenPage, report: Path, shards: Any, choice: str, holds: Any
    ) -> None:
        page = open_page(report)
        page.get_by_label("Truth").select_option(choice)
        labelled = [image for images in shards.values() for image in images if image is not REJECTED]
        assert 0 < found(page) == sum(holds(true_names(image), listed_names(image)) for image in labelled)

    def test_kinds_and_shards_filter(self, open_page: OpenPage, report: Path, shards: Any) -> None:
        page = open_page(report)
        page.locator("select[name=shard]").select_option("s001")
        assert found(page) == 21
        page.get_by_label("Kind").select_option("rejected")
        assert found(page) == 1
        expect(page.locator(".card")).to_contain_text("decode: ImageUnreadable")
        page.locator("select[name=shard]").select_option("any")
        page.get_by_label("Kind").select_option("with unfinished branches")
        unfinished = [image for images in shards.values() for image in images if image["columns"].get("n_unfinished")]
        assert found(page) == len(unfinished)

    def test_the_worst_recall_comes_first(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_label("Order").select_option("worst recall")
        page.locator(".card").first.locator("button").click()
        expect(page.locator(".truth li").first).to_contain_text("missed")
        assert page.locator(".truth .is-hit").count() == 0

    def test_the_lowest_best_score_comes_first(self, open_page: OpenPage, report: Path, shards: Any) -> None:
        page = open_page(report)
        page.get_by_label("Order").select_option("lowest best score")
        lowest = min(image["labels"][0][1] for images in shards.values() for image in images if image["labels"])
        expect(page.locator(".card").first.locator(".bar-score").first).to_have_text(f"{lowest:.3f}")

    def test_of_perplexities_the_lowest_are_the_best(self, open_page: OpenPage, tmp_path: Path) -> None:
        images = [{"labels": [("dog", 1.5)]}, {"labels": [("dog", 80.0)]}, {"labels": [("dog", 6.0)]}]
        page = open_page(write_report(tmp_path, {"a": images}, ranking="ppl"))
        page.get_by_label("Order").select_option("lowest best score")
        assert shown_keys(page) == ["1", "2", "0"]
        page.get_by_label("Score up to").fill("6")
        assert shown_keys(page) == ["2", "0"]

    def test_what_another_run_lists_is_marked(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_label("Order").select_option("most changed")
        page.locator(".card").first.locator("button").click()
        expect(page.get_by_role("heading", name=OTHER)).to_be_visible()
        assert page.locator("#detail .is-gained").count() + page.locator("#detail .is-lost").count() > 3

    def test_two_thousand_images_make_no_more_elements_than_are_in_sight(
        self, open_page: OpenPage, large_report: Path
    ) -> None:
        page = open_page(large_report)
        assert found(page) == 2000
        counts = []
        for _ in range(30):
            page.mouse.wheel(0, 4000)
            page.wait_for_timeout(20)
            counts.append(page.locator(".card").count())
        assert max(counts) < 80
        page.locator(".card").last.locator("button").focus()
        page.keyboard.press("End")
        expect(page.locator(":focus")).to_have_text("499")
        expect(page.locator(".card:has(:focus)")).to_have_attribute("aria-posinset", "2000")

    def test_the_tabs_do_not_lie_over_the_image_that_has_the_focus(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.locator(".card button").first.focus()
        page.keyboard.press("End")
        for _ in range(4):
            page.keyboard.press("ArrowUp")
        card, tabs = page.locator(".card:has(:focus)").bounding_box(), page.locator(".tabs").bounding_box()
        assert card is not None
        assert tabs is not None
        assert card["y"] >= tabs["y"] + tabs["height"]


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


class TestKeyboard:
    """Without a mouse."""

    def test_arrows_walk_through_the_images_and_enter_opens_one(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_role("button", name="Clear").focus()
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text(shown_keys(page)[0])
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        columns = n_columns(page)
        expect(page.locator(".card:has(:focus)")).to_have_attribute("aria-posinset", str(columns + 2))
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(f"{columns + 2} of 61")
        page.keyboard.press("ArrowRight")
        expect(dialog).to_contain_text(f"{columns + 3} of 61")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.locator(".card:has(:focus)")).to_have_attribute("aria-posinset", str(columns + 3))

    def test_arrows_change_the_view(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Charts")).to_be_focused()
        expect(page.get_by_role("heading", name="Most frequent labels")).to_be_visible()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_text("Where the time went")).to_be_visible()

    def test_the_first_and_the_last_image_are_the_ends(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.locator(".card").first.locator("button").click()
        expect(page.get_by_role("button", name="Image before")).to_be_disabled()
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("dialog")).to_contain_text("1 of 61")

    @pytest.mark.parametrize(("button", "end", "back"), [("Image before", 1, 2), ("Next image", 61, 60)])
    def test_arrows_go_on_where_a_button_has_come_to_an_end(
        self, open_page: OpenPage, report: Path, button: str, end: int, back: int
    ) -> None:
        page = open_page(report)
        page.locator(".card button").first.focus()
        page.keyboard.press("End" if end > 1 else "Home")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowLeft" if end > 1 else "ArrowRight")
        dialog, walk = page.get_by_role("dialog"), page.get_by_role("button", name=button)
        walk.focus()
        for _ in range(3):
            page.keyboard.press("Enter")
        expect(dialog).to_contain_text(f"{end} of 61")
        expect(walk).to_be_focused()
        expect(walk).to_be_disabled()
        page.keyboard.press("ArrowLeft" if end > 1 else "ArrowRight")
        expect(dialog).to_contain_text(f"{back} of 61")
        expect(walk).to_be_enabled()

    def test_another_width_of_the_window_leaves_the_focus_where_it_is(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.locator(".card button").first.focus()
        for _ in range(7):
            page.keyboard.press("ArrowRight")
        columns = n_columns(page)
        page.set_viewport_size({"width": 700, "height": 900})
        page.wait_for_function("() => document.getElementById('grid').clientWidth < 700")
        expect(page.locator(".card:has(:focus)")).to_have_attribute("aria-posinset", "8")
        expect(page.locator(".card:has(:focus)")).to_be_in_viewport()
        assert n_columns(page) < columns

    def test_a_filter_that_is_typed_keeps_the_focus(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.locator(".card button").first.focus()
        page.keyboard.press("/")
        page.keyboard.type("dog")
        expect(page.get_by_label("Search")).to_be_focused()


class TestCharts:
    """Drawn, with their numbers, SQL and command."""

    def test_every_chart_is_drawn_and_has_its_numbers(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_role("tab", name="Charts").click()
        charts = page.locator(".chart")
        expect(charts.first.get_by_role("img")).to_be_visible()
        assert charts.count() == 10
        for chart in charts.all():
            assert chart.get_by_role("img").locator("svg").count() >= 1
            for part in ("Numbers", "SQL", "Command"):
                chart.get_by_text(part, exact=True).click()
            assert chart.locator("tbody tr").count() > 0
            assert "SELECT" in chart.locator("pre").first.inner_text()
            assert chart.locator("pre").last.inner_text().startswith("tagstream ")

    def test_sql_that_cannot_be_asked_as_it_stands_says_so(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.get_by_role("tab", name="Charts").click()
        for title, is_query in (("Most frequent labels", True), ("Calibration", False)):
            chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
            chart.get_by_text("SQL", exact=True).click()
            expect(chart.get_by_text("Run by the command below.")).to_have_count(0 if is_query else 1)

    def test_jobs_that_labelled_nothing_have_no_throughput(self, open_page: OpenPage, tmp_path: Path) -> None:
        store = make_store(tmp_path, {"a": [REJECTED] * 2})
        store.write_job(job_record(RUN, n_labelled=0, n_rejected=2, labelling_s=0.0, images_per_s=0.0))
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

    @pytest.mark.parametrize(
        ("title", "axis", "expected"),
        [
            ("Rejected samples", "x", ["0", "1"]),
            ("Most frequent labels", "x", ["0", "1"]),
            ("Labels an image", "x", ["0", "1"]),
            ("Labels an image", "y", ["0", "1"]),
            ("Scores", "y", ["0", "1"]),
            ("Names gained and lost", "x", ["1", "0", "1"]),
        ],
    )
    def test_axes_of_counts_have_whole_numbers(
        self, open_page: OpenPage, tmp_path: Path, title: str, axis: str, expected: list[str]
    ) -> None:
        shards = {"a": [{"labels": ["cat"]}, REJECTED]}
        page = open_page(write_report(tmp_path, shards, other={"a": [IMAGE, REJECTED]}))
        page.get_by_role("tab", name="Charts").click()
        chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
        ticks = chart.locator(f'svg [aria-label="{axis}-axis tick label"] text')
        expect(ticks.first).to_be_visible()
        assert ticks.all_text_contents() == expected

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
        [(0.0123, "0.012"), (9.96, "10"), (99.4, "99"), (99.7, "100"), (12345.678, "12,346")],
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
            (0.0001, "0.014", "0.000000056 USD at 0.0001 USD an hour"),
            (0.1, "13.89", "0.000056 USD at 0.1 USD an hour"),
            (36_000.0, "5,000,000.00", "20.00 USD at 36,000 USD an hour"),
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


class TestEverybody:
    """Screen readers, phones, dark rooms."""

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_axe_finds_nothing_grave(self, open_page: OpenPage, report: Path, viewport: Any, scheme: str) -> None:
        page = open_page(report, viewport=viewport, color_scheme=scheme)
        results = {"images": Axe().run(page)}
        page.locator(".card").first.locator("button").click()
        results["detail"] = Axe().run(page)
        page.keyboard.press("Escape")
        for view in ("Charts", "Run"):
            page.get_by_role("tab", name=view).click()
            for summary in page.get_by_text("Numbers", exact=True).all():
                if summary.is_visible():
                    summary.click()
            for plot in page.locator(".plot").all():
                if plot.is_visible():
                    plot.hover()
            results[view] = Axe().run(page)
        grave = [
            (view, violation["id"], violation["nodes"][0]["html"][:200])
            for view, result in results.items()
            for violation in result.response["violations"]
            if violation["impact"] in GRAVE
        ]
        assert grave == []

    def test_on_a_phone_the_filters_come_when_they_are_asked_for(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report, viewport=PHONE)
        kind = page.get_by_label("Kind")
        expect(kind).to_be_hidden()
        page.get_by_role("button", name="Filters").click()
        kind.select_option("rejected")
        assert found(page) == 1

    @pytest.mark.parametrize("width", [320, 390, 768, 1366, 2560])
    def test_nothing_is_wider_than_the_screen(self, open_page: OpenPage, hostile_report: Path, width: int) -> None:
        page = open_page(hostile_report, viewport={"width": width, "height": 800})
        for view in ("Images", "Charts", "Run"):
            page.get_by_role("tab", name=view).click()
            page.wait_for_timeout(100)
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width


class TestLongLists:
    """More true names than a page shows."""

    def test_what_is_left_out_is_counted_and_filters_as_all_do(self, open_page: OpenPage, tmp_path: Path) -> None:
        words = [f"word {chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(150)]
        images = [
            {"labels": words[:5], "truth": words},
            {"labels": words[:5], "truth": words[:5]},
            {"labels": words, "truth": words},
            {"labels": ["dog", words[0]], "truth": words[:2]},
            {"labels": words[:149], "truth": words},
        ]
        page = open_page(write_report(tmp_path, {"a": images}))
        page.get_by_label("Order").select_option("worst recall")
        assert shown_keys(page) == ["0", "3", "4", "1", "2"]
        page.get_by_label("Truth").select_option("all found")
        assert shown_keys(page) == ["1", "2"]
        page.get_by_label("Truth").select_option("with a miss")
        assert shown_keys(page) == ["0", "3", "4"]
        page.locator(".card").first.locator("button").click()
        assert page.locator(".truth li").count() == 101
        expect(page.locator(".truth li").last).to_have_text("and 50 more, 50 missed")


class TestHostileText:
    """Labels and captions that want to be more than text."""

    def test_they_are_shown_as_text(self, open_page: OpenPage, hostile_report: Path) -> None:
        page = open_page(hostile_report)
        elements = page.locator("script, img[src='x']").count()
        page.locator(".card").first.locator("button").click()
        for text in HOSTILE:
            shown = page.locator("#detail .bar-text").first.evaluate("(node) => node.textContent")
            assert shown == text[:200]
            page.keyboard.press("ArrowRight")
        expect(page.get_by_role("dialog")).to_contain_text(HOSTILE[1])
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="Charts").click()
        for summary in page.get_by_text("Numbers", exact=True).all():
            summary.click()
        assert HOSTILE[0] in page.locator("#charts").evaluate("(node) => node.textContent")
        assert page.locator("script, img[src='x']").count() == elements

    def test_a_text_does_not_turn_the_direction_of_what_stands_beside_it(
        self, open_page: OpenPage, hostile_report: Path
    ) -> None:
        page = open_page(hostile_report)
        row = page.locator(".card").nth(3).locator(".bar-row").first
        text, score = row.locator(".bar-text").bounding_box(), row.locator(".bar-score").bounding_box()
        assert text is not None
        assert score is not None
        assert text["x"] < score["x"]
        assert row.locator(".bar-score").inner_text() == "0.500"
