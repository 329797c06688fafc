"""Decoding, cropping and normalising: exactly the training recipe, and ImageDecodeError for what cannot be read."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model import ImageDecodeError, ImagePreprocessor
from model.images.opening import ImageTooLargeError, allow_image_pixels, open_image
from model.images.pixels import PIXEL_RULE, to_rgb
from model.images.preprocessing import CLIP_MEAN, CLIP_STD
from tests.fixtures.corpus import STORED_AS

SIZE = 28
ORIENTATION = 0x0112
PREPROCESSOR = ImagePreprocessor(image_size=SIZE)
FORMER = ImagePreprocessor(image_size=SIZE, pixel_rule=2)


def plain_crop(image: Image.Image, size: int, in_one_call: bool = False) -> np.ndarray:
    """The training recipe in its plainest form.

    Args:
        in_one_call: leave it to Pillow's version whether it resizes across or down first.
    """
    width, height = image.size
    width, height = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    if not in_one_call:
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    return np.asarray(image)[top : top + size, left : left + size]


def encoded(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@settings(max_examples=60)
@given(width=st.integers(1, 90), height=st.integers(1, 90))
def test_a_crop_equals_the_plain_recipe_to_one_grey_level_and_under_former_rules_to_the_last_bit(width, height):
    image = noise(width, height)
    assert np.abs(PREPROCESSOR.view(image).astype(int) - plain_crop(image, SIZE)).max() <= 1
    assert np.array_equal(FORMER.view(image), plain_crop(image, SIZE, in_one_call=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (640, 427), (427, 640), (225, 224), (224, 227)])
def test_a_crop_at_full_size_equals_the_plain_recipe_as_closely(size):
    image = noise(*size)
    former = ImagePreprocessor(image_size=224, pixel_rule=2)
    assert np.abs(ImagePreprocessor(image_size=224).view(image).astype(int) - plain_crop(image, 224)).max() <= 1
    assert np.array_equal(former.view(image), plain_crop(image, 224, in_one_call=True))


def plain_squares(image: Image.Image, size: int, n: int) -> list[np.ndarray]:
    """The training recipe's resizing, then n squares from end to end of the long side."""
    width, height = image.size
    is_upright = width <= height
    new_size = (size, int(size * height / width)) if is_upright else (int(size * width / height), size)
    resized = np.asarray(image.resize(new_size, Image.Resampling.BICUBIC))
    places = [round(view * (max(new_size) - size) / (n - 1)) for view in range(n)]
    return [(resized if is_upright else resized.swapaxes(0, 1))[place : place + size] for place in places]


@pytest.mark.parametrize(
    ("size", "n"), [((640, 427), 2), ((427, 640), 2), ((90, 45), 2), ((200, 70), 3), ((70, 300), 4)]
)
@pytest.mark.parametrize(("rule", "tolerance"), [(2, 0), (PIXEL_RULE, 2)])
def test_squares_equal_the_plain_recipe_cut_along_the_long_side(size, n, rule, tolerance):
    image = noise(*size)
    squares = ImagePreprocessor(image_size=SIZE, pixel_rule=rule).views(image, 4)
    seen = squares if size[0] <= size[1] else [square.swapaxes(0, 1) for square in squares]
    expected = plain_squares(image, SIZE, n)
    assert len(seen) == n
    assert all(
        np.abs(ours.astype(int) - theirs).max() <= tolerance for ours, theirs in zip(seen, expected, strict=True)
    )
    assert np.abs(seen[0].astype(int) - expected[-1]).max() > 10


@pytest.mark.parametrize("size", [(28, 28), (60, 50), (640, 427)])
def test_one_square_is_the_view_of_today(size):
    image = noise(*size)
    (square,) = PREPROCESSOR.views(image, 1)
    assert np.array_equal(square, PREPROCESSOR.view(image))


def test_squares_of_a_very_long_image_are_cut_from_the_source():
    image = noise(4, 4_000)
    top, *_, bottom = ImagePreprocessor(image_size=224).views(image, 4)
    for view, part in ((top, image.crop((0, 0, 4, 4))), (bottom, image.crop((0, 3996, 4, 4000)))):
        expected = np.asarray(part.resize((224, 224), Image.Resampling.BICUBIC))
        assert np.abs(view[56:-56].astype(int) - expected[56:-56]).mean() < 12


