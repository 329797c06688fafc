"""Reading Parquet files with image bytes: which columns are taken, and how damage becomes rows."""

from __future__ import annotations

import io
import random
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import parquet_reader
from pipeline.sources.parquet_reader import read_parquet
from pipeline.sources.sample import Sample

IMAGES = [b"A", b"B", b"C"]
IMAGE_COLUMNS = ["bytes", "image", "image_bytes", "jpg", "jpeg", "png", "webp"]
KEY_COLUMNS = ["key", "__key__", "image_id", "id", "path", "file_name", "filename"]


def parquet_bytes(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table(table) if isinstance(table, dict) else table, content, **options)
    return content.getvalue()


def read(table: pa.Table | dict[str, Any] | bytes, **options: Any) -> list[Sample]:
    content = table if isinstance(table, bytes) else parquet_bytes(table, **options)
    return list(read_parquet(io.BytesIO(content), "part.parquet"))


def rows(table: pa.Table | dict[str, Any] | bytes) -> list[tuple[str, bytes | None, str | None]]:
    return [(sample.key, sample.data, sample.error) for sample in read(table)]


class TestColumns:
    """Which column is what."""

    @pytest.mark.parametrize("name", IMAGE_COLUMNS)
    def test_images_are_found_under_their_usual_names(self, name: str) -> None:
        assert [sample.data for sample in read({"other": [b"?"] * 3, name: IMAGES})] == IMAGES

    def test_the_struct_of_hugging_face_holds_image_and_key(self) -> None:
        struct = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(IMAGES)]
        assert rows({"image": struct}) == [("0.jpg", b"A", None), ("1.jpg", b"B", None), ("2.jpg", b"C", None)]

    @pytest.mark.parametrize(
        "data_type",
        [pa.large_binary(), pa.binary_view(), pa.binary(1), pa.dictionary(pa.int32(), pa.binary())],
        ids=str,
    )
    def test_images_may_have_any_binary_type(self, data_type: pa.DataType) -> None:
        binary = pa.array(IMAGES, pa.binary())
        column = binary.dictionary_encode() if pa.types.is_dictionary(data_type) else binary.cast(data_type)
        assert [sample.data for sample in read({"bytes": column})] == IMAGES

    @pytest.mark.parametrize(
        "data_type", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
    )
    def test_keys_and_captions_may_have_any_text_type(self, data_type: pa.DataType) -> None:
        text = pa.array(["x", "y", "z"])
        column = text.dictionary_encode() if pa.types.is_dictionary(data_type) else text.cast(data_type)
        found = read({"bytes": IMAGES, "key": column, "caption": column})
        assert [(sample.key, sample.caption) for sample in found] == [("x", "x"), ("y", "y"), ("z", "z")]

    @pytest.mark.parametrize(
        "data_type",
        [
            pa.list_(pa.string()),
            pa.large_list(pa.large_string()),
            pa.list_(pa.string(), 2),
            pa.list_view(pa.string()),
        ],
        ids=str,
    )
    def test_captions_and_labels_may_have_any_list_type(self, data_type: pa.DataType) -> None:
        column = pa.array([["x", "y"]] * 3, data_type)
        found = read({"bytes": IMAGES, "captions": column, "labels": column})
        assert [(sample.caption, sample.truth) for sample in found] == [("x\ny", ["x", "y"])] * 3

    @pytest.mark.parametrize("name", ["caption", "captions", "text", "txt"])
    def test_a_single_caption_is_taken_as_it_is(self, name: str) -> None:
        assert [sample.caption for sample in read({"bytes": IMAGES, name: ["a", None, ""]})] == ["a", None, ""]

    def test_a_single_label_is_a_list_of_one(self) -> None:
        assert [sample.truth for sample in read({"bytes": IMAGES, "labels": ["cat", "dog", None]})] == [
            ["cat"],
            ["dog"],
            None,
        ]

    def test_numbered_classes_are_not_taken_for_labels(self) -> None:
        assert [sample.truth for sample in read({"bytes": IMAGES, "labels": [1, 2, 3]})] == [None] * 3

    @pytest.mark.parametrize(("ids", "keys"), [([7, 8, 9], ["7", "8", "9"]), (["x", "y", "z"], ["x", "y", "z"])])
    def test_keys_are_texts_or_whole_numbers(self, ids: list[Any], keys: list[str]) -> None:
        assert [sample.key for sample in read({"bytes": IMAGES, "image_id": ids})] == keys

    def test_a_row_without_a_name_is_named_by_its_place(self) -> None:
        assert [sample.key for sample in read({"bytes": IMAGES, "key": ["x", None, ""]})] == [
            "x",
            "00000001",
            "00000002",
        ]

    def test_places_count_through_row_groups(self) -> None:
        keys = [sample.key for sample in read({"bytes": [b"A"] * 150}, row_group_size=70)]
        assert keys == [f"{row:08d}" for row in range(150)]

    def test_a_column_whose_name_is_there_twice_is_not_guessed_at(self) -> None:
        table = pa.Table.from_arrays(
            [pa.array(IMAGES), pa.array(["a"] * 3), pa.array(["b"] * 3)], ["bytes", *["text"] * 2]
        )
        assert [sample.caption for sample in read(table)] == [None] * 3

    @pytest.mark.parametrize(
        "table",
        [{"url": ["a"]}, {"image": ["a.jpg"]}, {"bytes": [1]}, {"image": [{"path": "a.jpg"}]}],
        ids=["none", "text", "number", "struct"],
    )
    def test_a_file_without_image_bytes_is_one_rejected_row_that_names_its_columns(self, table: dict[str, Any]) -> None:
        (sample,) = read(table)
        assert (sample.key, sample.error) == ("", "ParquetUnreadable")
        assert f"it has {next(iter(table))}: " in (sample.message or "")


