"""Which columns of a Parquet file are what: as they were asked for, by their names, by what they hold."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.sources import parquet_reader
from pipeline.sources.parquet_reader import check_columns, read_parquet
from pipeline.sources.sample import Sample
from pipeline.sources.shard import ColumnNames, Shard
from tests.fixtures.corpus import jpeg

PICTURES = [jpeg(number) for number in range(4)]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = {"_type": "ClassLabel", "names": ["airplane", "dog", "cat"]}


def structs(paths: Sequence[str | None], pictures: Sequence[bytes | None] = PICTURES) -> pa.Array:
    return pa.array([{"bytes": data, "path": path} for data, path in zip(pictures, paths, strict=False)], IMAGE)


BASE64 = base64.b64encode(PICTURES[0]).decode()
ONE = {"image": structs(["a"]), "n": [1], "x": [1.5]}


def content(columns: dict[str, Any], features: dict[str, Any] | None = None) -> bytes:
    """A Parquet file, with what Hugging Face's library says of its columns."""
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def read(file: bytes, **asked: str) -> list[Sample]:
    return list(read_parquet(io.BytesIO(file), "part.parquet", columns=ColumnNames(**asked)))


def check(folder: Path, *files: bytes, **asked: str) -> list[str]:
    shards = []
    for number, file in enumerate(files):
        path = folder / f"{number}.parquet"
        path.write_bytes(file)
        shards.append(Shard(str(number), str(path), "parquet"))
    return check_columns(shards, ColumnNames(**asked))


class TestImages:
    """The column of the image."""

    @pytest.mark.parametrize(
        ("columns", "features"),
        [
            ({"img": structs(["a", "b"])}, {"img": {"_type": "Image"}}),
            ({"img": structs(["a", "b"])}, None),
            ({"Image": structs(["a", "b"]), "Caption": ["x", "y"]}, None),
            ({"image_data": PICTURES[:2], "name": ["a", "b"]}, None),
            ({"content": PICTURES[:2], "path": ["file:/d/a.jpg", "file:/d/b.jpg"], "length": [1, 2]}, None),
            ({"id": pa.array([b"0" * 16, b"1" * 16], pa.binary(16)), "picture": PICTURES[:2]}, None),
            ({"embedding": [b"\0\1", b"\2\3"], "scan": pa.array(PICTURES[:2], pa.large_binary())}, None),
            ({"first": structs(["a", "b"], [b"?", b"?"]), "photo": structs(["a", "b"])}, {"photo": {"_type": "Image"}}),
        ],
        ids=["described", "by its type", "capitals", "by content", "Spark", "beside ids", "beside bytes", "preferred"],
    )
    def test_it_is_found(self, columns: dict[str, Any], features: dict[str, Any] | None) -> None:
        assert [sample.data for sample in read(content(columns, features))] == PICTURES[:2]

    def test_the_names_of_before_come_first(self) -> None:
        columns = {"img": structs(["a", "b"], PICTURES[2:]), "image": structs(["a", "b"])}
        assert [sample.data for sample in read(content(columns, {"img": {"_type": "Image"}}))] == PICTURES[:2]

    def test_one_that_is_asked_for_is_taken(self) -> None:
        columns = {"image": structs(["a", "b"]), "other": structs(["c", "d"], PICTURES[2:])}
        assert [(sample.key, sample.data) for sample in read(content(columns), image="other")] == [
            ("c", PICTURES[2]),
            ("d", PICTURES[3]),
        ]

    @pytest.mark.parametrize("name", ["images", "frames"])
    def test_each_image_of_a_list_is_a_sample(self, name: str) -> None:
        lists = pa.array(
            [structs([None, None]).to_pylist(), structs([None], PICTURES[2:]).to_pylist(), []], pa.list_(IMAGE)
        )
        samples = read(content({name: lists, "id": ["x", "y", "z"], "caption": ["two", "one", "none"]}))
        assert [(sample.key, sample.data, sample.caption) for sample in samples] == [
            ("x.0", PICTURES[0], "two"),
            ("x.1", PICTURES[1], "two"),
            ("y", PICTURES[2], "one"),
            ("z", None, None),
        ]

    def test_images_of_a_list_are_named_by_their_paths(self) -> None:
        lists = pa.array([structs(["a.jpg", "b.jpg"]).to_pylist()], pa.list_(IMAGE))
        assert [sample.key for sample in read(content({"images": lists}))] == ["a.jpg", "b.jpg"]