@pytest.mark.parametrize("rule", [2, PIXEL_RULE])
@pytest.mark.parametrize("orientation", sorted(STORED_AS))
def test_squares_lie_in_the_upright_photograph(orientation, rule):
    upright, turn = noise(90, 40), STORED_AS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    preprocessor = ImagePreprocessor(image_size=SIZE, pixel_rule=rule)
    squares = preprocessor.views(encoded(stored, exif=with_orientation(orientation)), 4)
    expected = preprocessor.views(upright, 4)
    assert len(expected) == 3
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(squares, expected, strict=True))


def test_squares_are_those_of_the_page_that_shows_something():
    blank, shown = Image.new("RGB", (40, 40), "white"), noise(90, 40)
    squares = PREPROCESSOR.views(encoded(blank, "TIFF", save_all=True, append_images=[shown]), 4)
    assert [np.array_equal(*pair) for pair in zip(squares, PREPROCESSOR.views(shown, 4), strict=True)] == [True] * 3


@pytest.mark.parametrize("size", [(1, 5_000), (5_000, 1), (2, 9), (1, 1)])
def test_the_smallest_and_the_longest_images_have_squares_as_well(size):
    squares = PREPROCESSOR.views(noise(*size), 4)
    assert [square.shape for square in squares] == [(SIZE, SIZE, 3)] * (1 if size == (1, 1) else 4)


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = noise(SIZE, SIZE)
    assert np.array_equal(PREPROCESSOR.view(image), np.asarray(image))


def test_half_a_pixel_of_offset_is_rounded_to_even():
    image = noise(SIZE + 3, SIZE)
    assert np.array_equal(PREPROCESSOR.view(image), np.asarray(image)[:, 2 : 2 + SIZE])


def test_encoded_bytes_and_the_decoded_image_give_one_crop():
    image = noise(50, 40)
    assert np.array_equal(PREPROCESSOR.view(encoded(image)), PREPROCESSOR.view(image))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", sorted(STORED_AS))
def test_a_photograph_is_turned_upright_by_its_orientation(image_format, orientation):
    upright = noise(50, 40)
    turn = STORED_AS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    # At quality 100 and full colour resolution, JPEG is off by a few levels; a wrong turn of noise by about 85.
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = encoded(stored, image_format, exif=with_orientation(orientation), **options[image_format])
    for preprocessor in (PREPROCESSOR, FORMER):
        difference = preprocessor.view(data).astype(int) - preprocessor.view(upright)
        assert np.abs(difference).max() <= (6 if image_format == "JPEG" else 0)


def test_orientation_is_ignored_on_request():
    stored = noise(50, 40)
    preprocessor = ImagePreprocessor(image_size=SIZE, honour_exif=False)
    assert np.array_equal(preprocessor.view(encoded(stored, exif=with_orientation(6))), preprocessor.view(stored))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    image = noise(50, 40)
    data = encoded(image, exif=with_orientation(orientation))
    assert np.array_equal(PREPROCESSOR.view(data), PREPROCESSOR.view(image))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("block", [b"garbage!", b"M", b"MM\0*", b"MM\0*\0\0\0\x08\0"])
def test_a_damaged_exif_block_counts_as_none(block):
    image = noise(50, 40)
    data = encoded(image, exif=b"Exif\0\0" + block)
    assert np.array_equal(PREPROCESSOR.view(data), PREPROCESSOR.view(image))


@pytest.mark.parametrize("kind", [1, 2, 7])
def test_orientation_is_honoured_beside_a_tag_of_the_wrong_type(kind):
    upright = noise(50, 40)
    x_resolution = struct.pack(">HHI4s", 0x011A, kind, 4, b"72\0\0")
    orientation = struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + orientation + x_resolution + bytes(4)
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert np.array_equal(PREPROCESSOR.view(data), PREPROCESSOR.view(upright))


def test_alpha_is_dropped_and_not_blended():
    colours = noise(50, 40)
    image = colours.copy()
    image.putalpha(Image.fromarray(np.arange(2000, dtype=np.uint8).reshape(40, 50)))
    assert np.array_equal(PREPROCESSOR.view(encoded(image)), PREPROCESSOR.view(colours))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "PA"])
