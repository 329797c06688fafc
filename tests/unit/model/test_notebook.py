"""What notebooks show of recognizers, labels and explanations."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from model import Label, Recognizer
from model.notebook import LabelLists, Labels

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; -- & &lt;",
    "\u202eright to left\u2066",
    "x" * 10_000,
    "two\nlines\x00",
]
TAGS = {"div", "table", "tr", "td", "span", "bdi", "strong", "em", "figure", "figcaption", "img", "tbody"}


class Reading(HTMLParser):
    """Tags, attributes and texts of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)


def label(text: str, score: float = 0.5) -> Label:
    return Label(text, score, (20, 8), (0.5, 0.9), True)


def bars(html: str) -> list[float]:
    return [float(width) for width in re.findall(r"width:([\d.]+)%", html)]


def assert_harmless(html: str, text: str) -> None:
    reading = Reading(html)
    assert reading.tags <= TAGS
    assert reading.attributes <= {"style", "src", "width", "height", "alt"}
    shown = next(shown for shown in reading.texts if shown[:20] == text[:20])
    assert len(shown) <= 80
    # Isolated: the direction of a label ends with it.
    assert f"<bdi>{shown}</bdi>" in unescape(html)


def test_labels_are_lists(recognizer, make_pixels) -> None:
    images = recognizer.label_pixels(make_pixels(2), top_k=5)
    assert isinstance(images, list)
    assert all(isinstance(labels, list) for labels in images)
    assert repr(images) == repr([list(labels) for labels in images])
    assert images == [list(labels) for labels in images]


def test_labels_survive_pickling(recognizer, make_pixels) -> None:
    images = recognizer.label_pixels(make_pixels(2), top_k=5, ranking="ppl")
    again = pickle.loads(pickle.dumps(images))
    assert again == images
    assert again._repr_html_() == images._repr_html_()


def test_labels_are_shown_with_score_and_bar() -> None:
    html = Labels([label("dog", 0.75), label("cat", 0.25)])._repr_html_()
    assert Reading(html).texts == ["dog", "0.750", "cat", "0.250"]
    assert bars(html) == [75, 25]


@pytest.mark.parametrize(
    ("ranking", "scores", "expected"),
    [
        ("prob", [0.5, 1.2, 0.0], [50, 100, 0]),
        ("none", [0.5], [50]),
        ("ppl", [1.0, 4.0, float("inf")], [100, 25, 0]),
        ("sim", [0.0, 0.75], [100, 25]),
    ],
)
def test_the_better_label_has_the_longer_bar_in_every_ranking(ranking, scores, expected) -> None:
    assert bars(Labels([label("dog", score) for score in scores], ranking)._repr_html_()) == expected


def test_the_bars_of_a_result_follow_its_ranking(recognizer, make_pixels) -> None:
    (labels,) = recognizer.label_pixels(make_pixels(1), top_k=3, ranking="ppl")
    assert bars(labels._repr_html_()) == pytest.approx([100 / label.score for label in labels], abs=0.06)


def test_images_are_shown_by_number() -> None:
    texts = Reading(LabelLists([Labels([label("dog")]), Labels()])._repr_html_()).texts
    assert texts == ["image 0", "dog", "0.500", "image 1", "no labels"]


def test_many_labels_and_images_are_cut_short_and_counted() -> None:
    assert Reading(Labels([label("dog")] * 1_020)._repr_html_()).texts[-1] == "and 1,000 more"
    assert Reading(LabelLists([Labels()] * 25)._repr_html_()).texts[-1] == "and 5 more images"
    assert Reading(LabelLists()._repr_html_()).texts == ["no images"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_labels_are_harmless(text) -> None:
    assert_harmless(LabelLists([Labels([label(text)])])._repr_html_(), text)


def test_a_recognizer_tells_its_sizes_and_prompt(recognizer) -> None:
    texts = " ".join(Reading(recognizer._repr_html_()).texts)
    n_parameters = sum(part.numel() for part in recognizer.module.parameters())
    for told in ("28 px, 4 patches of 14 px", "objects in the image are", "64 tokens", f"{n_parameters:,} in float32"):
        assert told in texts


def test_a_loaded_recognizer_tells_its_name(tiny_model) -> None:
    assert "tiny" in Reading(Recognizer.from_pretrained(tiny_model)._repr_html_()).texts


def test_an_explanation_shows_the_view_and_its_best_labels(recognizer, make_image) -> None:
    explanation = recognizer.explain(make_image(40, 30), top_k=20)
    html = explanation._repr_html_()
    assert html.count('<img src="data:image/jpeg;base64,') == 7
    assert explanation.labels[0].label.text in Reading(html).texts
    assert f"5 of {len(explanation.labels)} labels" in html


def test_an_explanation_without_labels_says_so(endless_recognizer, make_image) -> None:
    html = endless_recognizer.explain(make_image(28, 28), max_label_tokens=2)._repr_html_()
    assert "no labels" in Reading(html).texts


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_labels_of_an_explanation_are_harmless(recognizer, make_image, text) -> None:
    explanation = recognizer.explain(make_image(28, 28), top_k=5)
    explained = replace(explanation.labels[0], label=label(text))
    assert_harmless(replace(explanation, labels=[explained])._repr_html_(), text)