class TestSides:
    """Keys, captions and given labels."""

    @pytest.mark.parametrize(
        ("columns", "features", "expected"),
        [
            ({"label": [1, 2]}, {"label": CLASSES}, [["dog"], ["cat"]]),
            ({"label": [0, -1]}, {"label": CLASSES}, [["airplane"], None]),
            ({"label": [1, None]}, {"label": CLASSES}, [["dog"], None]),
            ({"fine": [1, 2]}, {"fine": CLASSES}, [["dog"], ["cat"]]),
            ({"labels": [[1], [0, 2]]}, {"labels": {"feature": CLASSES}}, [["dog"], ["airplane", "cat"]]),
            ({"labels": [[1], []]}, {"labels": [CLASSES]}, [["dog"], None]),
            ({"label": ["dog", None]}, None, [["dog"], None]),
            ({"Label": ["dog", "cat"]}, None, [["dog"], ["cat"]]),
            ({"label": [1, 2]}, None, [None, None]),
            (
                {"objects": [{"category": [1, 2, 1], "area": [1, 2, 3]}, {"category": [], "area": []}]},
                {"objects": {"category": {"feature": CLASSES, "_type": "List"}, "area": {"_type": "List"}}},
                [["dog", "cat"], []],
            ),
            (
                {"objects": [[{"category": 2}, {"category": 2}], None]},
                {"objects": {"feature": {"category": CLASSES}, "_type": "Sequence"}},
                [["cat"], None],
            ),
            ({"objects": [{"category": ["dog", "dog"]}, None]}, None, [["dog"], None]),
        ],
        ids=[
            "classes", "no class", "null", "by their description", "lists", "lists of old", "text", "capitals",
            "numbers", "objects", "list of objects", "objects with text",
        ],
    )  # fmt: skip
    def test_given_labels(
        self, columns: dict[str, Any], features: dict[str, Any] | None, expected: list[list[str] | None]
    ) -> None:
        found = [sample.truth for sample in read(content({"image": structs(["a", "b"]), **columns}, features))]
        assert [truth or None for truth in found] == [truth or None for truth in expected]

    def test_a_number_beyond_the_classes_costs_the_truth_alone(self) -> None:
        (sample,) = read(content({"image": structs(["a"]), "label": [7]}, {"label": CLASSES}))
        assert (sample.data, sample.truth, sample.error) == (PICTURES[0], None, "SideFileUnreadable")

    def test_columns_that_are_asked_for_are_taken(self) -> None:
        columns = {
            "image": structs(["a", "b"]),
            "id": [1, 2],
            "url": ["u/1", "u/2"],
            "caption": ["no", "no"],
            "alt": [["yes", "indeed"], ["yes"]],
            "label": [1, 2],
            "animal": [2, 1],
        }
        file = content(columns, {"label": CLASSES, "animal": CLASSES})
        found = read(file, key="url", caption="alt", label="animal")
        assert [(sample.key, sample.caption, sample.truth) for sample in found] == [
            ("u/1", "yes\nindeed", ["cat"]),
            ("u/2", "yes", ["dog"]),
        ]

    @pytest.mark.parametrize(
        "features", ["no json", "[]", '{"info": 5}', '{"info": {"features": {"label": {"names": 3}}}}']
    )
    def test_a_description_that_cannot_be_read_says_nothing(self, features: str) -> None:
        table = pa.table({"image": structs(["a"]), "label": [1]}).replace_schema_metadata({"huggingface": features})
        stream = io.BytesIO()
        pq.write_table(table, stream)
        assert [(sample.data, sample.truth) for sample in read(stream.getvalue())] == [(PICTURES[0], None)]