def test_every_mode_is_converted_to_rgb(mode):
    image = noise(50, 40).convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    assert np.array_equal(PREPROCESSOR.view(image), PREPROCESSOR.view(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_every_mode_is_read_from_a_file(mode):
    image = noise(50, 40).convert(mode)
    assert np.array_equal(PREPROCESSOR.view(encoded(image)), PREPROCESSOR.view(image))


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_a_transparent_palette_colour_keeps_its_colour():
    image = noise(50, 40).convert("P")
    data = encoded(image, transparency=bytes(range(256)))
    assert np.array_equal(PREPROCESSOR.view(data), PREPROCESSOR.view(image))


def test_16_bit_grey_is_scaled_and_not_clipped():
    levels = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)
    scaled = Image.fromarray((levels // 256).astype(np.uint8)).convert("RGB")
    assert np.array_equal(PREPROCESSOR.view(encoded(Image.fromarray(levels))), PREPROCESSOR.view(scaled))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_whole_numbers_of_16_or_32_bits_are_scaled_from_16_bits(dtype):
    levels = np.random.default_rng(0).integers(0, 65536, (SIZE, SIZE)).astype(dtype)
    image = Image.frombytes({"<u2": "I;16", ">u2": "I;16B", "<i4": "I"}[dtype], (SIZE, SIZE), levels.tobytes())
    assert np.array_equal(to_rgb(image), np.stack([levels // 256] * 3, axis=-1))


def test_under_the_former_rule_whole_numbers_beyond_16_bits_are_black_or_white():
    image = Image.fromarray(np.array([[-1, -70_000, 65_535, 65_536, 2**31 - 1]], dtype=np.int32))
    assert np.asarray(to_rgb(image, rule=1))[0, :, 0].tolist() == [0, 0, 255, 255, 255]


def test_under_the_former_rule_fractions_outside_their_range_are_black_or_white():
    image = Image.fromarray(np.array([[-5.0, 254.9, 255.0, 256.0, 1e9, np.inf, -np.inf, np.nan]], dtype=np.float32))
    assert np.asarray(to_rgb(image, rule=1))[0, :, 0].tolist() == [0, 254, 255, 255, 255, 255, 0, 0]


def test_under_the_former_rule_a_float_image_with_any_value_above_1_ranges_to_255():
    image = Image.fromarray(np.array([[0.5, 1.0, 1.5]], dtype=np.float32))
    assert np.asarray(to_rgb(image, rule=1))[0, :, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_a_float_image_may_range_to_1_or_to_255(white):
    levels = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    values = (levels / np.float32(255) * np.float32(white)).astype(np.float32)
    difference = PREPROCESSOR.view(encoded(Image.fromarray(values), "TIFF")).astype(int)
    difference -= PREPROCESSOR.view(Image.fromarray(levels))
    # A value just under a whole level is cut down to the level below.
    assert np.abs(difference).max() <= 1


def test_a_float_image_of_no_numbers_is_black():
    values = np.full((40, 50), np.nan, dtype=np.float32)
    assert PREPROCESSOR.view(encoded(Image.fromarray(values), "TIFF")).max() == 0


def test_a_cmyk_jpeg_is_converted_to_rgb():
    image = Image.new("CMYK", (50, 40), (0, 255, 255, 0))
    # Red, up to JPEG's rounding.
    assert np.abs(PREPROCESSOR.view(encoded(image, "JPEG")).astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("image_format", ["GIF", "WEBP"])
def test_an_animation_shows_its_first_frame(image_format):
    red, blue = Image.new("RGB", (50, 40), "red"), Image.new("RGB", (50, 40), "blue")
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(red, image_format, save_all=True, append_images=[blue, blue], **options)
    assert np.array_equal(PREPROCESSOR.view(data), PREPROCESSOR.view(red))


def test_empty_bytes_are_refused():
    with pytest.raises(ImageDecodeError, match=r"the file is empty \(0 bytes\)"):
        PREPROCESSOR.view(b"")


@pytest.mark.parametrize("data", [b"plain text", b"<!DOCTYPE html><html></html>", b"\0" * 100, b"\xff\xd7\xff"])
def test_bytes_that_are_no_image_are_refused_with_how_they_start(data):
    with pytest.raises(ImageDecodeError, match=r"not a readable image .*expected one of JPEG, PNG") as raised:
        PREPROCESSOR.view(data)
    assert repr(data[:16]) in str(raised.value)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_truncated_file_is_refused(image_format, share):
    data = encoded(noise(50, 40), image_format)
    with pytest.raises(ImageDecodeError, match=r"\w+ \w+"):
        PREPROCESSOR.view(data[: int(len(data) * share)])


def test_a_png_with_damaged_pixel_data_is_refused():
    data = bytearray(encoded(noise(50, 40)))
    data[data.index(b"IDAT") + 1000] ^= 0xFF
    with pytest.raises(ImageDecodeError, match="broken"):
        PREPROCESSOR.view(bytes(data))


def test_a_header_that_claims_a_giant_image_is_refused():
    with pytest.raises(ImageDecodeError, match="10000000000 pixels"):
        PREPROCESSOR.view(png_claiming(100_000, 100_000))


def test_an_image_above_the_limit_is_refused_before_its_pixels_are_decoded():
    # The claimed pixels are not in the file: decoding them would give another error.
    with pytest.raises(ImageDecodeError, match="9000 x 9000 pixels are 81000000; the limit is 1000000"):
        ImagePreprocessor(image_size=SIZE, max_image_pixels=1_000_000).view(png_claiming(9000, 9000))


def test_a_limit_above_pillows_own_holds_where_it_is_allowed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    allow_image_pixels(400_000_000)
    assert open_image(png_claiming(20_000, 20_000), 400_000_000).size == (20_000, 20_000)
    with pytest.raises(ImageTooLargeError, match="the limit is 400000000"):
        open_image(png_claiming(20_000, 20_001), 400_000_000)


@pytest.mark.parametrize("limit", [1, 100_000, 178_956_970])
def test_a_limit_below_pillows_own_leaves_that_as_it_is(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 178_956_970)
    allow_image_pixels(limit)
    assert Image.MAX_IMAGE_PIXELS == 178_956_970


def test_where_pillow_has_no_limit_it_is_given_none(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    allow_image_pixels(1000)
    assert Image.MAX_IMAGE_PIXELS is None


def test_an_image_of_exactly_the_limit_is_opened():
    data = encoded(noise(50, 40))
    assert open_image(data, 2000).size == (50, 40)
    with pytest.raises(ImageTooLargeError) as raised:
        open_image(data, 1999)
    assert (raised.value.width, raised.value.height) == (50, 40)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ImageDecodeError, match=r"the image has no pixels \(0 x 5\)"):
        PREPROCESSOR.view(Image.new("RGB", (0, 5)))


@settings(max_examples=200)
@given(data=st.data(), image_format=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
def test_damaged_files_raise_nothing_but_image_decode_error(data, image_format):
    damaged = bytearray(encoded(noise(20, 20), image_format, exif=with_orientation(6)))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        crop = PREPROCESSOR.view(bytes(damaged))
    except ImageDecodeError:
        return
    assert crop.shape == (SIZE, SIZE, 3)


def test_normalised_pixels_have_clips_mean_and_deviation():
    crop = np.full((1, 2, 2, 3), 51, dtype=np.uint8)
    pixels = PREPROCESSOR.normalise(torch.from_numpy(crop))
    expected = [(0.2 - mean) / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    # Float32 arithmetic.
    assert pixels[0, :, 1, 1].tolist() == pytest.approx(expected, rel=1e-6)


def test_normalising_moves_channels_to_the_front():
    crops = torch.from_numpy(np.stack([np.asarray(noise(SIZE, SIZE, seed)) for seed in range(2)]))
    assert PREPROCESSOR.normalise(crops).shape == (2, 3, SIZE, SIZE)


def test_a_saved_preprocessor_loads_equal(tmp_path):
    preprocessor = ImagePreprocessor(image_size=SIZE, honour_exif=False, max_image_pixels=1000)
    # What is the program's is not saved.
    replace(preprocessor, pixel_rule=1, decoding="faster").save_pretrained(tmp_path)
    assert ImagePreprocessor.from_pretrained(tmp_path) == preprocessor


def test_an_unknown_field_of_a_saved_preprocessor_is_refused(tmp_path):
    PREPROCESSOR.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_rescale": True}))
    with pytest.raises(ValueError, match="do_rescale"):
        ImagePreprocessor.from_pretrained(tmp_path)
