"""Decoding in threads within a limit of time."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model import ImagePreprocessor
from pipeline.actor.decoding import DecodedImage, DecodePool, decode
from tests.fixtures.bad.images import slow_jpeg
from tests.fixtures.corpus import jpeg

# The pool looks at the clock as often. Sums of it are exact.
LIMIT_S = 1 / 64


class Decoder:
    """Decodes at once, but for images that are `stuck` until the test ends and those that take most of the limit.

    Time goes on for these alone. Stuck ones come to their limit when so many are at work that nothing else is.
    """

    def __init__(self, clock: Any) -> None:
        self.release = threading.Event()
        self.n_threads = 2
        self._clock = clock
        self._lock, self._n_stuck = threading.Lock(), 0

    def __call__(self, data: bytes | None) -> DecodedImage:
        if data == b"stuck":
            self._get_stuck()
        if data == b"moment":
            self._clock.now += 0.9 * LIMIT_S
            # Meanwhile the pool looks whether it is late.
            time.sleep(5 * LIMIT_S)
        if data == b"bug":
            raise ZeroDivisionError("a bug")
        return DecodedImage(message=(data or b"").decode())

    def _get_stuck(self) -> None:
        with self._lock:
            self._n_stuck += 1
            if self._n_stuck % self.n_threads == 0:
                self._clock.now += LIMIT_S
        self.release.wait(60)


@pytest.fixture
def decoder(clock: Any) -> Iterator[Decoder]:
    decoder = Decoder(clock)
    yield decoder
    decoder.release.set()


def found(images: list[DecodedImage]) -> list[str | None]:
    """Error classes, or what was decoded."""
    return [image.error or image.message for image in images]


def test_images_come_back_in_their_order(decoder: Decoder) -> None:
    names = [f"{number}" for number in range(200)]
    assert found(DecodePool(decoder, 3).decode(name.encode() for name in names)) == names


def test_an_image_that_is_strange_to_the_demo_model_is_marked_where_that_is_asked() -> None:
    preprocessor = ImagePreprocessor(image_size=96)
    grey = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
    Image.fromarray(noise).save(grey, "PNG")
    marked = [decode(grey.getvalue(), preprocessor, find_strange=asked).is_strange for asked in (True, False)]
    assert marked == [True, False]
    assert not decode(b"no image", preprocessor, find_strange=True).is_strange


def test_nothing_is_decoded_of_nothing(decoder: Decoder) -> None:
    assert DecodePool(decoder, 3).decode([]) == []


def test_images_behind_more_stuck_ones_than_there_are_threads_are_decoded(decoder: Decoder) -> None:
    images = [b"a", *[b"stuck"] * 5, b"b", b"stuck", b"c"]
    expected = ["a", *["DecodeTimeout"] * 5, "b", "DecodeTimeout", "c"]
    assert found(DecodePool(decoder, 2, LIMIT_S).decode(images)) == expected


def test_a_pool_whose_threads_were_stuck_works_on(decoder: Decoder) -> None:
    pool = DecodePool(decoder, 2, LIMIT_S)
    pool.decode([b"stuck"] * 4)
    # The clock stands still: it has not to give up anything else first.
    assert found(pool.decode([b"a", b"b", b"c"])) == ["a", "b", "c"]


def test_waiting_for_a_thread_does_not_count(decoder: Decoder) -> None:
    # Several times the limit, one after the other.
    assert found(DecodePool(decoder, 1, LIMIT_S).decode([b"moment"] * 6)) == ["moment"] * 6


def test_a_late_result_is_no_longer_wanted(decoder: Decoder) -> None:
    pool, decoder.n_threads = DecodePool(decoder, 1, LIMIT_S), 1
    (late,) = pool.decode([b"stuck"])
    decoder.release.set()
    assert found([late, *pool.decode([b"a"])]) == ["DecodeTimeout", "a"]


def test_a_small_file_that_takes_long_to_decode_is_given_up_and_its_neighbours_are_not(clock: Any) -> None:
    slow, preprocessor = slow_jpeg(seconds=4), ImagePreprocessor(image_size=8)
    assert len(slow) < 200_000

    def time_goes_on() -> None:
        clock.now += LIMIT_S

    def decode_one(data: bytes | None) -> DecodedImage:
        # For its neighbours no time goes by, however busy the machine.
        timer = threading.Timer(1.5, time_goes_on)
        if data == slow:
            timer.start()
        decoded = decode(data, preprocessor)
        timer.cancel()
        return decoded

    images = DecodePool(decode_one, 1, LIMIT_S).decode([jpeg(1), slow, jpeg(2)])
    assert [image.error for image in images] == [None, "DecodeTimeout", None]


def test_a_bug_is_raised_and_no_rejected_row(decoder: Decoder) -> None:
    pool = DecodePool(decoder, 1)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        pool.decode([b"a", b"bug"])
    assert found(pool.decode([b"b"])) == ["b"]


def test_never_more_images_are_decoded_at_once_than_there_are_threads() -> None:
    lock, at_work, most, are_three = threading.Lock(), 0, 0, threading.Event()

    def decode(data: bytes | None) -> DecodedImage:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
            if at_work == 3:
                are_three.set()
        # The first ones wait for each other; a fourth may come in a moment.
        assert are_three.wait(60)
        time.sleep(0.002)
        with lock:
            at_work -= 1
        return DecodedImage()

    pool = DecodePool(decode, 3)
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(pool.decode, [[b"x"] * 20] * 8))
    assert most == 3


def test_no_thread_stays_when_the_work_is_done(decoder: Decoder) -> None:
    def decoding_threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "decode"}

    others = decoding_threads()
    DecodePool(decoder, 4).decode([b"a"] * 50)
    deadline = time.monotonic() + 60
    while decoding_threads() - others:
        assert time.monotonic() < deadline
        time.sleep(0.01)
