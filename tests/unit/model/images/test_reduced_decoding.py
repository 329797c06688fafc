"""JPEGs decoded at a half, a quarter or an eighth: the crop is that of the whole image, to a grey level or few."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model import ImageDecodeError, ImagePreprocessor
from model.images import preprocessing, resampling, seen_image
from model.images.opening import open_image
from model.images.reduced_decoding import reduce_decoding
from model.images.seen_image import SeenImage
from tests.fixtures.corpus import STORED_AS
from tests.unit.model.resampling_oracle import slow_resample

SIZE = 28
ORIENTATION = 0x0112
EXACT = ImagePreprocessor(image_size=SIZE, decoding="exact")
FAST = replace(EXACT, decoding="fast")
FASTER = replace(EXACT, decoding="faster")
# Of an eighth, no side a multiple of it: by how much a reduced size is rounded up is what goes wrong most easily.
ODD = (905, 897)
# Smooth shapes: over all pixels, and in a few places.
MEAN_LEVELS, MAX_LEVELS = 0.5, 3


def picture(size: tuple[int, int] = ODD, seed: int = 0) -> Image.Image:
    """Coloured blots, as sharp as a photograph of so many pixels is."""
    blots = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, orientation: int = 1, **options) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    image.save(buffer, "JPEG", **{"quality": 95, "exif": exif, **options})
    return buffer.getvalue()


def slow_view(data: bytes) -> np.ndarray:
    """The oracle: all pixels, turned upright, then resized in float64."""
    whole = EXACT.open_upright(data)
    return slow_resample(whole, EXACT.frame(*whole.size))


def check_alike(seen: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(seen.astype(int) - expected)
    assert difference.mean() <= MEAN_LEVELS
    assert difference.max() <= MAX_LEVELS


def is_reduced(preprocessor: ImagePreprocessor, data: bytes) -> bool:
    opened = open_image(data)
    size = opened.size
    preprocessor.views_opened(opened, 1)
    return opened.size != size


@pytest.fixture(params=[0, 1 << 30], ids=["torch", "Pillow"])
def resized_by(request, monkeypatch):
    """What resizes small images, too."""
    monkeypatch.setattr(resampling, "_LEAST_PIXELS", request.param)


@pytest.mark.usefixtures("resized_by")
@pytest.mark.parametrize("orientation", sorted(STORED_AS))
@pytest.mark.parametrize("preprocessor", [FAST, FASTER], ids=["fast", "faster"])
def test_photographs_in_all_orientations_look_as_if_decoded_in_full(preprocessor, orientation):
    data = jpeg(picture(), orientation)
    check_alike(preprocessor.view(data), slow_view(data))
    assert is_reduced(preprocessor, data)


@pytest.mark.parametrize("size", [(449, 1800), (2001, 227), (459, 455)])
@pytest.mark.parametrize("preprocessor", [FAST, FASTER], ids=["fast", "faster"])
def test_odd_and_narrow_photographs_look_so_too(preprocessor, size):
    data = jpeg(picture(size))
    check_alike(preprocessor.view(data), slow_view(data))
    assert is_reduced(preprocessor, data)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"restart_marker_rows": 1}),
    ],
)
def test_jpegs_of_every_kind_look_so_too(mode, options):
    data = jpeg(picture().convert(mode), 3, **options)
    check_alike(FASTER.view(data), slow_view(data))
    assert is_reduced(FASTER, data)


@pytest.mark.parametrize(
    ("image_format", "mode"), [("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16"), ("TIFF", "RGB"), ("WEBP", "RGB")]
)
def test_other_formats_have_no_reduced_size_and_the_same_pixels(image_format, mode):
    grey = np.asarray(picture().convert("L"), dtype=np.uint16) * 256
    image, buffer = Image.fromarray(grey) if mode == "I;16" else picture().convert(mode), io.BytesIO()
    image.save(buffer, image_format, compress_level=1)
    assert np.array_equal(FASTER.view(buffer.getvalue()), EXACT.view(buffer.getvalue()))


@pytest.mark.usefixtures("resized_by")
def test_without_the_true_scale_the_crop_is_wrong(monkeypatch):
    resample = seen_image.resample
    monkeypatch.setattr(seen_image, "resample", lambda *given: resample(*given[:3]))
    data = jpeg(picture())
    with pytest.raises(AssertionError):
        check_alike(FASTER.view(data), slow_view(data))


@pytest.mark.usefixtures("resized_by")
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_where_the_image_is_turned_and_not_the_crop_the_crop_is_wrong(monkeypatch, orientation):
    see = preprocessing.see

    def see_upright(*args) -> SeenImage:
        seen = see(*args)
        return seen._replace(rgb=seen.rgb.transpose(seen.turn), turn=None)

    monkeypatch.setattr(preprocessing, "see", see_upright)
    data = jpeg(picture(), orientation)
    with pytest.raises(AssertionError):
        check_alike(FASTER.view(data), slow_view(data))


@pytest.mark.parametrize(
    ("decoding", "size", "expected"),
    [
        ("exact", (1000, 1000), 1),
        ("fast", (223, 4000), 1),
        ("fast", (224, 4000), 2),
        ("fast", (4000, 447), 2),
        ("fast", (448, 448), 4),
        ("fast", (895, 896), 4),
        ("fast", (896, 896), 8),
        ("faster", (112, 112), 2),
        ("faster", (448, 449), 8),
        ("faster", (900, 900), 8),
    ],
)
def test_so_many_pixels_are_left_for_each_of_the_resized_image(decoding, size, expected):
    opened = open_image(jpeg(Image.new("RGB", size)))
    frame = EXACT.frame(*size)
    assert reduce_decoding(opened, (frame.width, frame.height), decoding) == expected
    opened.load()
    assert opened.size == tuple(-(-side // expected) for side in size)


def test_an_image_of_the_callers_is_decoded_in_full_and_keeps_its_size():
    data = jpeg(picture())
    theirs = Image.open(io.BytesIO(data))
    assert np.array_equal(FASTER.view(theirs), EXACT.view(data))
    assert theirs.size == ODD


@pytest.mark.parametrize("rule", [1, 2])
def test_former_rules_decode_in_full(rule):
    data = jpeg(picture())
    former = replace(EXACT, pixel_rule=rule)
    assert np.array_equal(replace(former, decoding="faster").view(data), former.view(data))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("preprocessor", [EXACT, FAST, FASTER], ids=["exact", "fast", "faster"])
def test_a_truncated_photograph_is_refused_whatever_is_decoded_of_it(preprocessor, options, share):
    data = jpeg(picture(), **options)
    with pytest.raises(ImageDecodeError, match=r"truncated|broken"):
        preprocessor.view(data[: int(len(data) * share)])


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_photograph_is_refused_or_not_whatever_is_decoded_of_it(seed):
    random, data = np.random.default_rng(seed), bytearray(jpeg(picture(seed=seed)))
    for place in random.integers(2, len(data), 5):
        data[place] = random.integers(0, 256)
    assert refuses(EXACT, bytes(data)) == refuses(FAST, bytes(data)) == refuses(FASTER, bytes(data))


def refuses(preprocessor: ImagePreprocessor, data: bytes) -> bool:
    try:
        preprocessor.view(data)
    except ImageDecodeError:
        return True
    return False


class TestFrames:
    """JPEGs of several, as phones write them."""

    @staticmethod
    def mpo(*frames: Image.Image) -> bytes:
        buffer = io.BytesIO()
        frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:], quality=95)
        return buffer.getvalue()

    def test_the_first_that_is_not_of_one_colour_is_seen(self) -> None:
        data = self.mpo(Image.new("RGB", ODD, "teal"), picture())
        check_alike(FASTER.view(data), slow_view(jpeg(picture())))

    def test_the_first_is_seen_where_it_shows_something(self) -> None:
        data = self.mpo(picture(), picture(seed=1))
        check_alike(FASTER.view(data), slow_view(jpeg(picture())))
        assert is_reduced(FASTER, data)

    def test_the_first_is_seen_where_all_are_of_one_colour(self) -> None:
        data = self.mpo(Image.new("RGB", ODD, "teal"), Image.new("RGB", (700, 500), "navy"))
        check_alike(FASTER.view(data), EXACT.view(data))