class TestFaults:
    """Rows that are not as they should be."""

    def test_a_null_image_is_one_rejected_row(self) -> None:
        assert rows({"key": ["x", "y"], "bytes": [None, b"B"]}) == [("x", None, "NoImage"), ("y", b"B", None)]

    def test_a_struct_that_only_names_a_file_is_one_rejected_row(self) -> None:
        struct = [{"bytes": None, "path": "x.jpg"}, {"bytes": b"B", "path": None}, None]
        assert rows({"image": struct}) == [
            ("x.jpg", None, "NoImage"),
            ("00000001", b"B", None),
            ("00000002", None, "NoImage"),
        ]

    def test_different_images_of_one_key_are_samples_of_their_own(self) -> None:
        assert rows({"key": ["x", "y", "x", "x~2", "x"], "bytes": [*IMAGES, b"D", b"E"]}) == [
            ("x", b"A", None),
            ("y", b"B", None),
            ("x~2", b"C", None),
            ("x~2~2", b"D", None),
            ("x~3", b"E", None),
        ]

    def test_the_same_image_under_the_same_key_is_one_rejected_row(self) -> None:
        assert rows({"key": ["x", "x", "x", "x"], "bytes": [b"A", b"B", b"A", b"B"]}) == [
            ("x", b"A", None),
            ("x~2", b"B", None),
            ("x", None, "DuplicateKey"),
            ("x", None, "DuplicateKey"),
        ]

    def test_a_key_whose_first_row_has_no_image_is_labelled_at_its_second(self) -> None:
        assert rows({"key": ["x", "x"], "bytes": [None, b"B"]}) == [("x", None, "NoImage"), ("x", b"B", None)]

    def test_an_image_over_the_limit_is_one_rejected_row_that_names_the_setting(self) -> None:
        found = list(read_parquet(io.BytesIO(parquet_bytes({"bytes": [bytes(11), bytes(10)]})), "part.parquet", 10))
        assert [sample.error for sample in found] == ["MemberTooLarge", None]
        assert found[0].message == "row 0 has 11 bytes; the limit is 10 (setting max_sample_bytes)"

    def test_a_null_in_a_list_of_labels_does_not_cost_the_image(self) -> None:
        assert rows({"bytes": [b"A"], "labels": [["cat", None]]}) == [("00000000", b"A", "SideFileUnreadable")]

    @pytest.mark.parametrize("is_list", [False, True])
    def test_a_caption_that_is_no_utf_8_does_not_cost_the_image(self, is_list: bool) -> None:
        caption = invalid_text()
        column = pa.ListArray.from_arrays([0, 1, 2], caption) if is_list else caption
        found = read({"bytes": [b"A", b"B"], "caption": column})
        assert [(sample.data, sample.caption, sample.error) for sample in found] == [
            (b"A", None, "SideFileUnreadable"),
            (b"B", "tea", None),
        ]

    def test_a_key_that_is_no_utf_8_becomes_a_valid_one(self) -> None:
        assert [sample.key for sample in read({"bytes": [b"A", b"B"], "key": invalid_text()})] == ["caf\\xe9", "tea"]


