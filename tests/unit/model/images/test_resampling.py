"""Frames of an image, and their resampling: as Pillow's to a grey level or two, and as float64 arithmetic has it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.images import resampling
from model.images.resampling import Frame, box_in, centre_frame, resample, resample_by_former_rule, turn_pixels
from tests.unit.model.resampling_oracle import slow_resample

SIZE = 28
TURNS = (None, *Image.Transpose)
# Two roundings to whole levels, across and down.
ORACLE_LEVELS = 2


@pytest.fixture(autouse=True)
def torch_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are fast to check are small."""
    monkeypatch.setattr(resampling, "_LEAST_PIXELS", 0)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_pillow(image: Image.Image, frame: Frame) -> np.ndarray:
    """Across, then down: in one call Pillow's versions differ in which comes first."""
    image = image.resize((frame.width, image.height), Image.Resampling.BICUBIC)
    return np.asarray(image.resize((frame.width, frame.height), Image.Resampling.BICUBIC).crop(frame.box))


def difference(seen: np.ndarray, expected: np.ndarray) -> int:
    assert seen.shape == expected.shape
    return int(np.abs(seen.astype(int) - expected).max())


@settings(max_examples=60)
@given(width=st.integers(1, 90), height=st.integers(1, 90), data=st.data())
def test_any_frame_equals_pillows_and_the_oracle_to_two_grey_levels(width, height, data):
    image = noise(width, height)
    new_width, new_height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    left, top = data.draw(st.integers(0, new_width - 1)), data.draw(st.integers(0, new_height - 1))
    right, bottom = data.draw(st.integers(left + 1, new_width)), data.draw(st.integers(top + 1, new_height))
    frame = Frame(new_width, new_height, (left, top, right, bottom))
    seen = resample(image, frame)
    assert difference(seen, by_pillow(image, frame)) <= 2
    assert difference(seen, slow_resample(image, frame)) <= ORACLE_LEVELS


def test_enlarged_and_shrunk_pictures_equal_pillows_to_one_level_but_for_a_value_in_a_hundred_thousand():
    sizes = [(256, 192), (160, 120), (290, 220), (320, 240), (500, 333), (640, 480)]
    pairs = [(image, centre_frame(*image.size, 224)) for image in (noise(*size) for size in sizes)]
    levels = np.abs(np.stack([resample(image, frame).astype(int) - by_pillow(image, frame) for image, frame in pairs]))
    assert levels.max() <= 2
    assert np.mean(levels == 1) < 0.02
    assert np.mean(levels == 2) < 1e-5


@pytest.mark.parametrize("size", [(96, 72), (97, 301), (1, 50), (50, 1)])
@pytest.mark.parametrize("missing", [(0.0, 0.0), (0.875, 0.0), (0.0, 0.875), (0.5, 0.25)])
def test_an_image_that_stands_for_less_than_its_pixels_is_resized_by_what_it_stands_for(size, missing):
    # In its own pixels: what a reduced decoding rounded up.
    true_size = size[0] - missing[0], size[1] - missing[1]
    image, frame = noise(*size), centre_frame(*size, SIZE)
    assert (
        difference(resample(image, frame, true_size=true_size), slow_resample(image, frame, true_size=true_size))
        <= ORACLE_LEVELS
    )


def test_the_oracle_tells_an_image_that_stands_for_less_from_one_that_does_not():
    image, frame = noise(97, 97), centre_frame(97, 97, SIZE)
    assert difference(resample(image, frame), slow_resample(image, frame, (96.125, 96.125))) > 20


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (224, 500), (42, 43), (60, 57)])
def test_bands_of_rows_give_what_torch_gives_at_once(monkeypatch, size):
    image, frame = noise(*size), centre_frame(*size, SIZE)
    pixels_1CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized_1CHW = torch.nn.functional.interpolate(
        pixels_1CHW, (frame.height, frame.width), mode="bicubic", antialias=True
    )
    left, top, right, bottom = frame.box
    expected = resized_1CHW[0].permute(1, 2, 0).numpy()[top:bottom, left:right]
    assert np.array_equal(resample(image, frame), expected)
    monkeypatch.setattr(resampling, "_MAX_PIXELS_AT_ONCE", 0)
    for n_pixels in (1, 1000, 1 << 18):
        monkeypatch.setattr(resampling, "_BAND_PIXELS", n_pixels)
        assert np.array_equal(resample(image, frame), expected)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("size", [(70, 50), (40, 97), (20, 30), (60, 60), (30, 33)])
