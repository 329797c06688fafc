"""Packing a folder of images into WebDataset shards."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import webdataset
from fsspec.implementations.memory import MemoryFile
from PIL import Image

from pipeline.annotations.annotation import CaptionsError
from pipeline.errors import StoreError
from pipeline.packing import pack as pack_module
from pipeline.packing.pack import PackError, pack_folder, sample_keys
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Source
from pipeline.sources.tar_reader import read_tar

COCO_CAPTIONS = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480},
        {"id": 2, "file_name": "b.png", "width": 320, "height": 240},
    ],
    "annotations": [
        {"id": 10, "image_id": 1, "caption": "A dog runs.\n"},
        {"id": 11, "image_id": 2, "caption": "A cake."},
        {"id": 12, "image_id": 1, "caption": "The dog."},
    ],
}
COCO_INSTANCES = {
    "images": COCO_CAPTIONS["images"],
    "categories": [{"id": 18, "name": "dog"}, {"id": 61, "name": "cake"}, {"id": 67, "name": "dining table"}],
    "annotations": [
        {"id": 1, "image_id": 2, "category_id": 67, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": 2, "category_id": 61},
        {"id": 3, "image_id": 2, "category_id": 61},
        {"id": 4, "image_id": 1, "category_id": 18},
    ],
}


def image_bytes(shade: int = 0, format: str = "JPEG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 100, 200)).save(content, format)
    return content.getvalue()


def write_images(folder: Path, *names: str) -> None:
    """An image of its own content under each name."""
    for shade, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(shade))


def read_back(out: Path | str) -> dict[str, dict[str, Any]]:
    """The samples of all shards by key, as webdataset reads them."""
    shards = sorted(str(path) for path in Path(out).glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    by_key = {sample["__key__"]: {k: v for k, v in sample.items() if not k.startswith("__")} for sample in samples}
    assert len(by_key) == len(samples)
    return by_key


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_images(folder, "a.jpg", "b.png")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def captions_file(tmp_path: Path, name: str, content: Any) -> str:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_images_come_back_with_the_bytes_they_had(photos: Path, out: Path) -> None:
    pack_folder(str(photos), str(out))
    expected = {"a": {"jpg": (photos / "a.jpg").read_bytes()}, "b": {"png": (photos / "b.png").read_bytes()}}
    assert read_back(out) == expected


def test_folders_below_are_packed_with_their_path_as_key(tmp_path: Path, out: Path) -> None:
    write_images(tmp_path / "in", "x.jpg", "sub.dir/deep/x.jpg")
    pack_folder(str(tmp_path / "in"), str(out))
    assert set(read_back(out)) == {"x", "sub.dir/deep/x"}


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "JPG", "Png"])
def test_every_image_format_is_packed(tmp_path: Path, out: Path, suffix: str) -> None:
    write_images(tmp_path / "in", f"x.{suffix}")
    pack_folder(str(tmp_path / "in"), str(out))
    assert list(read_back(out)["x"]) == [suffix.lower()]


def test_shards_hold_the_given_number_of_images_in_order_of_their_paths(tmp_path: Path, out: Path) -> None:
    write_images(tmp_path / "in", "e.jpg", "b.jpg", "a.jpg", "d.jpg", "c.jpg")
    pack_folder(str(tmp_path / "in"), str(out), shard_size=2)
    names = {}
    for path in out.iterdir():
        with tarfile.open(path) as archive:
            names[path.name] = archive.getnames()
    assert names == {"00000.tar": ["a.jpg", "b.jpg"], "00001.tar": ["c.jpg", "d.jpg"], "00002.tar": ["e.jpg"]}


def test_the_report_counts_what_was_written(tmp_path: Path, out: Path) -> None:
    write_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "in" / "b.txt").write_text("a caption")
    report = pack_folder(str(tmp_path / "in"), str(out), shard_size=2)
    assert (report.n_shards, report.n_samples, report.n_annotated) == (2, 3, 1)
    assert report.n_bytes == sum(path.stat().st_size for path in out.iterdir())


def test_the_same_input_gives_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    pack_folder(str(photos), str(tmp_path / "one"))
    os.utime(photos / "a.jpg", (0, 0))
    pack_folder(str(photos), str(tmp_path / "two"))
    assert (tmp_path / "one/00000.tar").read_bytes() == (tmp_path / "two/00000.tar").read_bytes()


def test_the_labelling_pipeline_reads_what_was_packed(photos: Path, out: Path, tmp_path: Path) -> None:
    files = [captions_file(tmp_path, "c.json", COCO_CAPTIONS), captions_file(tmp_path, "i.json", COCO_INSTANCES)]
    pack_folder(str(photos), str(out), captions=files)
    samples = list(read_tar((out / "00000.tar").open("rb")))
    found = [(sample.key, sample.caption, sample.truth, sample.error) for sample in samples]
    assert found == [("a", "A dog runs.\nThe dog.", ["dog"], None), ("b", "A cake.", ["cake", "dining table"], None)]


class TestKeys:
    """Keys that WebDataset reads as they were meant."""

    def test_a_dot_in_a_file_name_is_escaped(self, tmp_path: Path, out: Path) -> None:
        write_images(tmp_path / "in", "a.b.jpg", "a.c.jpg")
        pack_folder(str(tmp_path / "in"), str(out))
        assert set(read_back(out)) == {"a%2Eb", "a%2Ec"}

    def test_names_that_look_escaped_stay_apart(self, tmp_path: Path, out: Path) -> None:
        names = ["a.b.jpg", "a%2Eb.jpg", "a%252Eb.jpg", "x.jpg", "x.png", "x.JPG", "x.jpg.jpg", "x%jpg.jpg"]
        write_images(tmp_path / "in", *names)
        pack_folder(str(tmp_path / "in"), str(out))
        assert len(read_back(out)) == len(names)

    def test_images_that_differ_in_their_suffix_are_two_samples(self, tmp_path: Path, out: Path) -> None:
        write_images(tmp_path / "in", "x.jpg", "x.png")
        pack_folder(str(tmp_path / "in"), str(out))
        assert {key: list(sample) for key, sample in read_back(out).items()} == {"x%jpg": ["jpg"], "x%png": ["png"]}

    @pytest.mark.parametrize(
        "name",
        [
            "[1]*?.jpg",
            "naïve 日本.jpg",
            "__meta__/x.jpg",
            "__x__.jpg",
            "new\nline/a\nb.jpg",
            "d" * 120 + "/" + "n" * 200 + ".jpg",
        ],
        ids=["glob", "unicode", "skipped folder", "underscores", "newline", "long"],
    )
    def test_an_awkward_name_is_packed(self, tmp_path: Path, out: Path, name: str) -> None:
        write_images(tmp_path / "in", name, "plain.jpg")
        pack_folder(str(tmp_path / "in"), str(out))
        samples = read_back(out)
        assert len(samples) == 2
        assert image_bytes(0) in [sample["jpg"] for sample in samples.values()]

    def test_a_name_that_is_no_utf8_is_packed(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "in").mkdir()
        Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.jpg")).write_bytes(image_bytes())
        pack_folder(str(tmp_path / "in"), str(out))
        assert len(read_back(out)) == 1

    def test_keys_do_not_depend_on_the_order_of_names(self) -> None:
        assert sample_keys(["x.png", "y.jpg", "x.jpg"]) == ["x%png", "y", "x%jpg"]


class TestSideFiles:
    """Captions that lie beside the images."""

    def test_they_go_along_as_they_are(self, photos: Path, out: Path) -> None:
        (photos / "a.txt").write_bytes(b"two dogs\r\n")
        (photos / "a.json").write_bytes(b'{"labels": ["dog"] }')
        pack_folder(str(photos), str(out))
        sample = read_back(out)["a"]
        assert (sample["txt"], sample["json"]) == (b"two dogs\r\n", b'{"labels": ["dog"] }')

    def test_they_stay_behind_where_captions_are_given(self, photos: Path, out: Path, tmp_path: Path) -> None:
        (photos / "a.txt").write_text("beside")
        pack_folder(str(photos), str(out), captions=[captions_file(tmp_path, "c.json", {"b.png": "given"})])
        assert "txt" not in read_back(out)["a"]

    def test_a_text_without_an_image_is_left_out(self, photos: Path, out: Path) -> None:
        (photos / "readme.txt").write_text("about")
        pack_folder(str(photos), str(out))
        assert set(read_back(out)) == {"a", "b"}


class TestCaptions:
    """Captions from files that list them."""

    def pack(self, photos: Path, out: Path, *files: str) -> dict[str, dict[str, Any]]:
        pack_folder(str(photos), str(out), captions=files)
        return read_back(out)

    def test_coco_captions_become_lines(self, photos: Path, out: Path, tmp_path: Path) -> None:
        samples = self.pack(photos, out, captions_file(tmp_path, "c.json", COCO_CAPTIONS))
        assert samples["a"]["txt"] == b"A dog runs.\nThe dog."

    def test_coco_captions_come_with_the_size(self, photos: Path, out: Path, tmp_path: Path) -> None:
        samples = self.pack(photos, out, captions_file(tmp_path, "c.json", COCO_CAPTIONS))
        expected = {"captions": ["A dog runs.", "The dog."], "labels": [], "width": 640, "height": 480}
        assert json.loads(samples["a"]["json"]) == expected

    def test_coco_categories_become_distinct_sorted_labels(self, photos: Path, out: Path, tmp_path: Path) -> None:
        samples = self.pack(photos, out, captions_file(tmp_path, "i.json", COCO_INSTANCES))
        assert json.loads(samples["b"]["json"])["labels"] == ["cake", "dining table"]

    def test_several_files_are_put_together(self, photos: Path, out: Path, tmp_path: Path) -> None:
        files = [captions_file(tmp_path, "c.json", COCO_CAPTIONS), captions_file(tmp_path, "i.json", COCO_INSTANCES)]
        content = json.loads(self.pack(photos, out, *files)["a"]["json"])
        assert (content["captions"], content["labels"]) == (["A dog runs.", "The dog."], ["dog"])

    def test_an_image_that_coco_lists_without_objects_has_no_labels(
        self, photos: Path, out: Path, tmp_path: Path
    ) -> None:
        instances = COCO_INSTANCES | {"annotations": COCO_INSTANCES["annotations"][:1]}
        samples = self.pack(photos, out, captions_file(tmp_path, "i.json", instances))
        assert json.loads(samples["a"]["json"])["labels"] == []

    def test_a_mapping_gives_one_caption_or_a_list(self, photos: Path, out: Path, tmp_path: Path) -> None:
        samples = self.pack(photos, out, captions_file(tmp_path, "c.json", {"a.jpg": "one", "b.png": ["two", "drei"]}))
        assert (samples["a"]["txt"], samples["b"]["txt"]) == (b"one", b"two\ndrei")

    @pytest.mark.parametrize("file_column", ["file", "filename", "image", "path", " File "])
    @pytest.mark.parametrize("caption_column", ["caption", "text"])
    def test_a_csv_gives_captions(
        self, photos: Path, out: Path, tmp_path: Path, file_column: str, caption_column: str
    ) -> None:
        content = f'{file_column},{caption_column}\na.jpg,"one, two"\nb.png,three\na.jpg,four\n'
        samples = self.pack(photos, out, captions_file(tmp_path, "c.csv", content))
        assert (samples["a"]["txt"], samples["b"]["txt"]) == (b"one, two\nfour", b"three")

    def test_a_csv_gives_labels(self, photos: Path, out: Path, tmp_path: Path) -> None:
        content = "\ufeff,file,labels\n0,a.jpg,dog; dining table;dog;\n"
        sample = self.pack(photos, out, captions_file(tmp_path, "c.csv", content))["a"]
        assert json.loads(sample["json"]) == {"captions": [], "labels": ["dining table", "dog"]}

    def test_an_image_without_captions_is_packed_alone(self, photos: Path, out: Path, tmp_path: Path) -> None:
        samples = self.pack(photos, out, captions_file(tmp_path, "c.json", {"b.png": "given"}))
        assert list(samples["a"]) == ["jpg"]

    def test_images_without_captions_and_captions_without_images_are_counted(
        self, photos: Path, out: Path, tmp_path: Path
    ) -> None:
        captions = {"a.jpg": "one", "gone.jpg": "two", "nothing.jpg": []}
        report = pack_folder(str(photos), str(out), captions=[captions_file(tmp_path, "c.json", captions)])
        assert (report.n_annotated, report.unmatched) == (1, ["gone.jpg"])

    def test_an_annotation_of_an_image_that_is_not_listed_is_counted(
        self, photos: Path, out: Path, tmp_path: Path
    ) -> None:
        captions = COCO_CAPTIONS | {"images": COCO_CAPTIONS["images"][:1]}
        path = captions_file(tmp_path, "c.json", captions)
        assert pack_folder(str(photos), str(out), captions=[path]).unmatched == [f"image 2 of {path}"]

    @pytest.mark.parametrize(
        "name", ["val/a.jpg", "./val/a.jpg", "a.jpg", "coco/val/a.jpg", "/data/val/a.jpg", "val\\a.jpg"]
    )
    def test_a_name_may_be_shorter_or_longer_than_the_path(self, tmp_path: Path, out: Path, name: str) -> None:
        write_images(tmp_path / "in", "val/a.jpg", "b.jpg")
        samples = self.pack(tmp_path / "in", out, captions_file(tmp_path, "c.json", {name: "found"}))
        assert samples["val/a"]["txt"] == b"found"

    def test_the_longest_file_that_a_name_ends_with_is_meant(self, tmp_path: Path, out: Path) -> None:
        write_images(tmp_path / "in", "val/a.jpg", "a.jpg")
        samples = self.pack(tmp_path / "in", out, captions_file(tmp_path, "c.json", {"coco/val/a.jpg": "found"}))
        assert list(samples["a"]) == ["jpg"]

    def test_a_name_in_another_folder_is_another_file(self, tmp_path: Path, out: Path) -> None:
        write_images(tmp_path / "in", "val/a.jpg", "b.jpg")
        captions = captions_file(tmp_path, "c.json", {"train/a.jpg": "x", "b.jpg": "y"})
        assert pack_folder(str(tmp_path / "in"), str(out), captions=[captions]).unmatched == ["train/a.jpg"]

    def test_a_name_that_may_be_two_files_is_refused(self, tmp_path: Path, out: Path) -> None:
        write_images(tmp_path / "in", "val/a.jpg", "train/a.jpg")
        with pytest.raises(CaptionsError, match=r"a\.jpg in the captions may be train/a\.jpg or val/a\.jpg"):
            self.pack(tmp_path / "in", out, captions_file(tmp_path, "c.json", {"a.jpg": "which"}))

    def test_a_file_that_may_have_two_names_is_refused(self, photos: Path, out: Path, tmp_path: Path) -> None:
        captions = captions_file(tmp_path, "c.json", {"val/a.jpg": "one", "train/a.jpg": "other"})
        with pytest.raises(CaptionsError, match=r"val/a\.jpg and train/a\.jpg in the captions may both be a\.jpg"):
            self.pack(photos, out, captions)

    def test_captions_of_other_images_are_refused(self, photos: Path, out: Path, tmp_path: Path) -> None:
        with pytest.raises(PackError, match=r"for any of the 2 images .* e\.g\. other\.jpg"):
            self.pack(photos, out, captions_file(tmp_path, "c.json", {"other.jpg": "x"}))
        assert not out.exists()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("c.json", "{", "no valid JSON"),
            ("c.json", "[]", "holds an empty list"),
            ("c.json", {"a.jpg": 3}, "'a.jpg' has a int"),
            ("c.json", {"images": [{"id": 1}], "annotations": []}, "expected file_name"),
            ("c.json", {"images": [3], "annotations": []}, "images holds a int"),
            ("c.json", COCO_CAPTIONS | {"annotations": [{"image_id": 1}]}, "expected caption or category_id"),
            ("c.json", COCO_INSTANCES | {"categories": []}, "names category 67"),
            ("c.csv", "name,caption\na.jpg,x\n", "has the columns name, caption"),
            ("c.csv", "file\na.jpg\n", "expected one of file"),
            ("c.csv", "", "of an empty file"),
            ("c.csv", "file,caption\na.jpg,one, two\n", "line 2 has more cells"),
            ("c.csv", "file,caption\n,one\n", "line 2: the column file is empty"),
            ("c.xml", "<x/>", "neither .json, .jsonl, .csv nor .tsv"),
        ],
    )
    def test_a_file_that_is_not_understood_is_refused(
        self, photos: Path, out: Path, tmp_path: Path, name: str, content: Any, message: str
    ) -> None:
        with pytest.raises(CaptionsError, match=message):
            self.pack(photos, out, captions_file(tmp_path, name, content))

    def test_captions_that_are_no_text_are_refused(self, photos: Path, out: Path, tmp_path: Path) -> None:
        (tmp_path / "c.csv").write_bytes(b"file,caption\na.jpg,caf\xe9\n")
        with pytest.raises(CaptionsError, match="not UTF-8"):
            self.pack(photos, out, str(tmp_path / "c.csv"))

    def test_a_captions_file_that_is_not_there_is_named(self, photos: Path, out: Path) -> None:
        with pytest.raises(StoreError, match=r"cannot read the captions .*absent\.json"):
            self.pack(photos, out, str(photos / "absent.json"))


class TestRefusals:
    """What is not packed."""

    def test_a_folder_without_images(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "notes.txt").write_text("none")
        with pytest.raises(
            PackError, match=r"holds 1 files, none of them a shard or an image \(1 \.txt\); expected .*jpg"
        ):
            pack_folder(str(tmp_path), str(out))

    def test_a_folder_that_is_not_there(self, tmp_path: Path, out: Path) -> None:
        with pytest.raises(PackError, match="does not exist"):
            pack_folder(str(tmp_path / "absent"), str(out))

    def test_a_file_in_place_of_a_folder(self, photos: Path, out: Path) -> None:
        with pytest.raises(PackError, match="is a file; expected a folder"):
            pack_folder(str(photos / "a.jpg"), str(out))

    def test_a_place_that_holds_something(self, photos: Path, out: Path) -> None:
        out.mkdir()
        (out / "precious").write_text("kept")
        with pytest.raises(PackError, match="exists and is not empty"):
            pack_folder(str(photos), str(out))
        assert [path.name for path in out.iterdir()] == ["precious"]

    def test_shards_of_no_images(self, photos: Path, out: Path) -> None:
        with pytest.raises(PackError, match="the shard size is 0; expected 1 or more"):
            pack_folder(str(photos), str(out), shard_size=0)


def lose(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """A file vanishes once the folder was listed."""

    def find(folder: str) -> Source:
        source = find_source(folder)
        path.unlink()
        return source

    monkeypatch.setattr(pack_module, "find_source", find)


def test_a_shard_that_cannot_be_finished_leaves_no_trace(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    lose(monkeypatch, tmp_path / "in" / "c.jpg")
    with pytest.raises(StoreError, match="cannot pack"):
        pack_folder(str(tmp_path / "in"), str(out), shard_size=2)
    assert [path.name for path in out.iterdir()] == ["00000.tar"]


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's object store in memory, empty before and after."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_folder_captions_and_shards_may_lie_on_an_object_store(
    memory: fsspec.AbstractFileSystem, photos: Path, out: Path, tmp_path: Path
) -> None:
    captions = captions_file(tmp_path, "c.json", COCO_CAPTIONS)
    memory.put(str(photos), "/bucket/photos", recursive=True)
    memory.put_file(captions, "/bucket/c.json")
    pack_folder("memory://bucket/photos", "memory://bucket/shards", captions=["memory://bucket/c.json"])
    pack_folder(str(photos), str(out), captions=[captions])
    assert memory.cat_file("/bucket/shards/00000.tar") == (out / "00000.tar").read_bytes()


def test_no_object_key_leads_upwards_in_a_shard(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    # In an object store two dots are a name like any other.
    for key in ("/in/a.jpg", "/in/../../x.jpg", "/in/b/../../../x.jpg"):
        memory.store[key] = MemoryFile(memory, key, image_bytes())
    pack_folder("memory://in", str(tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "00000.tar") as archive:
        assert archive.getnames() == ["a.jpg"]


def test_a_prefix_that_holds_objects_is_refused(memory: fsspec.AbstractFileSystem, photos: Path) -> None:
    memory.pipe_file("/bucket/shards/00000.tar", b"kept")
    with pytest.raises(PackError, match="exists and is not empty"):
        pack_folder(str(photos), "memory://bucket/shards")


def test_a_shard_that_cannot_be_finished_is_not_uploaded(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", "a.jpg", "b.jpg")
    lose(monkeypatch, tmp_path / "in" / "b.jpg")
    with pytest.raises(StoreError, match="cannot pack"):
        pack_folder(str(tmp_path / "in"), "memory://bucket/shards")
    assert memory.find("/bucket") == []


def test_what_labelling_takes_for_an_image_is_packed_under_its_usual_suffix(tmp_path: Path, out: Path) -> None:
    write_images(tmp_path / "in", "scan", "web.jpg_large", "old.jfif")
    (tmp_path / "in" / "scan.mp4").write_bytes(b"film")
    report = pack_folder(str(tmp_path / "in"), str(out))
    with tarfile.open(out / "00000.tar") as archive:
        assert archive.getnames() == ["old.jpg", "scan.jpg", "web.jpg"]
    assert report.skipped == {".mp4": 1}
