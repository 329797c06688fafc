"""The report in a browser, from the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from pipeline.naming.vocabulary import read_vocabulary
from tests.e2e.pages.report_pages import found, n_columns, shown_keys, wait_for_fewer_columns, write_report
from tests.fixtures.browser import DESKTOP, PHONE, WIDTHS, OpenPage
from tests.fixtures.stored.reported import OTHER, REJECTED, random_shards

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
# What axe calls serious keeps people from using a page.
GRAVE = {"serious", "critical"}


@pytest.fixture(scope="module")
def large_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("large"), random_shards(4, 500), sample=2000)


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [{"labels": [(text, 0.5), ("dog", 0.25)], "caption": text, "truth": [text]} for text in HOSTILE]
    rejected = {**REJECTED, "columns": {**REJECTED["columns"], "error": HOSTILE[0], "message": HOSTILE[1]}}
    return write_report(tmp_path_factory.mktemp("hostile"), {"a": [*images, rejected]})


def searched_texts(shards: Any) -> list[str]:
    """Of each image its caption, labels and truth, and what the other run lists for it."""
    texts = []
    for shard, others in random_shards(3, 20, seed=6).items():
        for mine, other in zip(shards[shard], others, strict=False):
            labels = [label for label, _ in [*mine["labels"], *other["labels"]]]
            texts.append(" ".join([mine["caption"], *labels, *(mine["truth"] or [])]))
    return texts


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
        # A compared report opens on what changed.
        order = page.get_by_label("Order")
        expect(order).to_have_value("changed")
        order.select_option("drawn")
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

    def test_a_label_is_found_in_any_case_and_by_its_beginning(self, open_page: OpenPage, tmp_path: Path) -> None:
        labels = ["ambulance", "Ambulances", "ambulance driver", "hot dog"]
        page = open_page(write_report(tmp_path, {"a": [{"labels": [label]} for label in labels]}))
        expected = {
            "Ambul": ["0", "1", "2"],
            "AMBULANCE": ["0", "1"],
            "ambulances": ["1"],
            "hot_dog": ["3"],
            "hot-": ["3"],
            "dog": [],
            "bulance": [],
        }
        shown = {}
        for typed in expected:
            page.get_by_label("Label", exact=True).fill(typed)
            shown[typed] = shown_keys(page)
        assert shown == expected

    @pytest.mark.long
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

    @pytest.mark.long
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
        wait_for_fewer_columns(page, columns)
        expect(page.locator(".card:has(:focus)")).to_have_attribute("aria-posinset", "8")
        expect(page.locator(".card:has(:focus)")).to_be_in_viewport()

    def test_a_filter_that_is_typed_keeps_the_focus(self, open_page: OpenPage, report: Path) -> None:
        page = open_page(report)
        page.locator(".card button").first.focus()
        page.keyboard.press("/")
        page.keyboard.type("dog")
        expect(page.get_by_label("Search")).to_be_focused()


class TestEverybody:
    """Screen readers, phones, dark rooms."""

    # Colours are of the scheme, sizes of the screen: two pairs meet both of each.
    @pytest.mark.parametrize(
        ("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop-light", "phone-dark"]
    )
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

    @pytest.mark.parametrize("width", WIDTHS)
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