class TestCheck:
    """What is said before a job begins."""

    @pytest.mark.parametrize(
        ("columns", "asked", "message"),
        [
            ({"image": ["https://x.org/a.jpg"]}, {}, "the column image holds web addresses, .* --url_col image "),
            ({"URL": [None, "http://x.org/a"], "n": [1, 2]}, {}, "img2dataset --url_list .*has URL: string, n: int64"),
            ({"image": [BASE64]}, {}, "the column image holds base64 text"),
            ({"image": ["data:image/jpeg;base64," + BASE64]}, {}, "holds base64 text"),
            ({"file": ["a/b.jpg"]}, {}, r"the column file names files \(a/b.jpg\); label the folder of these files"),
            ({"image": structs(["a.jpg"], [None])}, {}, r"names files \(a.jpg\) and has no bytes"),
            ({"label": ["dog"], "n": [1]}, {}, "has no image column; expected .*it has label: string, n: int64"),
            (ONE, {"image": "img"}, r"has no column img \(--image-column\); it has image: struct"),
            (ONE, {"image": "n"}, r"the column n of .* is int64; expected images as bytes"),
            (ONE, {"key": "x"}, r"\(--key-column\) is double; expected text or whole numbers"),
            (ONE, {"caption": "n"}, r"\(--caption-column\) is int64; expected text or lists"),
            (ONE, {"label": "n"}, r"\(--label-column\) is int64; expected text, .*ClassLabel"),
        ],
    )
    def test_a_file_without_images_is_refused_with_its_columns(
        self, tmp_path: Path, columns: dict[str, Any], asked: dict[str, str], message: str
    ) -> None:
        with pytest.raises(SourceError, match=message):
            check(tmp_path, content(columns), **asked)

    def test_one_bad_file_among_others_is_the_readings_to_judge(self, tmp_path: Path) -> None:
        bad, good = content({"label": ["dog"]}), content({"image": structs(["a"])})
        assert check(tmp_path, bad, good, bad) == []

    @pytest.mark.parametrize("file", [b"", b"PAR1 damaged PAR1", content({"image": pa.array([], IMAGE)})])
    def test_a_damaged_or_empty_file_is_too(self, tmp_path: Path, file: bytes) -> None:
        assert check(tmp_path, file) == []

    def test_further_images_are_told(self, tmp_path: Path) -> None:
        (note,) = check(tmp_path, content({"image": structs(["a"]), "image_2": structs(["b"])}))
        assert note == "images of the column image are labelled; image_2 may hold images, too (--image-column, --run)"


class TestMemory:
    """Bytes bound what is read at once, not rows."""

    N_ROWS, ROW_BYTES = 48, 1 << 20

    def one_group(self, name: str) -> bytes:
        """One row group of images that compress to nothing, as a struct or as plain bytes."""
        plain = pa.array([bytes([row]) + bytes(self.ROW_BYTES - 1) for row in range(self.N_ROWS)], pa.large_binary())
        array = plain if name == "bytes" else pa.StructArray.from_arrays([plain], ["bytes"])
        stream = io.BytesIO()
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 1}
        pq.write_table(pa.table({name: array}), stream, data_page_size=1 << 16, **options)
        return stream.getvalue()

    def most_allocated(self, file: bytes) -> int:
        pool = pa.default_memory_pool()
        before, most = pool.bytes_allocated(), 0
        for number, sample in enumerate(read_parquet(io.BytesIO(file), "part.parquet")):
            assert sample.data is not None
            assert (sample.data[0], len(sample.data)) == (number, self.ROW_BYTES)
            most = max(most, pool.bytes_allocated() - before)
        return most

    @pytest.mark.parametrize("name", ["bytes", "image"])
    def test_no_more_is_held_than_some_rows_weigh(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        file = self.one_group(name)
        monkeypatch.setattr(parquet_reader, "_MAX_BYTES_AT_ONCE", 4 * self.ROW_BYTES)
        # What is decoded, and the pages that it comes from.
        assert self.most_allocated(file) < 16 * self.ROW_BYTES
        monkeypatch.setattr(parquet_reader, "_MAX_BYTES_AT_ONCE", 1000 * self.ROW_BYTES)
        assert self.most_allocated(file) > self.N_ROWS * self.ROW_BYTES / 2
