"""What pixels become in 8-bit RGB: of images that use a part of their range, that are transparent or have pages."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from model.images.opening import ImageTooLargeError, open_image
from model.images.pixels import is_flat, to_rgb
from model.images.preprocessing import ImagePreprocessor
from model.images.seen_image import see_whole

WIDTH, HEIGHT = 48, 40
# Of a photograph: dark and bright places, and all between.
GREY = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2.8).clip(0, 255).astype(np.uint8)
COLOURS = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
FORMER = ImagePreprocessor(image_size=HEIGHT, pixel_rule=1)
TODAY = ImagePreprocessor(image_size=HEIGHT)
# Scaled by darkest and brightest, not by a power of two.
STRETCHED = 0.99


def encoded(image: Image.Image, image_format: str = "TIFF", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def seen(data: bytes | Image.Image, preprocessor: ImagePreprocessor = TODAY) -> np.ndarray:
    return np.asarray(preprocessor.open_upright(data)).astype(int)


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.corrcoef(found[..., 0].ravel(), expected.ravel())[0, 1])


def png_16(values: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write in colour."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_16(values: np.ndarray, order: str, is_deflated: bool) -> bytes:
    """A colour TIFF of 16 bits a channel in one strip, little- or big-endian: `<` or `>`."""
    pixels = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(pixels) if is_deflated else pixels
    height, width, n_bands = values.shape
    fields = [
        (256, 4, width), (257, 4, height), (258, 3, None), (259, 3, 8 if is_deflated else 1), (262, 3, 2),
        (273, 4, 8), (277, 3, n_bands), (278, 4, height), (279, 4, len(data)),
    ]  # fmt: skip
    directory = 8 + len(data)
    bits_at = directory + 2 + 12 * len(fields) + 4
    body = struct.pack(f"{order}H", len(fields))
    for tag, kind, value in fields:
        count, value = (n_bands, bits_at) if value is None else (1, value)
        packed = struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        body += struct.pack(f"{order}HHI", tag, kind, count) + packed
    bits = struct.pack(f"{order}{n_bands}H", *[16] * n_bands)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", directory) + data + body + bytes(4) + bits


def with_hot_pixel(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[3, 5] = value
    return values


FRACTIONS = GREY.astype(np.float32) / 255


class TestWholeNumbers:
    """Grey of more than 8 bits."""

    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    @pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
    def test_numbers_of_so_many_bits_are_scaled_from_them(self, bits: int, image_format: str) -> None:
        values = GREY.astype(np.uint16) << (bits - 8)
        assert np.array_equal(seen(encoded(Image.fromarray(values), image_format))[..., 0], GREY)

    def test_a_hot_pixel_does_not_decide_how_many_bits_there_are(self) -> None:
        values = with_hot_pixel(GREY.astype(np.uint16) * 16, 65535)
        found = seen(encoded(Image.fromarray(values)))[..., 0]
        assert (found != GREY).sum() == 1
        assert found[3, 5] == 255

    @pytest.mark.parametrize(
        ("values", "case"),
        [
            (7301 + GREY.astype(np.int32) * 3, "a thermal camera: a narrow part of the range"),
            (GREY.astype(np.int32) * 10 - 400, "elevations below the sea"),
            (np.where(GREY < 20, -32768, GREY.astype(np.int32) * 16 - 400), "elevations with gaps"),
            (GREY.astype(np.int32) * 100_000, "numbers beyond 16 bits"),
            (GREY.astype(np.int32) // 64, "few classes"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_uses_no_range_of_bits_is_stretched_from_its_darkest_to_its_brightest(
        self, values: np.ndarray, case: str
    ) -> None:
        found = seen(encoded(Image.fromarray(values.astype(np.int32))))
        assert likeness(found, np.where(values == -32768, values[values > -32768].min(), values)) > STRETCHED
        assert (found.min(), found.max()) == (0, 255)

    def test_the_value_that_a_geotiff_names_stands_for_none(self) -> None:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[42113] = "65535"
        values = np.where(GREY < 60, 65535, GREY.astype(np.uint16) * 16)
        found = seen(encoded(Image.fromarray(values.astype(np.uint16)), tiffinfo=tags))[..., 0]
        assert np.array_equal(found, np.where(GREY < 60, 0, GREY))

    def test_one_value_alone_is_what_it_was(self) -> None:
        image = Image.fromarray(np.full((HEIGHT, WIDTH), 700, np.uint16))
        assert np.array_equal(seen(image), seen(image, FORMER))


class TestFractions:
    """Grey of 32-bit floating point."""

    @pytest.mark.parametrize(
        ("values", "case"),
        [
            (with_hot_pixel(FRACTIONS, 1.0003), "0 to 1 with a pixel above"),
            (FRACTIONS * np.float32(10_000), "reflectance"),
            (FRACTIONS * np.float32(65_535), "16 bits as fractions"),
            (FRACTIONS * 2 - 1, "-1 to 1"),
            (FRACTIONS * np.float32(0.05), "a small part of 0 to 1"),
            (np.where(GREY < 20, np.float32(-9999), FRACTIONS), "gaps of -9999"),
            (np.where(GREY < 20, np.float32(3.4e38), FRACTIONS * 500), "gaps of the largest number"),
            (np.where(GREY < 20, np.float32("nan"), FRACTIONS * 500), "gaps that are no numbers"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_the_image_holds_ranges_from_black_to_white(self, values: np.ndarray, case: str) -> None:
        found = seen(encoded(Image.fromarray(values.astype(np.float32))))
        assert likeness(found, GREY) > STRETCHED
        assert found.max() >= 245
        assert found.min() <= 5

    @pytest.mark.parametrize("white", [1.0, 255.0])
    def test_the_two_usual_ranges_are_as_they_were(self, white: float) -> None:
        image = Image.fromarray((FRACTIONS * np.float32(white)).astype(np.float32))
        assert np.array_equal(seen(image), seen(image, FORMER))


class TestColoursOf16Bits:
    """Pillow gives the upper bytes alone."""

    FILES: dict[str, Callable[[np.ndarray], bytes]] = {
        "PNG": lambda values: png_16(values, 2),
        "PNG with alpha": lambda values: png_16(np.dstack([values, np.full_like(GREY, 255)]), 6),
        "TIFF": lambda values: tiff_16(values, "<", False),
        "big-endian TIFF": lambda values: tiff_16(values, ">", False),
        "deflated TIFF": lambda values: tiff_16(values, "<", True),
        "big-endian deflated TIFF": lambda values: tiff_16(values, ">", True),
    }

    @pytest.mark.parametrize("kind", FILES)
    @pytest.mark.parametrize("bits", [10, 12, 16])
    def test_colours_of_so_many_bits_are_scaled_from_them(self, kind: str, bits: int) -> None:
        data = self.FILES[kind](COLOURS.astype(np.uint16) << (bits - 8))
        assert np.array_equal(seen(data), COLOURS)

    def test_a_turned_file_is_turned(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 3
        plain = png_16(COLOURS.astype(np.uint16) * 4, 2)
        payload = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(payload)) + b"eXIf" + payload + struct.pack(">I", zlib.crc32(b"eXIf" + payload))
        at = plain.index(b"IDAT") - 4
        assert np.array_equal(seen(plain[:at] + chunk + plain[at:]), COLOURS[::-1, ::-1])


class TestTransparency:
    """Alpha is dropped, but where nothing would be left to see."""

    @pytest.mark.parametrize(
        ("colour", "ground"),
        [((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (0, 0, 0)), ((20, 20, 160), (255, 255, 255))],
    )
    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    @pytest.mark.filterwarnings("ignore:Palette images with Transparency")
    def test_a_logo_of_one_colour_lies_on_a_ground_of_another(
        self, mode: str, colour: tuple[int, int, int], ground: tuple[int, int, int]
    ) -> None:
        logo = Image.new("RGBA", (WIDTH, HEIGHT), (*colour, 0))
        logo.paste((*colour, 255), (10, 10, 30, 30))
        if mode == "LA":
            colour = tuple(Image.new("RGB", (1, 1), colour).convert("L").convert("RGB").getpixel((0, 0)))  # type: ignore[arg-type]
        image = logo.convert(mode) if mode != "P" else logo.quantize(4)
        found = seen(encoded(image, "PNG"))
        # A palette may be off by a level.
        assert np.abs(found[20, 20] - colour).max() <= 1
        assert np.abs(found[2, 2] - ground).max() <= 1

    def test_an_image_that_shows_something_without_alpha_keeps_its_colours(self) -> None:
        image = Image.fromarray(COLOURS)
        image.putalpha(Image.fromarray(GREY))
        assert np.array_equal(seen(encoded(image, "PNG")), COLOURS)

    def test_a_square_of_one_opaque_colour_stays(self) -> None:
        image = Image.new("RGBA", (WIDTH, HEIGHT), (9, 9, 9, 255))
        assert np.unique(seen(encoded(image, "PNG"))).tolist() == [9]


class TestFramesAndPages:
    """Which one is seen."""

    BLANK, PICTURE = Image.new("RGB", (WIDTH, HEIGHT)), Image.fromarray(COLOURS)

    @pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
    @pytest.mark.parametrize("n_blank", [1, 3])
    def test_the_first_that_is_not_of_one_colour(self, image_format: str, n_blank: int) -> None:
        # Frames that are alike are written as one.
        blank = [Image.new("RGB", (WIDTH, HEIGHT), (0, 0, 60 * number)) for number in range(n_blank)]
        options = {"lossless": True} if image_format == "WEBP" else {}
        data = encoded(blank[0], image_format, save_all=True, append_images=[*blank[1:], self.PICTURE], **options)
        # The colours of a GIF are 256.
        assert np.abs(seen(data) - COLOURS).mean() < 3

    def test_the_first_where_all_are_of_one_colour(self) -> None:
        others = [Image.new("RGB", (WIDTH, HEIGHT), "blue")]
        assert seen(encoded(self.BLANK, "GIF", save_all=True, append_images=others)).max() == 0

    def test_the_first_where_a_later_one_is_damaged(self) -> None:
        data = encoded(self.BLANK, "GIF", save_all=True, append_images=[self.PICTURE])
        assert seen(data[: len(data) - 600]).max() == 0

    @pytest.mark.parametrize("kind", [1, 4, 5])
    def test_no_page_that_says_it_is_a_thumbnail_or_a_mask(self, kind: int) -> None:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[254] = kind
        small = self.PICTURE.resize((12, 10)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        data = encoded(small, save_all=True, append_images=[self.PICTURE], tiffinfo=tags)
        # Pillow writes the tags of the first page on all.
        places = [at for at in range(len(data) - 4) if data[at : at + 4] == struct.pack("<HH", 254, 4)]
        last = places[-1]
        data = data[: last + 8] + bytes(4) + data[last + 12 :]
        assert np.array_equal(seen(data), COLOURS)
        assert open_image(data).size == (WIDTH, HEIGHT)
        with pytest.raises(ImageTooLargeError):
            open_image(data, 12 * 10)

    def test_the_first_page_where_all_are_thumbnails(self) -> None:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[254] = 1
        data = encoded(self.PICTURE, save_all=True, append_images=[self.BLANK], tiffinfo=tags)
        assert np.array_equal(seen(data), COLOURS)


class TestFormerRule:
    """Runs that were made under it go on with it."""

    @pytest.mark.parametrize(
        "data",
        [
            encoded(Image.fromarray(GREY.astype(np.uint16) * 4)),
            png_16(COLOURS.astype(np.uint16) * 4, 2),
            encoded(Image.fromarray(FRACTIONS * 2 - 1)),
            encoded(Image.new("LA", (WIDTH, HEIGHT)), "PNG"),
            encoded(TestFramesAndPages.BLANK, "GIF", save_all=True, append_images=[TestFramesAndPages.PICTURE]),
        ],
        ids=["10 bits", "colours of 10 bits", "fractions", "transparent", "frames"],
    )
    def test_it_sees_what_it_saw(self, data: bytes) -> None:
        image = Image.open(io.BytesIO(data))
        if image.mode.startswith("I"):
            expected = np.asarray(image).astype(int)[..., None] // 256
        elif image.mode == "F":
            expected = (np.asarray(image) * 255).clip(0, 255).astype(np.uint8)[..., None]
        else:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(seen(data, FORMER), np.broadcast_to(expected, (HEIGHT, WIDTH, 3)))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (300, 200), "teal"), True),
        (Image.fromarray(with_hot_pixel(np.full((300, 200), 90, np.uint8), 120)).convert("RGB"), False),
        (Image.fromarray(90 + np.arange(300 * 200, dtype=np.uint8).reshape(300, 200) % 9).convert("RGB"), True),
        (Image.fromarray(90 + np.arange(300 * 200, dtype=np.uint8).reshape(300, 200) % 10).convert("RGB"), False),
    ],
    ids=["one colour", "one other pixel", "8 levels", "9 levels"],
)
def test_flat_is_what_varies_by_no_more_than_8_levels(image: Image.Image, expected: bool) -> None:
    assert is_flat(image) == is_flat(np.asarray(image)) == expected


def test_a_wide_image_is_looked_at_in_all_its_columns() -> None:
    # A stride that divides the width would see the same columns of each row.
    values = np.zeros((3000, 4000), np.uint16)
    values[:, 1::2] = 1000
    assert np.unique(np.asarray(to_rgb(Image.fromarray(values)))).tolist() == [0, 250]


def test_what_is_decoded_already_is_seen_all_the_same() -> None:
    image = Image.open(io.BytesIO(png_16(COLOURS.astype(np.uint16) * 256, 2)))
    image.load()
    assert np.array_equal(np.asarray(see_whole(image)), COLOURS)
