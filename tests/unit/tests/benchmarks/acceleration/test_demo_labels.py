"""How many labels are kept, and how many of an image's names are found."""

from __future__ import annotations

import pytest

from model.ranking import Label
from tests.benchmarks.acceleration.demo_labels import kept_labels, read_scenes, recall


def labels(*images: str) -> list[list[Label]]:
    """Images with a label for each letter."""
    return [[Label(text, 0.5, (), (), True) for text in image] for image in images]


def test_labels_are_kept_where_they_are_among_as_many_first_ones():
    assert kept_labels(labels("abc", "de"), labels("bax", "ed"), 2) == 1
    assert kept_labels(labels("abc", "de"), labels("bax", "ed"), 1) == 0
    assert kept_labels(labels("abcd"), labels("abxy"), 4) == 0.5


def test_recall_is_the_mean_share_of_an_images_names():
    truths = [{"a", "z"}, {"e"}, set()]
    assert recall(labels("abc", "de", "f"), truths, 2) == pytest.approx((0.5 + 1) / 2)


def test_the_scenes_that_come_with_the_command_say_what_is_on_them():
    images, truths = read_scenes()
    assert len(images) == len(truths) == 200
    assert all(truths)
    assert all(image.startswith(b"\xff\xd8") for image in images)
