"""Encoded images to what the recognizer sees, in threads, each image within a limit of time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from model.demo_scenes import is_scene
from model.images.opening import ImageDecodeError, ImageTooLargeError, open_image
from model.images.perceptual_hash import perceptual_hash
from model.images.pixels import is_flat
from model.images.preprocessing import ImagePreprocessor
from pipeline.settings.limits import MAX_SAMPLE_S
from pipeline.text import one_line, plain
from schemas import content_hash


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as the recognizer sees it, or why it cannot be seen."""

    views: tuple[np.ndarray, ...] = ()
    """Each uint8 [H, W, 3]; none where the image cannot be decoded."""
    width: int | None = None
    """Width in pixels before cropping; None where it is not known."""
    height: int | None = None
    """Height in pixels before cropping; None where it is not known."""
    content_hash: str | None = None
    """Hash of the encoded bytes; None where there are none."""
    error: str | None = None
    """Class of the fault, such as ImageUnreadable; None where there is none."""
    message: str | None = None
    """The fault in a sentence; None where there is none."""
    is_flat: bool | None = None
    """Whether the recognizer sees one colour alone; None where the image cannot be decoded."""
    is_strange: bool = False
    """Whether the image is none of the scenes that the demo model knows; False where nobody looked."""
    n_bytes: int | None = None
    """Length of the encoded bytes; None where there are none."""
    phash: int | None = None
    """Hash of what the whole picture looks like (`model.images.perceptual_hash`); None where nobody asked."""
    near_index: int | None = None
    """Index in the shard of the image whose labels this one gets, since both look alike; None for others."""
    near_distance: int | None = None
    """In how many bits the hashes of these two differ."""
    cpu_s: float = 0.0
    """Seconds of a CPU that decoding took; what waited for a CPU does not count."""


def decode(
    data: bytes | None,
    preprocessor: ImagePreprocessor,
    find_strange: bool = False,
    most_views: int = 1,
    with_hash: bool = True,
    with_phash: bool = False,
) -> DecodedImage:
    """Decodes one image to its views; damage becomes an error class and a message.

    Args:
        find_strange: look whether the image is one of the scenes that the demo model knows. One view that is suffices.
        most_views: squares of the image, at most.
        with_hash: make the hash of the bytes, which costs a tenth of a millisecond for a photograph.
        with_phash: make the hash of what the picture looks like.
    """
    if data is None:
        return DecodedImage()
    started = time.thread_time()
    decoded = _decode(data, preprocessor, find_strange, most_views, with_phash)
    digest = content_hash(data) if with_hash else None
    return replace(decoded, content_hash=digest, n_bytes=len(data), cpu_s=time.thread_time() - started)


def _decode(
    data: bytes, preprocessor: ImagePreprocessor, find_strange: bool, most_views: int, with_phash: bool
) -> DecodedImage:
    width = height = None
    try:
        image = open_image(data, preprocessor.max_image_pixels, preprocessor.pixel_rule)
        width, height = image.size
        seen = preprocessor.see_opened(image)
        views = tuple(preprocessor.cut_views(seen, most_views))
        is_strange = find_strange and not any(is_scene(view) for view in views)
        are_flat = all(is_flat(view) for view in views)
        phash = perceptual_hash(seen) if with_phash else None
        return DecodedImage(views, width, height, is_flat=are_flat, is_strange=is_strange, phash=phash)
    except ImageTooLargeError as error:
        message = plain(f"{one_line(error)} (setting max_image_pixels)")
        return DecodedImage((), error.width, error.height, error="ImageTooLarge", message=message)
    except ImageDecodeError as error:
        return DecodedImage((), width, height, error="ImageUnreadable", message=plain(one_line(error)))


class _Batch:
    """Images that are decoded together, and what becomes of them."""

    def __init__(self, n_images: int) -> None:
        self._decoded: list[DecodedImage | BaseException | None] = [None] * n_images
        self.is_done = threading.Event()
        self._n_left = n_images
        if not n_images:
            self.is_done.set()

    def put(self, place: int, decoded: DecodedImage | BaseException) -> None:
        """Takes the result of the image at a place. One thread at a time may call it."""
        self._decoded[place] = decoded
        self._n_left -= 1
        if not self._n_left:
            self.is_done.set()

    def results(self) -> list[DecodedImage]:
        """Of a batch that is done. Raises what the decoding of an image raised."""
        for decoded in self._decoded:
            if isinstance(decoded, BaseException):
                raise decoded
        return cast(list[DecodedImage], self._decoded)


@dataclass(eq=False, slots=True)
class _Task:
    data: bytes | None
    batch: _Batch
    place: int
    started: float = 0.0


class DecodePool:
    """Decodes images in threads, and gives up those that take too long.

    A thread inside a decoder cannot be stopped. One that is over the limit is left behind, its result no longer wanted,
    and another takes its place. Python's own executor would run out of threads so, and wait for them at its end: these
    here are daemons, and live only while there is work.
    """

    def __init__(
        self, decode_one: Callable[[bytes | None], DecodedImage], n_threads: int, limit_s: float = MAX_SAMPLE_S
    ) -> None:
        self._decode_one = decode_one
        self._n_threads = n_threads
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._running: set[_Task] = set()
        self._n_working = 0
        """Number of threads at work. Those that were left behind do not count."""

    def decode(self, images: Iterable[bytes | None]) -> list[DecodedImage]:
        """The images decoded, in their order; those over the limit are a `DecodeTimeout`."""
        images = list(images)
        batch = _Batch(len(images))
        with self._lock:
            self._waiting.extend(_Task(data, batch, place) for place, data in enumerate(images))
            self._start_threads()
        while not batch.is_done.wait(self._until_first_limit_s()):
            self._give_up_late_ones()
        return batch.results()

    def _start_threads(self) -> None:
        for _ in range(min(self._n_threads - self._n_working, len(self._waiting))):
            self._n_working += 1
            threading.Thread(target=self._work, name="decode", daemon=True).start()

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            decoded: DecodedImage | BaseException
            try:
                decoded = self._decode_one(task.data)
            except BaseException as error:
                decoded = error
            if not self._hand_in(task, decoded):
                return

    def _next_task(self) -> _Task | None:
        with self._lock:
            if not self._waiting:
                self._n_working -= 1
                return None
            task = self._waiting.popleft()
            # Only now: waiting for a thread does not count.
            task.started = time.monotonic()
            self._running.add(task)
            return task

    def _hand_in(self, task: _Task, decoded: DecodedImage | BaseException) -> bool:
        """Returns: False where the thread was left behind, and another has taken its place."""
        with self._lock:
            if task not in self._running:
                return False
            self._running.remove(task)
            task.batch.put(task.place, decoded)
            return True

    def _until_first_limit_s(self) -> float:
        with self._lock:
            started = min((task.started for task in self._running), default=time.monotonic())
        return max(0.0, started + self._limit_s - time.monotonic())

    def _give_up_late_ones(self) -> None:
        with self._lock:
            latest_start = time.monotonic() - self._limit_s
            late = [task for task in self._running if task.started <= latest_start]
            self._running.difference_update(late)
            self._n_working -= len(late)
            self._start_threads()
            for task in late:
                task.batch.put(task.place, self._timeout(task.data))

    def _timeout(self, data: bytes | None) -> DecodedImage:
        return DecodedImage(
            content_hash=None if data is None else content_hash(data),
            error="DecodeTimeout",
            message=f"decoding took longer than {self._limit_s:g} s (setting max_sample_s)",
            n_bytes=None if data is None else len(data),
            cpu_s=self._limit_s,
        )
