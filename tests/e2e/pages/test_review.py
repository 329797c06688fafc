"""The page for review in a browser, from the disk, and what comes back of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.reviews.drawing import Draw
from pipeline.reviews.job import AddedReviews, SampleRequest, import_reviews, sample_for_review
from pipeline.store.store import Store
from tests.e2e.pages.test_report import HOSTILE
from tests.fixtures.browser import DESKTOP, PHONE, OpenPage
from tests.fixtures.stored.reported import RUN, make_store

IMAGES = [{"labels": ["dog", "cat", "tree"]}, {"labels": ["hot dog", "sky"]}, {"labels": []}, {"labels": ["bird"]}]
# Whether the browser had answered when the page first asked for its storage.
NOTE_FIRST_USE = """
const query = LockManager.prototype.query;
LockManager.prototype.query = async function () {
  const answer = await query.call(this);
  window.hasAnswered = true;
  return answer;
};
for (const name of ["getItem", "setItem", "removeItem"]) {
  const act = Storage.prototype[name];
  Storage.prototype[name] = function (...values) {
    window.wasAnswered ??= window.hasAnswered === true;
    return act.apply(this, values);
  };
}
"""
WITHOUT_STORAGE = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })"


def write_page(store: Store, folder: Path) -> Path:
    """The page of all images, in the order of the shard."""
    out = folder / "review.html"
    draw = Draw(by="random", n=len(IMAGES) * 1000)
    vocabulary = read_vocabulary(None)
    sample_for_review(
        SampleRequest(store=store.url, run=RUN, draw=draw, to="page", out=str(out), vocabulary=vocabulary)
    )
    return out


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, {"a": IMAGES})


@pytest.fixture
def review(store: Store, tmp_path: Path) -> Path:
    return write_page(store, tmp_path)


@pytest.fixture(scope="module")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("hostile"), {"a": [{"labels": HOSTILE[:5]}, {"labels": HOSTILE[5:]}]})


@pytest.fixture(scope="module")
def hostile_review(hostile_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(hostile_store, tmp_path_factory.mktemp("page"))


def started(page: Page) -> Page:
    """The page once it shows a picture: before, it waits for the browser, and keys do nothing."""
    expect(page.locator("#place")).to_contain_text("Picture")
    return page


@pytest.fixture
def open_review(open_page: OpenPage) -> OpenPage:
    return lambda file, **options: started(open_page(file, **options))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def saved(page: Page, folder: Path, key: str = "s") -> Path:
    with page.expect_download() as download:
        page.keyboard.press(key)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def decisions(path: Path) -> list[tuple[str, str]]:
    return [(decision["name"], decision["verdict"]) for decision in json.loads(path.read_text())["decisions"]]


def counts(page: Page) -> str:
    return page.locator("#counts").inner_text()


def test_with_the_keyboard_alone_what_was_decided_comes_back_to_the_store(
    open_review: OpenPage, store: Store, review: Path, tmp_path: Path
) -> None:
    page = open_review(review)
    expect(page.get_by_role("heading", name="Picture 1 of 4")).to_be_visible()
    picture = page.locator("#frame img")
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 96
    press(page, "y", "n", "u")
    expect(page.get_by_role("button", name="Next", exact=True)).to_be_focused()
    # One key too many, and what is missing.
    press(page, "n", "a")
    page.keyboard.type("Red  Fox")
    press(page, "Enter", "Escape", "ArrowRight", "Shift+N", "Enter")
    expect(page.get_by_role("heading", name="Picture 3 of 4")).to_be_visible()
    expect(page.locator("#rows")).to_have_text("")
    press(page, "g", "y", "Backspace", "ArrowUp", "y")
    assert counts(page) == "6 of 6 labels decided, 4 of 4 pictures finished, 1 added"
    while not page.get_by_label("Your name").evaluate("(field) => field === document.activeElement"):
        page.keyboard.press("Shift+Tab")
    page.keyboard.type("Ada L.")
    press(page, "Tab")
    path = saved(page, tmp_path, "Enter")
    assert path.name.startswith("review-random-")
    assert path.name.endswith("-Ada-L-.json")
    expect(page.get_by_role("status")).to_contain_text("holds 7 decisions")
    assert import_reviews(store.url, None, str(path), "page", "someone") == AddedReviews(RUN, 7, 7, 0)
    rows = open_store(store.url).sql(
        "SELECT key, label, verdict, reviewer, reviewed > '2026' "
        "FROM reviews JOIN images USING (run, image_id) ORDER BY ALL"
    )
    assert rows.fetchall() == [
        ("0", "cat", "no", "Ada L.", True),
        ("0", "dog", "yes", "Ada L.", True),
        ("0", "red fox", "added", "Ada L.", True),
        ("0", "tree", "unsure", "Ada L.", True),
        ("1", "hot dog", "no", "Ada L.", True),
        ("1", "sky", "no", "Ada L.", True),
        ("3", "bird", "yes", "Ada L.", True),
    ]


@pytest.mark.long
def test_by_touch_a_verdict_is_given_taken_back_and_a_missing_label_added(
    open_review: OpenPage, review: Path, tmp_path: Path
) -> None:
    page = open_review(review, viewport=PHONE, has_touch=True)
    cat = page.get_by_role("group", name="cat")
    cat.get_by_role("button", name="Yes").tap()
    expect(cat.get_by_role("button", name="Yes")).to_have_attribute("aria-pressed", "true")
    cat.get_by_role("button", name="No", exact=True).tap()
    page.get_by_role("group", name="dog").get_by_role("button", name="Unsure").tap()
    page.get_by_role("group", name="dog").get_by_role("button", name="Unsure").tap()
    page.get_by_label("What is missing").fill("Owl")
    page.get_by_role("button", name="Add").tap()
    # What a tap does is done a while after it.
    take_out = page.get_by_role("button", name="Take owl out")
    expect(take_out).to_be_visible()
    # A label that is shown is not missing: it is true.
    page.get_by_label("What is missing").fill("TREE")
    page.get_by_role("button", name="Add").tap()
    tree = page.get_by_role("group", name="tree")
    expect(tree.get_by_role("button", name="Yes")).to_have_attribute("aria-pressed", "true")
    assert decisions(saved(page, tmp_path)) == [("cat", "no"), ("owl", "added"), ("tree", "yes")]
    take_out.tap()
    expect(take_out).to_be_hidden()
    page.get_by_role("button", name="Begin this picture again").tap()
    expect(page.locator("#counts")).to_contain_text("0 of 6 labels decided")
    page.get_by_role("button", name="Next", exact=True).tap()
    for place in ("#frame", "#rows li:last-child", "#missing"):
        expect(page.locator(place)).to_be_in_viewport(ratio=1)


def test_what_was_decided_is_there_when_the_page_is_opened_again(open_review: OpenPage, review: Path) -> None:
    page = open_review(review)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("group", name="dog").get_by_role("button", name="Yes").click()
    press(page, "Shift+N")
    page.reload()
    started(page)
    expect(page.get_by_label("Your name")).to_have_value("Ada")
    # It goes on with the first picture that has an open label.
    expect(page.get_by_role("heading", name="Picture 2 of 4")).to_be_visible()
    press(page, "ArrowLeft")
    expect(page.get_by_role("group", name="dog").get_by_role("button", name="Yes")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.get_by_role("alert")).to_be_hidden()


def test_storage_is_asked_for_once_the_browser_knows_the_page(open_review: OpenPage, review: Path) -> None:
    # On a busy machine about one page in twenty that asked earlier wrote to a storage that no later visit saw.
    assert open_review(review, script=NOTE_FIRST_USE).evaluate("wasAnswered") is True


def test_a_browser_that_keeps_nothing_says_so_and_a_saved_file_goes_on(
    open_review: OpenPage, review: Path, tmp_path: Path
) -> None:
    page = open_review(review, script=WITHOUT_STORAGE)
    expect(page.get_by_role("alert")).to_contain_text("Save the file before you close the page")
    press(page, "y", "n")
    path = saved(page, tmp_path)
    page.reload()
    started(page)
    assert counts(page).startswith("0 of 6")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a file").click()
    chooser.value.set_files(path)
    expect(page.get_by_role("status")).to_contain_text("2 decisions")
    assert counts(page).startswith("2 of 6")
    (tmp_path / "other.json").write_text(path.read_text().replace('"run": "run-1"', '"run": "run-9"'))
    page.locator("#chosen-file").set_input_files(tmp_path / "other.json")
    expect(page.get_by_role("status")).to_contain_text("of run run-9, the page is of")
    page.locator("#chosen-file").set_input_files(review)
    expect(page.get_by_role("status")).to_have_text("This is no file that a review page saved.")


def test_letters_mean_what_they_say_where_caps_lock_is_on_and_nothing_while_one_types(
    open_review: OpenPage, review: Path
) -> None:
    page = open_review(review)
    page.locator(":focus").dispatch_event("keydown", {"key": "N"})
    assert counts(page).startswith("1 of 6")
    page.get_by_label("Your name").focus()
    page.keyboard.type("yuns")
    page.get_by_label("What is missing").focus()
    page.keyboard.type("yuns")
    assert counts(page).startswith("1 of 6")
    # Nor where the focus is outside of the labels.
    page.get_by_role("button", name="Open a file").focus()
    press(page, "y")
    assert counts(page).startswith("1 of 6")


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [pytest.param(DESKTOP, "light", marks=pytest.mark.long), (PHONE, "dark")],
    ids=["desktop-light", "phone-dark"],
)
def test_axe_finds_nothing(open_review: OpenPage, review: Path, viewport: Any, scheme: str) -> None:
    page = open_review(review, viewport=viewport, color_scheme=scheme, script=WITHOUT_STORAGE)
    press(page, "y", "n", "u", "a")
    page.keyboard.type("owl")
    press(page, "Enter")
    page.get_by_text("Keys", exact=True).click()
    found = [(violation["id"], violation["nodes"][0]["html"]) for violation in Axe().run(page).response["violations"]]
    assert found == []


# The narrowest is the hardest; the others are tried by `make test-all`.
@pytest.mark.parametrize("width", [320, *(pytest.param(width, marks=pytest.mark.long) for width in (390, 768, 1366))])
def test_nothing_is_wider_than_the_screen(open_review: OpenPage, hostile_review: Path, width: int) -> None:
    page = open_review(hostile_review, viewport={"width": width, "height": 800})
    for _ in range(2):
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        press(page, "ArrowRight")


def test_hostile_labels_are_text_and_come_back_as_they_were(
    open_review: OpenPage, hostile_store: Store, hostile_review: Path, tmp_path: Path
) -> None:
    page = open_review(hostile_review)
    elements = page.locator("script, img").count()
    press(page, *"yyyyy", "Enter", *"yyyyy")
    assert page.locator("script, img").count() == elements
    path = saved(page, tmp_path)
    import_reviews(hostile_store.url, RUN, str(path), "page", "ada")
    rows = open_store(hostile_store.url).sql(
        "SELECT count(*), count(DISTINCT labels.name) FROM reviews JOIN labels USING (run, image_id) "
        "WHERE reviews.label = labels.name"
    )
    ((n_found, n_names),) = rows.fetchall()
    assert n_found == n_names == len(decisions(path)) > 5
