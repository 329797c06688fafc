"""Reading WebDataset tars: how members become samples, and how damage becomes rows."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import sys
import tarfile

import pyarrow as pa
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from pipeline.sources import tar_reader
from pipeline.sources.sample import Sample
from pipeline.sources.tar_reader import read_tar, split_name
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import Members, raw_tar, tar_bytes, tar_header

BLOCK = 512
Row = tuple[str, bytes | None, str | None]


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return compressed


def lz4(data: bytes) -> bytes:
    compressed: bytes = pa.Codec("lz4").compress(data, asbytes=True)
    return compressed


def read(archive: bytes) -> list[Sample]:
    return list(read_tar(io.BytesIO(archive)))


def rows(members: Members | bytes) -> list[Row]:
    """Key, image and error of every row."""
    archive = members if isinstance(members, bytes) else tar_bytes(members)
    return [(sample.key, sample.data, sample.error) for sample in read(archive)]


@settings(max_examples=500)
@given(st.text(alphabet="ab./", min_size=1, max_size=12))
def test_names_are_split_as_webdataset_splits_them(name: str) -> None:
    key, suffix = base_plus_ext(name)
    is_hidden = name.rsplit("/", 1)[-1].startswith(".")
    assert split_name(name) == ((key, suffix) if key and suffix and not is_hidden else ("", ""))


def test_what_reads_and_drives_a_job_loads_no_torch() -> None:
    # Every reading worker would pay seconds and 200 MB for it.
    imports = "import sys, jobs.cli, jobs.console.live_line, pipeline.labelling.job, pipeline.dataflow.actor_pool"
    subprocess.run([sys.executable, "-c", f"{imports}; assert 'torch' not in sys.modules"], check=True, cwd=ROOT)


class TestGrouping:
    """Which members are one sample."""

    def test_members_that_share_a_key_are_one_sample(self) -> None:
        (sample,) = read(tar_bytes([("a.jpg", b"A"), ("a.txt", b"a cat"), ("a.json", b'{"labels": ["cat"]}')]))
        assert (sample.key, sample.data, sample.caption, sample.truth) == ("a", b"A", "a cat", ["cat"])

    def test_side_files_in_front_of_the_image_belong_to_it(self) -> None:
        (sample,) = read(tar_bytes([("a.json", b'{"labels": ["cat"]}'), ("a.txt", b"a cat"), ("a.jpg", b"A")]))
        assert (sample.data, sample.caption, sample.truth) == (b"A", "a cat", ["cat"])

    def test_each_image_of_a_key_is_a_sample_and_the_others_have_keys_of_their_own(self) -> None:
        members = [("a.b.jpg", b"A"), ("a.jpg", b"B"), ("a.c.png", b"C"), ("x.1/22.05.png", b"D")]
        assert rows(members) == [("a.b", b"A", None), ("a", b"B", None), ("a.c", b"C", None), ("x.1/22.05", b"D", None)]

    def test_file_names_with_dots_keep_them(self) -> None:
        names = ["IMG_2019.05.03", "IMG_2019.06.11", "cup 1.5m", "www.example.com_a"]
        members = [
            member
            for name in names
            for member in ((f"{name}.JPG", name.encode()), (f"{name}.txt", b"of " + name.encode()))
        ]
        found = [(sample.key, sample.data, sample.caption) for sample in read(tar_bytes(members))]
        assert found == [(name, name.encode(), f"of {name}") for name in names]

    @pytest.mark.parametrize(
        ("members", "captions"),
        [
            (
                [("1.left.jpg", b"L"), ("1.right.jpg", b"R"), ("1.txt", b"a pair")],
                {"1.left": "a pair", "1.right": "a pair"},
            ),
            ([("1.image.jpg", b"I"), ("1.caption.txt", b"a thing")], {"1.image": "a thing"}),
            (
                [("d.0.jpg", b"0"), ("d.1.jpg", b"1"), ("d.1.txt", b"own"), ("d.txt", b"all")],
                {"d.0": "all", "d.1": "own"},
            ),
            ([("d.0.jpg", b"0"), ("d.1.jpg", b"1"), ("d.1.txt", b"own")], {"d.0": None, "d.1": "own"}),
            ([("d.jpg", b"0"), ("d.prompt.txt", b"no caption")], {"d": None}),
        ],
    )
    def test_an_image_has_its_own_side_file_else_that_of_its_key(
        self, members: Members, captions: dict[str, str | None]
    ) -> None:
        assert {sample.key: sample.caption for sample in read(tar_bytes(members))} == captions

    def test_a_file_without_a_suffix_is_a_sample_if_it_begins_like_an_image(self) -> None:
        jpeg = b"\xff\xd8\xff\xe0" + bytes(20)
        assert rows([("x/0001", jpeg), ("x/0002", bytes(20)), ("x/0003", b"\xff\xd8\xff")]) == [("x/0001", jpeg, None)]

    def test_a_dot_in_a_directory_does_not_end_a_key(self) -> None:
        assert rows([("v1.0/a.jpg", b"A"), ("v1.0/b.jpg", b"B")]) == [("v1.0/a", b"A", None), ("v1.0/b", b"B", None)]

    def test_a_leading_directory_is_part_of_the_key(self) -> None:
        assert rows([("./a.jpg", b"A"), ("./x/a.jpg", b"B")]) == [("./a", b"A", None), ("./x/a", b"B", None)]

    @pytest.mark.parametrize("suffix", ["JPG", "Jpeg", "PNG", "webp", "GIF", "bmp", "TIF", "tiff"])
    def test_the_case_of_a_suffix_does_not_matter(self, suffix: str) -> None:
        (sample,) = read(tar_bytes([(f"a.{suffix}", b"A"), ("a.TXT", b"a cat")]))
        assert (sample.data, sample.caption) == (b"A", "a cat")

    def test_other_files_of_a_sample_are_passed_over(self) -> None:
        assert rows([("a.cls", b"3"), ("a.jpg", b"A"), ("a.seg.npy", b"mask")]) == [("a", b"A", None)]

    @pytest.mark.parametrize("name", ["._a.jpg", "x/._a.jpg", "x/.jpg", ".DS_Store", "x/.hidden.jpg"])
    def test_a_hidden_file_is_no_sample(self, name: str) -> None:
        assert rows([(name, b"?"), ("x/a.jpg", b"A")]) == [("x/a", b"A", None)]

    def test_a_hidden_file_between_the_members_of_a_sample_does_not_split_it(self) -> None:
        members = [("x/a.jpg", b"A"), ("x/._a.txt", b"?"), ("x/a.txt", b"a cat")]
        assert [(sample.key, sample.caption) for sample in read(tar_bytes(members))] == [("x/a", "a cat")]

    def test_a_file_without_a_suffix_is_no_sample(self) -> None:
        assert rows([("README", b"?"), ("a.jpg", b"A")]) == [("a", b"A", None)]

    def test_a_directory_is_no_sample(self) -> None:
        directory = (tar_header("x.d", tarfile.DIRTYPE), b"")
        image = (tar_header("x.d/a.jpg", size=1), b"A")
        assert rows(raw_tar(directory, image)) == [("x.d/a", b"A", None)]

    def test_a_device_is_no_sample(self) -> None:
        assert rows(raw_tar((tar_header("a.jpg", tarfile.FIFOTYPE), b""), (tar_header("b.jpg", size=1), b"B"))) == [
            ("b", b"B", None)
        ]

    @settings(max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["", "x/", "x.y/", "x/y.z/"]),
                st.text("ab1_- é", min_size=1, max_size=4),
                st.sampled_from([("jpg",), ("txt", "jpg"), ("jpg", "json", "cls"), ("png", "txt"), ("JPG", "b.c")]),
            ),
            min_size=1,
            max_size=6,
            unique_by=lambda sample: sample[:2],
        )
    )
    def test_samples_are_those_of_webdataset(
        self, tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[str, str, tuple[str, ...]]]
    ) -> None:
        members = [
            (f"{folder}{base}.{suffix}", b"{}" if suffix == "json" else f"{folder}{base}".encode())
            for folder, base, suffixes in samples
            for suffix in suffixes
        ]
        path = tmp_path_factory.mktemp("oracle") / "0.tar"
        path.write_bytes(tar_bytes(members))
        theirs = [
            (sample["__key__"], next(sample[name] for name in ("jpg", "png") if name in sample))
            for sample in webdataset.WebDataset(str(path), shardshuffle=False)
        ]
        assert [row[:2] for row in rows(path.read_bytes())] == theirs


class TestFaults:
    """Samples that are not as they should be."""

    def test_a_second_image_of_a_key_is_called_by_its_whole_name(self) -> None:
        assert rows([("a.jpg", b"A"), ("a.png", b"B")]) == [("a", b"A", None), ("a.png", b"B", None)]

    def test_a_name_that_comes_again_for_another_image_gets_a_number(self) -> None:
        members = [("a.jpg", b"A"), ("b.jpg", b"B"), *(("a.jpg", data) for data in (b"C", b"D", b"E"))]
        assert [key for key, _, _ in rows(members)] == ["a", "b", "a.jpg", "a.jpg~2", "a.jpg~3"]

    def test_the_same_image_under_the_same_key_is_one_rejected_row(self) -> None:
        assert rows([("a.jpg", b"A"), ("b.jpg", b"B"), ("a.jpg", b"A")]) == [
            ("a", b"A", None),
            ("b", b"B", None),
            ("a", None, "DuplicateKey"),
        ]

    def test_an_archive_within_an_archive_is_one_rejected_row_that_says_so(self) -> None:
        (sample,) = read(tar_bytes([("inner.tar", tar_bytes([("a.jpg", b"A")]))]))
        assert sample.message == "the sample holds no image, only inner.tar; archives within an archive are not read"

    def test_a_side_file_that_comes_too_late_is_one_rejected_row(self) -> None:
        assert rows([("a.jpg", b"A"), ("b.jpg", b"B"), ("a.txt", b"a cat")]) == [
            ("a", b"A", None),
            ("b", b"B", None),
            ("a", None, "SplitSample"),
        ]

    def test_an_image_that_comes_too_late_is_labelled_and_its_side_file_one_rejected_row(self) -> None:
        assert rows([("a.txt", b"a cat"), ("b.jpg", b"B"), ("a.jpg", b"A")]) == [
            ("a", None, "NoImage"),
            ("b", b"B", None),
            ("a", b"A", None),
        ]

    def test_a_sample_without_an_image_is_one_rejected_row_that_names_its_files(self) -> None:
        (sample,) = read(tar_bytes([("a.txt", b"a cat"), ("a.cls", b"3")]))
        assert (sample.key, sample.error) == ("a", "NoImage")
        assert "a.txt, a.cls" in (sample.message or "")

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    def test_a_link_member_is_one_rejected_row(self, kind: bytes) -> None:
        link = (tar_header("b.jpg", kind, target="a.jpg"), b"")
        assert rows(raw_tar((tar_header("a.jpg", size=1), b"A"), link)) == [
            ("a", b"A", None),
            ("b", None, "LinkMember"),
        ]

    def test_a_linked_side_file_is_told_on_the_labelled_row(self) -> None:
        link = (tar_header("a.txt", tarfile.SYMTYPE, target="b.txt"), b"")
        (sample,) = read(raw_tar((tar_header("a.jpg", size=1), b"A"), link))
        assert (sample.data, sample.error) == (b"A", "SideFileUnreadable")
        assert "a.txt is a link" in (sample.message or "")

    def test_an_image_over_the_limit_is_one_rejected_row_that_names_the_setting(self) -> None:
        members = [("a.jpg", bytes(11)), ("a.txt", b"a cat"), ("b.jpg", bytes(10))]
        found = list(read_tar(io.BytesIO(tar_bytes(members)), 10))
        assert [(sample.key, sample.error) for sample in found] == [("a", "MemberTooLarge"), ("b", None)]
        assert found[0].message == "a.jpg has 11 bytes; the limit is 10 (setting max_sample_bytes)"

    def test_a_side_file_over_the_limit_is_told_on_the_labelled_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar_reader, "MAX_SIDE_FILE_BYTES", 10)
        (sample,) = read(tar_bytes([("a.jpg", b"A"), ("a.txt", bytes(11))]))
        assert (sample.data, sample.caption, sample.error) == (b"A", None, "SideFileUnreadable")
        assert "11 bytes; the limit is 10" in (sample.message or "")

    @pytest.mark.parametrize(
        ("name", "content"), [("a.json", b"{broken"), ("a.json", b'{"labels": [1]}'), ("a.txt", b"\xff")]
    )
    def test_an_unreadable_side_file_does_not_cost_the_image(self, name: str, content: bytes) -> None:
        assert rows([("a.jpg", b"A"), (name, content)]) == [("a", b"A", "SideFileUnreadable")]

    def test_half_a_surrogate_pair_in_a_caption_is_replaced(self) -> None:
        (sample,) = read(tar_bytes([("a.jpg", b"A"), ("a.json", b'{"caption": "x\\ud83d", "labels": ["\\udc00"]}')]))
        assert (sample.caption, sample.truth, sample.error) == ("x\ufffd", ["\ufffd"], None)

    def test_a_byte_order_mark_is_no_part_of_a_caption(self) -> None:
        (sample,) = read(tar_bytes([("a.jpg", b"A"), ("a.txt", "\ufeffa cat".encode())]))
        assert sample.caption == "a cat"


class TestFormats:
    """Archives that are made in different ways."""

    @pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    @pytest.mark.parametrize("name", ["d" * 150 + "/" + "n" * 120, "größe/ö", "ab cd\nef"])
    def test_long_and_foreign_names_are_keys(self, tar_format: int, name: str) -> None:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=tar_format) as archive:
            archive.addfile(tar_header(f"{name}.jpg", size=1), io.BytesIO(b"A"))
        assert rows(content.getvalue()) == [(name, b"A", None)]

    def test_a_name_that_is_no_utf_8_becomes_a_valid_key(self) -> None:
        name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
        (row,) = rows(raw_tar((tar_header(name, size=1), b"A")))
        assert row == ("caf\\xe9", b"A", None)

    @pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd, lz4])
    def test_a_compressed_archive_is_read_whatever_its_name(self, compress) -> None:  # type: ignore[no-untyped-def]
        assert rows(compress(tar_bytes([("a.jpg", b"A"), ("b.jpg", b"B")]))) == [("a", b"A", None), ("b", b"B", None)]

    @pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd, lz4])
    def test_an_archive_compressed_in_parts_is_read_to_its_end(self, compress) -> None:  # type: ignore[no-untyped-def]
        archive = tar_bytes([("a.jpg", b"A" * 700), ("b.jpg", b"B" * 700)])
        parts = compress(archive[:1000]) + compress(archive[1000:])
        assert rows(parts) == [("a", b"A" * 700, None), ("b", b"B" * 700, None)]

    def test_concatenated_archives_are_read_to_their_end(self) -> None:
        archives = tar_bytes([("a.jpg", b"A")]) + tar_bytes([("b.jpg", b"B")]) + bytes(512)
        assert rows(archives) == [("a", b"A", None), ("b", b"B", None)]

    def test_the_archive_is_read_from_front_to_back(self) -> None:
        class Pipe(io.RawIOBase):
            """A stream that cannot seek, and gives little at a time."""

            content = io.BytesIO(tar_bytes([("a.jpg", b"A" * 5000), ("b.jpg", b"B" * 5000)]))

            def read(self, size: int = -1) -> bytes:
                return self.content.read(min(size, 700))

        assert [sample.key for sample in read_tar(Pipe())] == ["a", "b"]


class TestDamage:
    """Archives that cannot be read through."""

    SAMPLES = 5
    CONTENT = [
        (f"{number}.{suffix}", bytes([65 + number]) * size)
        for number in range(SAMPLES)
        for suffix, size in (("jpg", 700 + 300 * number), ("txt", 20), ("cls", 3))
    ]
    ARCHIVE = tar_bytes(CONTENT)

    @classmethod
    def offsets(cls) -> dict[str, tuple[int, int]]:
        """Where each member's header begins and its data ends, by the rules of the format."""
        places, offset = {}, 0
        for name, data in cls.CONTENT:
            places[name] = (offset, offset + BLOCK + len(data))
            offset += BLOCK + -(-len(data) // BLOCK) * BLOCK
        return places

    @pytest.mark.parametrize("shift", [-1, 0, 1, 100])
    def test_wherever_an_archive_is_cut_all_samples_in_front_of_the_cut_are_read(self, shift: int) -> None:
        places = self.offsets()
        for block in range(1, len(self.ARCHIVE) // BLOCK):
            cut = block * BLOCK + shift
            found = read(self.ARCHIVE[:cut])
            whole = [f"{number}" for number in range(self.SAMPLES) if places[f"{number}.jpg"][1] <= cut]
            assert [sample.key for sample in found if sample.data] == whole, cut
            described = [f"{number}" for number in range(self.SAMPLES) if places[f"{number}.txt"][1] <= cut]
            assert [sample.key for sample in found if sample.caption] == described, cut
            faults = [sample for sample in found if not sample.data]
            assert len(faults) <= 1, cut
            assert all(sample.key == "" and sample.message for sample in faults), cut
            # The last member is two blocks; one block of zeros behind it marks the end.
            is_cut = cut < places[f"{self.SAMPLES - 1}.cls"][0] + 3 * BLOCK
            assert bool(faults) == is_cut, cut

    def test_an_archive_without_an_end_marker_is_reported(self) -> None:
        _, end = self.offsets()["4.cls"]
        found = read(self.ARCHIVE[: -(-end // BLOCK) * BLOCK])
        assert [sample.key for sample in found] == [*map(str, range(self.SAMPLES)), ""]
        assert "without an end marker" in (found[-1].message or "")

    def test_a_damaged_header_costs_no_other_sample(self) -> None:
        generator = random.Random(0)
        for name, (start, _) in self.offsets().items():
            damaged = bytearray(self.ARCHIVE)
            place = start + generator.randrange(BLOCK - 12)
            # More than one byte, since tarfile takes a checksum in either of two forms.
            damaged[place : place + 12] = bytes(255 - byte for byte in damaged[place : place + 12])
            found = read(bytes(damaged))
            lost = {name.split(".")[0]} if name.endswith("jpg") else set()
            assert {sample.key for sample in found if sample.data} == set(map(str, range(self.SAMPLES))) - lost, name
            assert [sample.key for sample in found if not sample.data] == [""], name

    def test_data_behind_a_header_full_of_zeros_is_reported_and_read_over(self) -> None:
        start, _ = self.offsets()["2.jpg"]
        archive = self.ARCHIVE[:start] + bytes(BLOCK) + self.ARCHIVE[start + BLOCK :]
        assert [(key, error) for key, _, error in rows(archive)] == [
            ("0", None),
            ("1", None),
            ("", "ArchiveDamaged"),
            ("3", None),
            ("4", None),
        ]

    def test_garbage_behind_the_end_marker_is_reported(self) -> None:
        found = rows(tar_bytes([("a.jpg", b"A")]) + b"\x01garbage" * 200)
        assert [(key, error) for key, _, error in found] == [("a", None), ("", "ArchiveDamaged")]

    @settings(max_examples=150)
    @given(st.data())
    def test_damage_anywhere_never_raises_and_keeps_images_apart(self, data: st.DataObject) -> None:
        archive = bytearray(self.ARCHIVE)
        for place, byte in data.draw(
            st.lists(
                st.tuples(st.integers(0, len(archive) - 1), st.sampled_from([0, 1, 48, 128, 255])),
                min_size=1,
                max_size=30,
            )
        ):
            archive[place] = byte
        found = read(bytes(archive))
        with_image = [sample.key for sample in found if sample.data is not None]
        assert len(with_image) == len(set(with_image))
        assert all(sample.error and sample.message for sample in found if sample.data is None)

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.77, 0.99])
    def test_a_cut_in_a_compressed_archive_loses_only_what_lies_behind_it(self, share: float) -> None:
        images = [random.Random(number).randbytes(3000) for number in range(20)]
        whole = gzip.compress(tar_bytes((f"{number:02}.jpg", image) for number, image in enumerate(images)))
        found = rows(whole[: int(len(whole) * share)])
        assert found[-1][:2] == ("", None)
        assert [image for _, image, _ in found[:-1]] == images[: len(found) - 1]
        # Random bytes do not compress: the images lie evenly in the file.
        assert len(found) - 1 >= int(20 * share) - 1

    @pytest.mark.parametrize(
        "content", [b"", b"<html>404 Not Found</html>", b"\xde\xad\xbe\xef" * 1000, b"\x1f\x8b\x08"]
    )
    def test_a_file_that_is_no_archive_is_one_rejected_row(self, content: bytes) -> None:
        assert rows(content) == [("", None, "ArchiveUnreadable")]

    @pytest.mark.parametrize("archive", [tar_bytes([]), tar_bytes([("README", b"?")]), bytes(10240)])
    def test_an_archive_without_samples_is_one_rejected_row(self, archive: bytes) -> None:
        assert rows(archive) == [("", None, "EmptyShard")]

    @pytest.mark.parametrize("size", [1 << 62, -BLOCK])
    def test_a_header_that_claims_an_impossible_size_is_read_over(self, size: int) -> None:
        forged = tar_header("a.jpg", size=size).tobuf(tarfile.GNU_FORMAT)
        found = rows(forged + tar_bytes([("b.jpg", b"B")]))
        assert [(key, error) for key, _, error in found] == [("", "ArchiveDamaged"), ("b", None)]

    def test_a_header_that_claims_more_than_there_is_does_not_keep_the_reader_at_the_end(self) -> None:
        class Counting(io.BytesIO):
            n_reads = 0

            def read(self, size: int | None = -1) -> bytes:
                self.n_reads += 1
                return super().read(size)

        stream = Counting(tar_header("a.jpg", size=10 << 30).tobuf(tarfile.GNU_FORMAT) + bytes(5000))
        assert [sample.error for sample in read_tar(stream)] == ["MemberTooLarge", "ArchiveDamaged"]
        assert stream.n_reads < 200

    def test_a_header_that_claims_a_name_of_gigabytes_is_read_over(self) -> None:
        forged = tar_header("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=8 << 30).tobuf(tarfile.GNU_FORMAT)
        found = rows(forged + tar_bytes([("b.jpg", b"B")]))
        assert [(key, error) for key, _, error in found] == [("", "ArchiveDamaged"), ("b", None)]

    def test_headers_nested_without_end_are_one_rejected_row(self) -> None:
        nested = tar_header("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1).tobuf(tarfile.GNU_FORMAT) + bytes(BLOCK)
        assert rows(nested * 2000) == [("", None, "ArchiveUnreadable")]


def test_a_message_that_names_hostile_files_is_short_and_cannot_steer_a_terminal() -> None:
    members = [(f"a.{number}\x1b[31m\0{'x' * 5000}", b"?") for number in range(6)]
    with io.BytesIO() as content:
        with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in members:
                info = tar_header("a", size=len(data))
                info.pax_headers = {"path": name}
                archive.addfile(info, io.BytesIO(data))
        (sample,) = read(content.getvalue())
    assert sample.message is not None
    assert sample.message.isprintable()
    assert "a.0\\x1b[31m\\x00xxx" in sample.message
    assert len(sample.message) <= 1000


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, zstd])
def test_a_failure_of_the_storage_is_raised_and_no_row(compress) -> None:  # type: ignore[no-untyped-def]
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError("connection reset")
            return super().read(min(size or -1, 2048))

    stream = Failing(compress(tar_bytes([("a.jpg", random.Random(0).randbytes(9000))])))
    with pytest.raises(OSError, match="connection reset"):
        list(read_tar(stream))


def test_a_large_archive_keeps_no_members_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    add = tar_reader.Grouping.add

    def counting(self, member):  # type: ignore[no-untyped-def]
        kept.append(len(member.archive.members))
        return add(self, member)

    monkeypatch.setattr(tar_reader.Grouping, "add", counting)
    read(tar_bytes((f"{number}.jpg", b"A") for number in range(300)))
    assert len(kept) == 300
    assert max(kept) <= 1


class TestMessages:
    """What is told of the places where nothing could be read."""

    START = tar_bytes([("a.jpg", b"A")])[: 2 * BLOCK]
    GARBAGE = b"\x01garbage" * (BLOCK // 8)

    def messages(self, archive: bytes) -> list[str]:
        return [sample.message or "" for sample in read(archive) if not sample.data]

    @pytest.mark.parametrize("n_blocks", [1, 2, 5])
    def test_a_gap_is_told_from_its_first_block_to_the_next_member(self, n_blocks: int) -> None:
        (message,) = self.messages(self.START + self.GARBAGE * n_blocks + tar_bytes([("b.jpg", b"B")]))
        assert f"from byte {2 * BLOCK} to byte {(2 + n_blocks) * BLOCK} the archive holds no" in message
        assert message.endswith("the last sample in front of it is 'a'")

    def test_each_of_two_gaps_is_told_with_its_own_place(self) -> None:
        between = tar_bytes([("b.jpg", b"B")])[: 2 * BLOCK]
        archive = self.START + self.GARBAGE * 2 + between + self.GARBAGE + tar_bytes([("c.jpg", b"C")])
        found = self.messages(archive)
        assert [message.split(" the archive")[0] for message in found] == [
            f"from byte {2 * BLOCK} to byte {4 * BLOCK}",
            f"from byte {6 * BLOCK} to byte {7 * BLOCK}",
        ]

    def test_a_gap_that_goes_on_to_the_end_is_told_once(self) -> None:
        (message,) = self.messages(self.START + self.GARBAGE * 3)
        assert f"from byte {2 * BLOCK} to its end the archive holds no" in message

    def test_garbage_behind_an_end_marker_is_told_once_although_no_marker_follows(self) -> None:
        (message,) = self.messages(self.START + bytes(2 * BLOCK) + self.GARBAGE)
        assert f"from byte {4 * BLOCK} to its end the archive holds no" in message

    def test_an_archive_that_ends_without_a_marker_is_told_with_where_it_stops(self) -> None:
        (message,) = self.messages(self.START)
        assert message.startswith(
            f"the archive cannot be read on: it stops at byte {2 * BLOCK} without an end marker and may be cut"
        )

    def test_an_empty_file_is_told_to_be_empty_and_not_cut(self) -> None:
        assert self.messages(b"") == ["not a readable tar archive: empty file"]


class TestFirstBytes:
    """By which the compression is known."""

    @pytest.mark.parametrize("container", [lzma.FORMAT_XZ, lzma.FORMAT_ALONE])
    def test_both_containers_of_lzma_are_read(self, container: int) -> None:
        assert rows(lzma.compress(tar_bytes([("a.jpg", b"A")]), format=container)) == [("a", b"A", None)]

    @pytest.mark.parametrize("level", range(1, 10))
    def test_every_level_of_bzip2_and_gzip_is_read(self, level: int) -> None:
        archive = tar_bytes([("a.jpg", b"A")])
        assert rows(bz2.compress(archive, level)) == rows(gzip.compress(archive, level)) == [("a", b"A", None)]

    @pytest.mark.parametrize("name", ["BZh9", "BZh91AY", "]x", "\ufffd7zXZ"])
    def test_a_name_that_begins_as_a_compressed_file_does_is_a_name(self, name: str) -> None:
        assert rows([(f"{name}.jpg", b"A")]) == [(name, b"A", None)]
