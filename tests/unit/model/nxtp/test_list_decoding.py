"""The paper's baselines: one list an image, greedy and by beam search."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.nxtp.list_decoding import EnoughDelimiters, decode_lists, split_list
from tests.unit.model.oracle import PROBABILITY_REL, next_token_probs

DELIMITER = 8


@torch.inference_mode()
def slow_greedy_lists(model, pixels, n_labels: int, max_new_tokens: int):
    """Token ids and probabilities of each image's list, one uncached pass a token."""
    lists = []
    for image_ND in model.encode_images(pixels):
        ids: list[int] = []
        probs: list[float] = []
        while len(ids) < max_new_tokens and ids.count(model.config.delimiter_id) < n_labels:
            prob, token_id = next_token_probs(model, image_ND, ids).max(dim=-1)
            ids.append(int(token_id))
            probs.append(float(prob))
        lists.append((ids, probs))
    return lists


@torch.inference_mode()
def teacher_forced_probs(model, pixels, image: int, ids: list[int]) -> list[float]:
    image_ND = model.encode_images(pixels[image : image + 1])[0]
    return [float(next_token_probs(model, image_ND, ids[:place])[ids[place]]) for place in range(len(ids))]


@torch.inference_mode()
def decode(recognizer, pixels, sampling: str, n_labels: int, max_label_tokens: int = 4):
    image_embeds_BND = recognizer.module.encode_images(pixels)
    return decode_lists(recognizer.module, image_embeds_BND, sampling, n_labels, max_label_tokens)


def joined_ids(labels) -> list[int]:
    return [token_id for ids, _, _ in labels for token_id in ids]


def joined_probs(labels) -> list[float]:
    return [prob for _, probs, _ in labels for prob in probs]


@pytest.mark.parametrize("n_images", [1, 3])
def test_a_greedy_list_has_the_tokens_of_uncached_greedy_decoding(recognizer, make_pixels, n_images):
    pixels = make_pixels(n_images)
    expected = [ids for ids, _ in slow_greedy_lists(recognizer.module, pixels, 3, 15)]
    assert [joined_ids(labels) for labels in decode(recognizer, pixels, "greedy", 3)] == expected


def test_a_greedy_list_has_the_probabilities_of_uncached_greedy_decoding(recognizer, make_pixels):
    pixels = make_pixels(3)
    expected = [probs for _, probs in slow_greedy_lists(recognizer.module, pixels, 3, 15)]
    for labels, probs in zip(decode(recognizer, pixels, "greedy", 3), expected, strict=True):
        assert joined_probs(labels) == pytest.approx(probs, rel=PROBABILITY_REL)


def test_a_beam_list_is_scored_given_everything_before_each_token(recognizer, make_pixels):
    pixels = make_pixels(3)
    for image, labels in enumerate(decode(recognizer, pixels, "beam", 3)):
        expected = teacher_forced_probs(recognizer.module, pixels, image, joined_ids(labels))
        assert joined_probs(labels) == pytest.approx(expected, rel=PROBABILITY_REL)


def test_beam_search_finds_likelier_tokens_than_greedy_decoding(recognizer, make_pixels):
    pixels = make_pixels(4)
    mean_log_probs = {}
    for sampling in ("greedy", "beam"):
        probs = [joined_probs(labels) for labels in decode(recognizer, pixels, sampling, 3)]
        mean_log_probs[sampling] = sum(sum(map(math.log, image)) / len(image) for image in probs)
    assert mean_log_probs["beam"] > mean_log_probs["greedy"]


@pytest.mark.parametrize("sampling", ["greedy", "beam"])
@pytest.mark.parametrize("n_labels", [1, 4])
def test_a_list_holds_at_most_as_many_labels_as_asked(recognizer, make_pixels, sampling, n_labels):
    assert all(1 <= len(labels) <= n_labels for labels in decode(recognizer, make_pixels(3), sampling, n_labels))