def invalid_text() -> pa.Array:
    """A text column whose first value is no UTF-8, as writers that do not look make it."""
    return pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 4, 7], pa.int32()).buffers()[1], pa.py_buffer(b"caf\xe9tea")]
    )


class TestDamage:
    """Files that cannot be read through."""

    IMAGES = [random.Random(number).randbytes(2000) for number in range(40)]
    CONTENT = parquet_bytes({"bytes": IMAGES}, row_group_size=10, compression="snappy", use_dictionary=False)

    def damaged(self, group: int) -> bytes:
        """The file with the data of one row group overwritten."""
        column = pq.ParquetFile(io.BytesIO(self.CONTENT)).metadata.row_group(group).column(0)
        content = bytearray(self.CONTENT)
        start = column.data_page_offset
        content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
        return bytes(content)

    @pytest.mark.parametrize("group", range(4))
    def test_a_damaged_row_group_is_one_rejected_row_and_the_others_are_read(self, group: int) -> None:
        found = read(self.damaged(group))
        intact = [row for row in range(40) if row // 10 != group]
        assert [(sample.key, sample.data) for sample in found if sample.data] == [
            (f"{row:08d}", self.IMAGES[row]) for row in intact
        ]
        (lost,) = [sample for sample in found if not sample.data]
        assert (lost.key, lost.error) == ("", "ParquetDamaged")
        assert f"rows {10 * group} to {10 * group + 9} " in (lost.message or "")

    @pytest.mark.parametrize("cut", [0, 3, 100, len(CONTENT) // 2, len(CONTENT) - 1])
    def test_a_cut_file_has_lost_its_footer_and_is_one_rejected_row(self, cut: int) -> None:
        assert rows(self.CONTENT[:cut]) == [("", None, "ParquetUnreadable")]

    def test_a_file_without_rows_is_one_rejected_row(self) -> None:
        assert rows({"bytes": pa.array([], pa.binary())}) == [("", None, "EmptyShard")]

    @settings(max_examples=100)
    @given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=20))
    def test_damage_anywhere_never_raises(self, changes: list[tuple[int, int]]) -> None:
        content = bytearray(self.CONTENT)
        for place, byte in changes:
            content[place] = byte
        assert all(sample.error and sample.message for sample in read(bytes(content)) if sample.data is None)

    @settings(max_examples=100)
    @given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 255)), min_size=1, max_size=20))
    def test_damage_of_the_footer_never_raises(self, changes: list[tuple[int, int]]) -> None:
        content = bytearray(self.CONTENT)
        for place, byte in changes:
            content[-place] = byte
        assert all(sample.error and sample.message for sample in read(bytes(content)) if sample.data is None)

    def test_a_large_row_group_is_read_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet_reader, "_READ_BYTES", 4096)
        sizes: list[int] = []

        class Counting(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                content = super().read(size)
                sizes.append(len(content))
                return content

        content = parquet_bytes({"bytes": self.IMAGES}, use_dictionary=False, data_page_size=2000, write_batch_size=1)
        assert [sample.data for sample in read_parquet(Counting(content), "part.parquet")] == self.IMAGES
        assert max(sizes[2:]) < len(content) // 4

    @pytest.mark.parametrize("n_reads", range(5))
    def test_a_failure_of_the_storage_is_raised_and_no_row(self, n_reads: int) -> None:
        class Failing(io.BytesIO):
            left = n_reads

            def read(self, size: int | None = -1) -> bytes:
                self.left -= 1
                if self.left < 0:
                    raise OSError("connection reset")
                return super().read(size)

        with pytest.raises(OSError, match="connection reset"):
            list(read_parquet(Failing(self.CONTENT), "part.parquet"))


class TestChoiceOfColumns:
    """Which of several columns is taken."""

    @pytest.mark.parametrize(("first", "second"), list(pairwise(IMAGE_COLUMNS)))
    def test_of_two_columns_of_images_the_one_listed_first_is_taken(self, first: str, second: str) -> None:
        assert [sample.data for sample in read({second: [b"?"] * 3, first: IMAGES})] == IMAGES

    @pytest.mark.parametrize("name", KEY_COLUMNS)
    def test_keys_are_found_under_their_usual_names(self, name: str) -> None:
        assert [sample.key for sample in read({"other": ["?"] * 3, name: ["x", "y", "z"], "bytes": IMAGES})] == [
            "x",
            "y",
            "z",
        ]

    @pytest.mark.parametrize(("first", "second"), list(pairwise(KEY_COLUMNS)))
    def test_of_two_columns_of_keys_the_one_listed_first_is_taken(self, first: str, second: str) -> None:
        found = read({second: ["a", "b", "c"], first: ["x", "y", "z"], "bytes": IMAGES})
        assert [sample.key for sample in found] == ["x", "y", "z"]

    @pytest.mark.parametrize(("first", "second"), list(pairwise(["caption", "captions", "text", "txt"])))
    def test_of_two_columns_of_captions_the_one_listed_first_is_taken(self, first: str, second: str) -> None:
        found = read({second: ["a", "b", "c"], first: ["x", "y", "z"], "bytes": IMAGES})
        assert [sample.caption for sample in found] == ["x", "y", "z"]

    def test_a_column_of_another_type_is_passed_over_for_the_next_name(self) -> None:
        found = read({"bytes": [1, 2, 3], "image": IMAGES, "key": [0.5] * 3, "id": ["x", "y", "z"]})
        assert [(sample.key, sample.data) for sample in found] == [("x", b"A"), ("y", b"B"), ("z", b"C")]

    def test_a_column_of_keys_goes_before_the_paths_of_images(self) -> None:
        struct = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(IMAGES)]
        found = read({"image": struct, "key": ["x", None, ""]})
        assert [sample.key for sample in found] == ["x", "00000001", "00000002"]

    def test_the_number_0_is_a_key(self) -> None:
        assert [sample.key for sample in read({"bytes": IMAGES[:2], "id": [0, -1]})] == ["0", "-1"]


