"""A folder of images as shards: which files are images, how they are dealt to buckets, how they are read."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import image_folder as folder
from pipeline.sources.image_folder import count_buckets, deal, generation_name, image_files, read_files
from pipeline.sources.listing import find_source
from pipeline.sources.sample import Sample
from pipeline.sources.shard import FileVersion, ImageFile

VERSION = FileVersion(1, "etag", 0.0)


def files(*paths: str) -> list[ImageFile]:
    return image_files(dict.fromkeys(paths, VERSION))


def read(root: Path) -> list[Sample]:
    """The images of a folder, listed and read."""
    return list(read_files(fsspec.filesystem("file"), str(root), find_source(str(root)).images))


def refuse(monkeypatch: pytest.MonkeyPatch, error: OSError, *names: str) -> None:
    """Reading these files fails."""
    kind = type(fsspec.filesystem("file"))
    cat_file = kind.cat_file

    def cat(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if Path(path).name in names:
            raise error
        return cat_file(self, path, *arguments, **options)

    monkeypatch.setattr(kind, "cat_file", cat)


class TestListing:
    """Which files are images, and which belong to them."""

    @pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "Webp", "gif", "bmp", "TIF", "tiff"])
    def test_images_are_known_by_suffix_whatever_its_case(self, suffix: str) -> None:
        assert [file.path for file in files(f"x/a.b.{suffix}")] == [f"x/a.b.{suffix}"]

    @pytest.mark.parametrize(
        "path", ["a", "a.txt", "jpg", "a.jpg.part", ".a.jpg", "x/.a.jpg", ".x/a.jpg", "x/.y/a.jpg"]
    )
    def test_other_files_and_hidden_ones_are_no_images(self, path: str) -> None:
        assert files(path) == []

    def test_images_come_sorted_by_path(self) -> None:
        assert [file.path for file in files("b.jpg", "a/z.jpg", "a.jpg")] == ["a.jpg", "a/z.jpg", "b.jpg"]

    def test_side_files_lie_beside_their_image(self) -> None:
        (file,) = files("x/a.jpg", "x/a.txt", "x/a.json", "a.txt")
        assert (file.text, file.description) == ("x/a.txt", "x/a.json")

    def test_side_files_may_have_a_suffix_in_another_case(self) -> None:
        (file,) = files("IMG_1.JPG", "IMG_1.TXT", "IMG_1.Json")
        assert (file.text, file.description) == ("IMG_1.TXT", "IMG_1.Json")

    def test_of_two_side_files_the_one_in_small_letters_is_taken(self) -> None:
        (file,) = files("a.jpg", "a.TXT", "a.txt")
        assert file.text == "a.txt"

    def test_images_that_differ_in_their_suffix_share_their_side_file_and_have_keys_of_their_own(self) -> None:
        assert [(file.key, file.text) for file in files("a.jpg", "a.png", "a.txt")] == [
            ("a.jpg", "a.txt"),
            ("a.png", "a.txt"),
        ]

    def test_a_key_is_valid_unicode(self) -> None:
        assert [file.key for file in files(os.fsdecode(b"caf\xe9.jpg"))] == ["caf\\xe9.jpg"]


class TestDealing:
    """How files are spread over buckets."""

    @pytest.mark.parametrize(("n_files", "n_buckets"), [(1, 1), (500, 1), (501, 2), (1_000_000, 2000)])
    def test_a_bucket_is_made_for_every_five_hundred_files(self, n_files: int, n_buckets: int) -> None:
        assert count_buckets(n_files) == n_buckets

    def test_files_are_dealt_evenly(self) -> None:
        dealt = deal(files(*(f"{number}.jpg" for number in range(8000))), 16)
        sizes = [len(bucket) for bucket in dealt.values()]
        assert len(sizes) == 16
        # 500 each, give or take four standard deviations.
        assert all(410 < size < 590 for size in sizes)

    def test_a_file_lies_in_the_bucket_it_has_always_lain_in(self) -> None:
        dealt = deal(files("a.jpg", "x/b.png", "größe.jpg", os.fsdecode(b"\xff.jpg")), 16)
        assert {name: [file.key for file in bucket] for name, bucket in dealt.items()} == {
            "bucket-0006-of-0016": ["\\xff.jpg"],
            "bucket-0009-of-0016": ["a.jpg"],
            "bucket-0010-of-0016": ["x/b.png"],
            "bucket-0014-of-0016": ["größe.jpg"],
        }

    @settings(max_examples=30)
    @given(
        st.sets(st.text("abc/", min_size=1, max_size=8), max_size=30), st.sets(st.text("xyz", min_size=1), max_size=9)
    )
    def test_files_that_are_added_move_no_other(self, old: set[str], new: set[str]) -> None:
        before = deal(files(*(f"{stem}.jpg" for stem in old)), 4)
        after = deal(files(*(f"{stem}.jpg" for stem in old | new)), 4)
        for name, bucket in before.items():
            assert [file for file in after[name] if file in bucket] == bucket

    def test_every_file_is_dealt_once_and_in_order(self) -> None:
        all_files = files(*(f"{number}.jpg" for number in range(100)))
        dealt = deal(all_files, 7)
        assert Counter(file for bucket in dealt.values() for file in bucket) == Counter(all_files)
        assert all(bucket == sorted(bucket, key=lambda file: file.path) for bucket in dealt.values())
        assert list(dealt) == sorted(dealt)

    def test_generations_of_a_bucket_have_names_of_their_own(self) -> None:
        names = [generation_name("bucket-0003-of-0016", generation) for generation in range(3)]
        assert names == ["bucket-0003-of-0016", "bucket-0003-of-0016+1", "bucket-0003-of-0016+2"]


class TestReading:
    """What becomes of the files."""

    def test_an_image_comes_with_its_side_files(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        (tmp_path / "x/a.jpg").write_bytes(b"A")
        (tmp_path / "x/a.TXT").write_text("a cat")
        (tmp_path / "x/a.json").write_text('{"labels": ["cat"]}')
        assert read(tmp_path) == [Sample(key="x/a.jpg", data=b"A", caption="a cat", truth=["cat"])]

    def test_what_is_named_like_an_image_and_is_no_file_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"A")
        (tmp_path / "folder.jpg").mkdir()
        (tmp_path / "nowhere.jpg").symlink_to("absent")
        (tmp_path / "round.jpg").symlink_to("round.jpg")
        # Reading a pipe that nobody writes to would wait for ever.
        os.mkfifo(tmp_path / "pipe.jpg")
        os.mkfifo(tmp_path / "a.txt")
        assert read(tmp_path) == [Sample(key="a.jpg", data=b"A")]

    def test_a_name_that_is_no_utf_8_is_read(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"A")
        assert read(tmp_path) == [Sample(key="caf\\xe9.jpg", data=b"A")]

    @pytest.mark.parametrize("name", ["a[1].jpg", "a*.jpg", "a?.jpg", "{a}.jpg", "a b.jpg", "a#b%20.jpg"])
    def test_a_name_that_looks_like_a_pattern_is_read(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"A")
        (tmp_path / "a1.jpg").write_bytes(b"B")
        assert Sample(key=name, data=b"A") in read(tmp_path)

    def test_a_file_that_vanished_is_one_rejected_row(self, tmp_path: Path) -> None:
        (tmp_path / "b.jpg").write_bytes(b"B")
        listed = files("a.jpg", "b.jpg", os.fsdecode(b"\xff.jpg"))
        found = list(read_files(fsspec.filesystem("file"), str(tmp_path), listed))
        assert [(sample.key, sample.data, sample.error) for sample in found] == [
            ("a.jpg", None, "FileVanished"),
            ("b.jpg", b"B", None),
            ("\\xff.jpg", None, "FileVanished"),
        ]

    def test_a_side_file_that_vanished_does_not_cost_the_image(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"A")
        found = list(read_files(fsspec.filesystem("file"), str(tmp_path), files("a.jpg", "a.txt")))
        assert found == [Sample(key="a.jpg", data=b"A")]

    def test_a_file_over_the_limit_is_one_rejected_row_and_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(bytes(11))
        (sample,) = read_files(fsspec.filesystem("file"), str(tmp_path), find_source(str(tmp_path)).images, 10)
        assert (sample.key, sample.data, sample.error) == ("a.jpg", None, "MemberTooLarge")

    def test_a_side_file_over_the_limit_is_told_on_the_labelled_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.jpg").write_bytes(b"A")
        (tmp_path / "a.txt").write_bytes(bytes(11))
        monkeypatch.setattr(folder, "MAX_SIDE_FILE_BYTES", 10)
        (sample,) = read(tmp_path)
        assert (sample.data, sample.caption, sample.error) == (b"A", None, "SideFileUnreadable")

    @pytest.mark.parametrize(
        "error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.ESTALE, "Stale file handle")]
    )
    def test_a_file_that_cannot_be_read_is_one_rejected_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
    ) -> None:
        for name in ("a.jpg", "a.txt", "b.jpg", "c.jpg", "c.txt"):
            (tmp_path / name).write_bytes(name.encode())
        # As root every file may be read.
        refuse(monkeypatch, error, "b.jpg", "c.txt")
        found = {sample.key: sample for sample in read(tmp_path)}
        assert {key: (sample.data, sample.error) for key, sample in found.items()} == {
            "a.jpg": (b"a.jpg", None),
            "b.jpg": (None, "FileUnreadable"),
            "c.jpg": (b"c.jpg", "SideFileUnreadable"),
        }
        assert found["b.jpg"].message == f"it cannot be read: {error.strerror.lower()}"

    def test_many_files_of_which_none_can_be_read_are_a_failure_of_the_storage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = [f"{number}.jpg" for number in range(10)]
        for name in names:
            (tmp_path / name).write_bytes(b"A")
        refuse(monkeypatch, PermissionError(errno.EACCES, "Permission denied"), *names)
        with pytest.raises(PermissionError):
            read(tmp_path)

    def test_a_folder_that_is_empty_all_at_once_is_a_failure_of_the_storage(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="the folder is empty now"):
            list(read_files(fsspec.filesystem("file"), str(tmp_path), files("a.jpg")))

    def test_a_failure_of_the_storage_is_raised_and_no_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> bytes:
            raise OSError("connection reset")

        filesystem = fsspec.filesystem("file")
        monkeypatch.setattr(type(filesystem), "cat_file", fail)
        with pytest.raises(OSError, match="connection reset"):
            list(read_files(filesystem, str(tmp_path), files("a.jpg")))