@pytest.mark.parametrize("sampling", ["greedy", "beam"])
def test_batching_does_not_change_lists(recognizer, make_pixels, sampling):
    pixels = make_pixels(3)
    alone = [joined_ids(decode(recognizer, image[None], sampling, 3)[0]) for image in pixels]
    assert [joined_ids(labels) for labels in decode(recognizer, pixels, sampling, 3)] == alone


@pytest.mark.parametrize("sampling", ["greedy", "beam"])
def test_a_list_without_delimiter_is_one_unfinished_label(endless_recognizer, make_pixels, sampling):
    lists = decode(endless_recognizer, make_pixels(2), sampling, 2)
    assert [[(len(ids), finished) for ids, _, finished in labels] for labels in lists] == [[(10, False)]] * 2


@pytest.mark.parametrize("sampling", ["greedy", "beam"])
def test_an_unfinished_list_gives_no_labels(endless_recognizer, make_pixels, sampling):
    assert endless_recognizer.label_pixels(make_pixels(2), top_k=2, sampling=sampling, max_label_tokens=4) == [[], []]


@pytest.mark.parametrize("sampling", ["greedy", "beam"])
@pytest.mark.parametrize("ranking", ["prob", "ppl", "sim", "none"])
def test_every_ranking_works_with_lists(recognizer, make_pixels, sampling, ranking):
    labels = recognizer.label_pixels(make_pixels(2), top_k=5, sampling=sampling, ranking=ranking)
    assert any(labels)
    assert all(label.finished and label.text for image in labels for label in image)


def test_a_list_stops_at_the_number_of_delimiters_asked_for():
    # The first two tokens are the prefix: a delimiter in the prompt closes no label.
    ids_BL = torch.tensor([[1, DELIMITER, 2, DELIMITER, 3], [1, DELIMITER, 2, DELIMITER, DELIMITER]])
    assert EnoughDelimiters(n_prefix=2, delimiter_id=DELIMITER, n_labels=2)(ids_BL, None).tolist() == [False, True]


def test_a_list_is_cut_behind_each_delimiter():
    ids, probs = [1, 2, DELIMITER, 3, DELIMITER], [0.1, 0.2, 0.3, 0.4, 0.5]
    assert split_list(ids, probs, DELIMITER, 5) == [
        ((1, 2, DELIMITER), (0.1, 0.2, 0.3), True),
        ((3, DELIMITER), (0.4, 0.5), True),
    ]


def test_the_rest_of_a_list_is_an_unfinished_label():
    assert split_list([1, DELIMITER, 2], [0.1, 0.2, 0.3], DELIMITER, 5)[-1] == ((2,), (0.3,), False)


def test_tokens_behind_the_last_label_asked_for_are_left_out():
    assert split_list([1, DELIMITER, 2, DELIMITER, 3], [0.5] * 5, DELIMITER, 1) == [((1, DELIMITER), (0.5, 0.5), True)]


def test_an_empty_list_has_no_labels():
    assert split_list([], [], DELIMITER, 3) == []


@settings(max_examples=100)
@given(ids=st.lists(st.integers(DELIMITER - 2, DELIMITER), max_size=12), n_labels=st.integers(1, 6))
def test_the_labels_of_a_list_joined_are_its_start(ids, n_labels):
    labels = split_list(ids, [0.5] * len(ids), DELIMITER, n_labels)
    joined = joined_ids(labels)
    assert joined == ids[: len(joined)]


@settings(max_examples=100)
@given(ids=st.lists(st.integers(DELIMITER - 2, DELIMITER), max_size=12), n_labels=st.integers(1, 6))
def test_a_finished_label_has_one_delimiter_and_it_is_last(ids, n_labels):
    labels = split_list(ids, [0.5] * len(ids), DELIMITER, n_labels)
    finished = [label_ids for label_ids, _, is_finished in labels if is_finished]
    assert all(label_ids.index(DELIMITER) == len(label_ids) - 1 for label_ids in finished)
