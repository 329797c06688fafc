"""The page of an explanation: what it is made of."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model import Explanation
from pipeline.explanation.page import explanation_page
from pipeline.explanation.subject import Subject
from pipeline.settings.labelling import LabelSettings
from tests.unit.pipeline.explanation.conftest import HOSTILE, called

SUBJECT = Subject(address="photos/dog.jpg", data=b"", model="demo", settings=LabelSettings())


def page_data(html: str) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json" id="page-data">(.*?)</script>', html, re.DOTALL)
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def maps_of(entry: dict[str, Any]) -> np.ndarray:
    """The maps as the page reads them, [rollout, mean, heads ...]."""
    values = np.frombuffer(base64.b64decode(entry["maps"]), np.uint8).reshape(len(entry["maxima"]), 4, 4)
    return values / 255 * np.array(entry["maxima"])[:, None, None]


def test_maps_are_those_of_the_explanation(explanation: Explanation) -> None:
    data = page_data(explanation_page(explanation, SUBJECT))
    assert (data["layers"], data["heads"], data["patches"]) == (2, 2, [4, 4])
    pairs = [
        (entry, explained.maps, explained.rollout)
        for entry, explained in zip(data["labels"], explanation.labels, strict=True)
    ]
    pairs.append((data["views"][0]["answer"], explanation.answer_maps, explanation.answer_rollout))
    for entry, maps, rollout in pairs:
        expected = torch.stack([rollout, maps.mean(dim=(0, 1)), *maps.flatten(0, 1)])
        # Half a step of 255.
        assert np.abs(maps_of(entry) - expected.numpy()).max() <= float(expected.max()) / 500
        assert entry["shares"] == pytest.approx(expected.sum(dim=(1, 2)).tolist())


def test_labels_come_in_their_order_with_score_and_bar(explanation: Explanation) -> None:
    data = page_data(explanation_page(explanation, SUBJECT))
    labels = [explained.label for explained in explanation.labels]
    assert [(entry["text"], entry["score"]) for entry in data["labels"]] == [(one.text, one.score) for one in labels]
    assert all(0 <= entry["bar"] <= 1 for entry in data["labels"])


def test_what_readers_should_know_first_is_on_the_page(explanation: Explanation) -> None:
    assert page_data(explanation_page(explanation, SUBJECT, "the image is strange"))["note"] == "the image is strange"
    assert page_data(explanation_page(explanation, SUBJECT))["note"] is None


def test_of_several_squares_the_page_has_each_and_the_whole_photograph(
    explanation: Explanation, of_squares: Explanation
) -> None:
    data = page_data(explanation_page(of_squares, SUBJECT))
    assert [seen["box"] for seen in data["views"]] == [[0, 0, 64, 64], [32, 0, 96, 64]]
    assert [label["view"] for label in data["labels"]] == [each.label.view for each in of_squares.labels]
    encoded = data["photograph"].split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (96, 64)
    assert page_data(explanation_page(explanation, SUBJECT))["photograph"] is None


def test_the_view_is_embedded(explanation: Explanation) -> None:
    data = page_data(explanation_page(explanation, SUBJECT))
    kind, encoded = data["views"][0]["picture"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == explanation.view.size


def test_a_score_that_is_no_number_has_none(explanation: Explanation) -> None:
    unlikely = replace(called(explanation, "dog", float("inf")), ranking="ppl")
    entry = page_data(explanation_page(unlikely, SUBJECT))["labels"][0]
    assert (entry["score"], entry["bar"]) == (None, 0)


def test_an_explanation_without_labels_has_the_answer(explanation: Explanation) -> None:
    data = page_data(explanation_page(replace(explanation, labels=[]), SUBJECT))
    assert data["labels"] == []
    assert len(data["views"][0]["answer"]["maxima"]) == 6


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_ends_no_element(explanation: Explanation, text: str) -> None:
    harmless = explanation_page(called(explanation, "dog"), SUBJECT)
    html = explanation_page(called(explanation, text), replace(SUBJECT, address=text, run=text, model=text))
    assert len(re.findall(r"<script", html)) == len(re.findall(r"<script", harmless))
    assert len(re.findall(r"<img", html)) == len(re.findall(r"<img", harmless))
    assert page_data(html)["labels"][0]["text"] == text[:1000]
