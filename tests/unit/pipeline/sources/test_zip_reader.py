"""Reading zips: the samples of a tar of the same members, and damage as rows."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from pipeline.sources.sample import Sample
from pipeline.sources.tar_reader import read_tar
from pipeline.sources.zip_reader import count_in_zip, read_zip
from tests.fixtures.corpus import Members, tar_bytes

MEMBERS = [("a.jpg", b"A"), ("a.txt", b"a cat"), ("x/b.left.jpg", b"L"), ("x/b.right.jpg", b"R"), ("c.json", b"{}")]


def zip_bytes(members: Members, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def read(archive: bytes, max_sample_bytes: int = 1000) -> list[Sample]:
    return list(read_zip(io.BytesIO(archive), max_sample_bytes))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_the_samples_are_those_of_a_tar_of_the_same_members(compression: int) -> None:
    members = [*MEMBERS, ("__MACOSX/a.jpg", b"?"), ("x/._b.jpg", b"?")]
    assert read(zip_bytes(members[::-1], compression)) == list(read_tar(io.BytesIO(tar_bytes(sorted(MEMBERS)))))


def test_an_image_that_is_damaged_is_one_rejected_row() -> None:
    archive = bytearray(zip_bytes([("a.jpg", b"AAAA"), ("b.jpg", b"BBBB"), ("c.jpg", b"CCCC")], zipfile.ZIP_STORED))
    archive[archive.index(b"BBBB")] ^= 1
    found = read(bytes(archive))
    assert [(sample.key, sample.error) for sample in found] == [("a", None), ("b", "ArchiveDamaged"), ("c", None)]
    assert "b.jpg cannot be read: Bad CRC-32" in (found[1].message or "")


def test_a_side_file_that_is_damaged_is_told_on_the_labelled_row() -> None:
    archive = bytearray(zip_bytes([("a.jpg", b"AAAA"), ("a.txt", b"BBBB")], zipfile.ZIP_STORED))
    archive[archive.index(b"BBBB")] ^= 1
    (sample,) = read(bytes(archive))
    assert (sample.data, sample.caption, sample.error) == (b"AAAA", None, "SideFileUnreadable")


@pytest.mark.parametrize("archive", [b"", b"PK\x03\x04 no zip", zip_bytes(MEMBERS)[:-30]])
def test_what_is_no_zip_is_one_rejected_row(archive: bytes) -> None:
    (sample,) = read(archive)
    assert (sample.key, sample.error) == ("", "ArchiveUnreadable")
    assert "not a readable zip archive: File is not a zip file" in (sample.message or "")


def test_a_zip_without_samples_is_one_rejected_row() -> None:
    assert [sample.error for sample in read(zip_bytes([(".hidden", b"?")]))] == ["EmptyShard"]


def test_an_image_over_the_limit_is_one_rejected_row_and_not_read() -> None:
    (sample,) = read(zip_bytes([("a.jpg", bytes(11))]), max_sample_bytes=10)
    assert (sample.key, sample.data, sample.error) == ("a", None, "MemberTooLarge")


def test_damage_anywhere_raises_nothing() -> None:
    archive, draw = zip_bytes([(f"{number}.jpg", bytes(50)) for number in range(5)]), random.Random(0)
    for _ in range(300):
        damaged = bytearray(archive)
        for _ in range(3):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        assert read(bytes(damaged))


def test_the_samples_of_the_beginning_are_counted_with_their_bytes() -> None:
    archive = zip_bytes([(f"{number}.{suffix}", bytes(100)) for number in range(4) for suffix in ("jpg", "txt")], 0)
    assert count_in_zip(io.BytesIO(archive), len(archive), 2) == (2, 400)
    assert count_in_zip(io.BytesIO(archive), len(archive), 9) == (4, len(archive))
    assert count_in_zip(io.BytesIO(b"no zip"), 6, 9) == (0, 6)
