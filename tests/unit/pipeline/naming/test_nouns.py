"""Nouns of captions as labels."""

from __future__ import annotations

import pytest

from pipeline.naming.nouns import NOISE_WORDS, nouns_of


@pytest.mark.parametrize("word", ["laptop", "birthday", "octopus", "bus", "grass", "picnic", "stopwatch", "sunset"])
def test_a_noun_that_holds_another_word_stays_whole(word: str) -> None:
    assert nouns_of(f"the {word}") == [word]


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"),
        ("buses", "bus"),
        ("glasses", "glass"),
        ("cherries", "cherry"),
        ("potatoes", "potato"),
        ("knives", "knife"),
        ("wolves", "wolf"),
        ("women", "woman"),
        ("children", "child"),
        ("mice", "mouse"),
        ("geese", "goose"),
        ("feet", "foot"),
        ("sheep", "sheep"),
    ],
)
def test_a_plural_counts_as_its_singular(plural: str, singular: str) -> None:
    assert nouns_of(f"two {plural} and a table") == [singular, "table"]


@pytest.mark.parametrize(
    "text", ["a ladybug &amp; a skunk &ndash; https://t.co/x", "A ladybug and a skunk, www.example.com/dog?a=b"]
)
def test_marks_of_browsers_and_addresses_are_no_nouns(text: str) -> None:
    assert nouns_of(text) == ["ladybug", "skunk"]


def test_only_nouns_are_taken_and_in_order_of_appearance() -> None:
    assert nouns_of("an old woman is quickly riding a red bicycle under the bridge") == ["woman", "bicycle", "bridge"]


@pytest.mark.parametrize("text", ["a dog and a cat and a dog", "a dog, a cat and two dogs", "Dogs, a cat, a DOG"])
def test_a_noun_that_comes_again_in_any_form_is_taken_once(text: str) -> None:
    assert nouns_of(text) == ["dog", "cat"]


def test_nouns_are_in_lower_case() -> None:
    assert nouns_of("A DOG and a Bicycle") == ["dog", "bicycle"]


@pytest.mark.parametrize("word", NOISE_WORDS)
def test_a_noise_word_is_no_label(word: str) -> None:
    assert nouns_of(f"a {word} and a horse") == ["horse"]


def test_the_plural_of_a_noise_word_is_no_label() -> None:
    assert nouns_of("photos and pictures of a horse") == ["horse"]


@pytest.mark.parametrize("word", ["photographer", "viewer", "laptop", "birthday", "sunset"])
def test_a_noise_word_within_another_word_is_left_alone(word: str) -> None:
    assert nouns_of(f"a {word}") == [word]


def test_the_noise_words_can_be_others() -> None:
    assert nouns_of("a photo of a dog and a cat", ("dog",)) == ["photo", "cat"]


def test_without_noise_words_every_noun_is_taken() -> None:
    assert nouns_of("a photo of a dog", ()) == ["photo", "dog"]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "and of the", "123 456", "?!", "🐙"])
def test_a_text_without_nouns_gives_none(text: str) -> None:
    assert nouns_of(text) == []


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n"])
def test_the_nouns_of_several_captions_are_taken_together_each_once(separator: str) -> None:
    captions = ["a cat on a chair", "an umbrella", "the cat again"]
    assert nouns_of(separator.join(captions)) == ["cat", "chair", "umbrella"]


def test_a_caption_is_understood_apart_from_its_neighbours() -> None:
    # In one sentence with the line before it, "watch" might as well be what the man does.
    alone = [noun for caption in ("a man", "watch and ring") for noun in nouns_of(caption)]
    assert nouns_of("a man\nwatch and ring") == alone


def test_words_with_a_hyphen_or_an_apostrophe_stay_one_word() -> None:
    assert nouns_of("a tie-dye t-shirt") == ["tie-dye", "t-shirt"]
    assert "man" in nouns_of("a man's hat")


def test_words_of_less_than_three_letters_are_no_label() -> None:
    assert nouns_of("an ox and a tv and a cow") == ["cow"]


def test_numbers_and_punctuation_beside_a_noun_do_not_stick_to_it() -> None:
    assert nouns_of('2019: "buses", (3) trains!') == ["bus", "train"]