class TestTextThatIsNoUtf8:
    """Wherever it stands, it costs no image."""

    @pytest.mark.parametrize("data_type", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
    def test_a_path_of_an_image_becomes_a_valid_key(self, data_type: pa.DataType) -> None:
        images = pa.StructArray.from_arrays(
            [pa.array([b"A", b"B"]), invalid_text().cast(pa.binary()).cast(data_type, safe=False)], ["bytes", "path"]
        )
        assert [(sample.key, sample.data) for sample in read({"image": images})] == [("caf\\xe9", b"A"), ("tea", b"B")]

    def test_a_key_of_a_dictionary_becomes_a_valid_one(self) -> None:
        keys = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), invalid_text())
        assert [sample.key for sample in read({"bytes": [b"A", b"B"], "key": keys})] == ["tea", "caf\\xe9"]

    @pytest.mark.parametrize("name", ["captions", "labels"])
    @pytest.mark.parametrize(
        "data_type", [pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.string(), 1)], ids=str
    )
    def test_a_list_with_it_is_told_on_its_row_alone(self, name: str, data_type: pa.DataType) -> None:
        lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), invalid_text()).cast(data_type)
        found = read({"bytes": [b"A", b"B"], name: lists})
        assert [(sample.data, sample.error) for sample in found] == [(b"A", "SideFileUnreadable"), (b"B", None)]
        assert (found[1].caption if name == "captions" else found[1].truth) == (
            "tea" if name == "captions" else ["tea"]
        )


class TestForgedHeaders:
    """Files whose footer says another number of rows than there are."""

    CONTENT = TestDamage.CONTENT

    def forged(self, before: bytes, after: bytes) -> bytes:
        """The file with a number of its footer changed, in Thrift's compact form: field and type, then zigzag."""
        size = int.from_bytes(self.CONTENT[-8:-4], "little")
        footer = self.CONTENT[-8 - size : -8]
        assert footer.count(before) == 1
        return self.CONTENT[: -8 - size] + footer.replace(before, after) + self.CONTENT[-8:]

    @pytest.mark.parametrize("n_rows", [39, 42])
    def test_another_number_than_that_of_the_row_groups_is_told_behind_the_rows(self, n_rows: int) -> None:
        # The third field, an i64, in front of the fourth, a list of four structs.
        found = read(self.forged(b"\x16" + bytes([2 * 40]) + b"\x19\x4c", b"\x16" + bytes([2 * n_rows]) + b"\x19\x4c"))
        assert [sample.data for sample in found[:-1]] == TestDamage.IMAGES
        assert (found[-1].key, found[-1].error) == ("", "ParquetDamaged")
        assert found[-1].message == f"its row groups hold 40 rows, and its header says {n_rows}"