def test_a_part_is_turned_to_the_same_pixels_as_an_image_is(monkeypatch, turn, size):
    monkeypatch.setattr(resampling, "_MAX_PIXELS_AT_ONCE", 3000)
    monkeypatch.setattr(resampling, "_BAND_PIXELS", 1)
    stored = noise(*size)
    upright = stored if turn is None else stored.transpose(turn)
    frame = centre_frame(*upright.size, SIZE)
    assert np.array_equal(resample(stored, frame, turn), resample(upright, frame))


@pytest.mark.parametrize("turn", TURNS)
def test_a_frame_before_a_turn_shows_what_the_frame_shows_behind_it(turn):
    stored = noise(7, 5)
    upright = turn_pixels(np.asarray(stored), turn)
    height, width = upright.shape[:2]
    for left, top in itertools.product(range(width), range(height)):
        frame = Frame(width, height, (left, top, width, height))
        before = frame.before(turn)
        assert (before.width, before.height) == stored.size
        seen = turn_pixels(np.asarray(stored.crop(before.box)), turn)
        assert np.array_equal(seen, upright[top:, left:])


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (3, 500), (500, 3)])
@pytest.mark.parametrize("resize", [resample, resample_by_former_rule])
def test_resampling_only_the_crop_is_close_to_the_exact_resize(monkeypatch, resize, size):
    image, frame = noise(*size), centre_frame(*size, SIZE)
    exact = resize(image, frame).astype(int)
    monkeypatch.setattr(resampling, "_MAX_RESIZED_PIXELS", 0)
    assert np.abs(resize(image, frame) - exact).mean() < 1


@pytest.mark.parametrize("size", [(1, 3000), (1, 60000), (60000, 1)])
@pytest.mark.parametrize("resize", [resample, resample_by_former_rule])
def test_an_extreme_strip_is_never_resized_in_full(monkeypatch, resize, size):
    pillow, torchs, n_pixels = Image.Image.resize, resampling._pass, [0]

    def recording_resize(image, new_size, *args, **kwargs):
        n_pixels.append(new_size[0] * new_size[1])
        return pillow(image, new_size, *args, **kwargs)

    def recording_pass(pixels_CHW, *args):
        n_pixels.append(pixels_CHW[0].size)
        return torchs(pixels_CHW, *args)

    monkeypatch.setattr(Image.Image, "resize", recording_resize)
    monkeypatch.setattr(resampling, "_pass", recording_pass)
    assert resize(noise(*size), centre_frame(*size, 224)).shape == (224, 224, 3)
    assert max(n_pixels) <= 16_000_000


@pytest.mark.parametrize(
    ("least", "size", "is_pillows"),
    [(6000, (60, 99), True), (6000, (60, 100), False), (1176, (20, 30), False), (1177, (20, 30), True)],
    ids=["small", "large enough", "large once it is enlarged", "small once it is enlarged"],
)
def test_small_images_that_stay_small_are_pillows(monkeypatch, least, size, is_pillows):
    passes = []
    resize = resampling._pass
    monkeypatch.setattr(resampling, "_LEAST_PIXELS", least)
    monkeypatch.setattr(resampling, "_pass", lambda *given: passes.append(given) or resize(*given))
    image, frame = noise(*size), centre_frame(*size, SIZE)
    assert difference(resample(image, frame), by_pillow(image, frame)) <= (0 if is_pillows else 2)
    assert len(passes) == (0 if is_pillows else 2)


def test_the_box_of_a_crop_is_in_the_images_own_pixels():
    assert box_in(centre_frame(400, 200, SIZE), (400, 200)) == (100, 0, 300, 200)
