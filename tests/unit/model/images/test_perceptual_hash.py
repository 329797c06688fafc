"""Hashes of what pictures look like."""

from __future__ import annotations

import io
import sys

import imagehash
import numpy as np
import pytest
from PIL import Image

from model.images.opening import open_image
from model.images.perceptual_hash import perceptual_hash
from model.images.preprocessing import ImagePreprocessor
from tests.fixtures.corpus import STORED_AS, encode, jpeg

N_PICTURES = 16


def hash_of(data: bytes, **settings: object) -> int | None:
    return perceptual_hash(ImagePreprocessor(image_size=32, **settings).see_opened(open_image(data)))


def distance(one: int | None, other: int | None) -> int:
    assert one is not None
    assert other is not None
    return ((one ^ other) & (1 << 64) - 1).bit_count()


def picture(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(seed, width, height)))


def test_a_small_picture_has_the_hash_that_the_library_gives_it() -> None:
    for seed in range(4):
        data = encode(picture(seed, 40, 36), "PNG")
        found = hash_of(data)
        assert found is not None
        assert f"{found & (1 << 64) - 1:016x}" == str(imagehash.phash(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("rule", [2, 3])
@pytest.mark.parametrize("orientation", sorted(STORED_AS))
def test_a_photograph_has_the_hash_of_the_upright_one(orientation: int, rule: int) -> None:
    upright, turn = picture(1, 320, 200), STORED_AS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encode(upright if turn is None else upright.transpose(turn), "JPEG", exif=exif, quality=95)
    assert distance(hash_of(stored, pixel_rule=rule), hash_of(encode(upright, "PNG"))) <= 2


@pytest.mark.parametrize("decoding", ["exact", "fast", "faster"])
def test_written_anew_or_made_smaller_pictures_look_alike_and_others_do_not(decoding: str) -> None:
    hashes = []
    for seed in range(N_PICTURES):
        photograph = picture(seed, 640, 480)
        copies = [photograph, photograph.resize((200, 150))]
        own, small = (hash_of(encode(copy, "JPEG", quality=60), decoding=decoding) for copy in copies)
        assert distance(own, small) <= 4
        hashes.append(own)
    distances = [distance(hashes[one], hashes[other]) for one in range(N_PICTURES) for other in range(one)]
    assert min(distances) > 6
    # Independent bits would differ in half of the places.
    assert 28 < np.mean(distances) < 34


def test_pictures_that_differ_beside_what_the_model_sees_do_not_look_alike() -> None:
    centre, preprocessor = picture(0, 96, 96), ImagePreprocessor(image_size=32)
    wide = []
    for seed in (1, 2):
        whole = picture(seed, 288, 96)
        whole.paste(centre, (96, 0))
        wide.append(encode(whole, "PNG"))
    views = [preprocessor.view(data)[:, 8:-8] for data in wide]
    assert np.array_equal(*views)
    assert distance(*map(hash_of, wide)) > 6


def test_a_picture_of_one_colour_has_none_as_its_bits_would_be_noise() -> None:
    noise = np.random.default_rng(0).integers(100, 104, (64, 64, 3), np.uint8)
    assert hash_of(encode(Image.fromarray(noise), "PNG")) is None
    assert hash_of(encode(Image.new("RGB", (1, 1)), "PNG")) is None


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(ImportError, match=r"pip install 'tagstream\[duplicates\]'"):
        hash_of(jpeg(0))
