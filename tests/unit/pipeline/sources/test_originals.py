"""Originals of labelled images, read from the source once more."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SourceError
from pipeline.sources.originals import Original, clean_file_name, original_address, read_originals
from pipeline.storage.files import open_filesystem
from pipeline.store.store import Store
from schemas import RunRecord, content_hash
from tests.fixtures.corpus import encode, jpeg, sample_members, tar_bytes, write_parquet, write_tars
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import run_record

RUN = "run-1"


def labelled(tmp_path: Path, *given: str) -> tuple[RunRecord, list[dict[str, Any]]]:
    """The record of a run of a source, and the rows of its labelled images in order."""
    from pipeline.catalog.connection import run_query
    from pipeline.catalog.views import open_store

    store = Store(str(tmp_path / "store"))
    label_source(store, RUN, given)
    record = store.run(RUN).read_record()
    assert record is not None
    query = """SELECT * FROM images WHERE status = 'labelled' ORDER BY shard, "index" """
    result = run_query(open_store(store.url), query)
    columns = [column[0] for column in result.description]
    return record, [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


def problems(originals: list[Original]) -> list[str | None]:
    return [original.problem for original in originals]


def assert_all_there(originals: list[Original], images: list[dict[str, Any]]) -> None:
    assert [original.image for original in originals] == images
    assert [original.problem for original in originals] == [None] * len(images)
    hashes = [content_hash(original.data) for original in originals if original.data is not None]
    assert hashes == [image["content_hash"] for image in images]


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    write_tars(tmp_path / "shards", 2, 4)
    return tmp_path / "shards"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number, name in enumerate(["a.jpg", "b [1].jpeg", "below/größe ☃.jpg", "below/c.PNG"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    return folder


class TestSources:
    """Every form of source."""

    def test_originals_of_tars(self, tmp_path: Path, tars: Path) -> None:
        record, images = labelled(tmp_path, str(tars))
        assert len(images) == 8
        assert_all_there(list(read_originals(record, images)), images)

    def test_originals_of_a_glob_and_of_a_compressed_tar(self, tmp_path: Path, tars: Path) -> None:
        import gzip

        (tars / "more").mkdir()
        (tars / "more" / "x.tar.gz").write_bytes(gzip.compress(tar_bytes(sample_members("z", 9))))
        record, images = labelled(tmp_path, f"{tars}/*/*.tar.gz")
        assert_all_there(list(read_originals(record, images)), images)

    @pytest.mark.parametrize("as_struct", [True, False])
    def test_originals_of_parquet(self, tmp_path: Path, as_struct: bool) -> None:
        write_parquet(tmp_path / "data" / "0.parquet", 20, as_struct)
        record, images = labelled(tmp_path, str(tmp_path / "data"))
        assert_all_there(list(read_originals(record, images)), images)

    def test_originals_of_a_folder(self, tmp_path: Path, folder: Path) -> None:
        record, images = labelled(tmp_path, str(folder))
        assert len(images) == 4
        assert_all_there(list(read_originals(record, images)), images)

    def test_originals_of_a_list_whose_names_have_no_root(self, tmp_path: Path, tars: Path) -> None:
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(tars.iterdir())))
        record, images = labelled(tmp_path, f"@{tmp_path / 'list.txt'}")
        assert record.source_root == ""
        assert_all_there(list(read_originals(record, images)), images)

    @pytest.mark.parametrize("form", ["tars", "folder"])
    def test_originals_on_an_object_store(self, tmp_path: Path, s3: str, tars: Path, folder: Path, form: str) -> None:
        local = {"tars": tars, "folder": folder}[form]
        filesystem, root = open_filesystem(f"{s3}/originals-{form}")
        for path in local.rglob("*.*"):
            filesystem.pipe_file(f"{root}/{path.relative_to(local)}", path.read_bytes())
        record, images = labelled(tmp_path, f"{s3}/originals-{form}")
        assert_all_there(list(read_originals(record, images)), images)

    def test_originals_of_shards_whose_suffix_is_in_capitals(self, tmp_path: Path, tars: Path) -> None:
        (tars / "00000.tar").rename(tars / "a.TAR")
        write_parquet(tars / "b.PARQUET", 5, as_struct=False)
        record, images = labelled(tmp_path, str(tars))
        assert {image["shard"] for image in images} == {"00001", "a", "b"}
        assert_all_there(list(read_originals(record, images)), images)

    def test_originals_of_names_that_are_no_utf_8(self, tmp_path: Path, folder: Path) -> None:
        (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(9))
        (folder / "as-it-is\\xe9.jpg").write_bytes(jpeg(10))
        record, images = labelled(tmp_path, str(folder))
        assert len(images) == 6
        assert_all_there(list(read_originals(record, images)), images)

    def test_originals_of_files_that_the_shell_named(self, tmp_path: Path, folder: Path) -> None:
        (folder / "scan").write_bytes(jpeg(9))
        record, images = labelled(tmp_path, *(str(folder / name) for name in ("a.jpg", "scan", "below")))
        assert [image["key"] for image in images] == ["a.jpg", "below/c.PNG", "below/größe ☃.jpg", "scan"]
        assert_all_there(list(read_originals(record, images)), images)

    def test_originals_of_a_store_that_counted_fewer_samples(self, tmp_path: Path) -> None:
        (tmp_path / "shards").mkdir()
        members = [("0.left.jpg", jpeg(0)), ("0.right.jpg", jpeg(1)), ("a.jpg", jpeg(2)), ("b.jpg", jpeg(3))]
        (tmp_path / "shards" / "0.tar").write_bytes(tar_bytes(members))
        record, images = labelled(tmp_path, str(tmp_path / "shards"))
        # Samples of compound names were one rejected row before.
        former = [{**image, "index": image["index"] - 1} for image in images[2:]]
        assert_all_there(list(read_originals(record, former)), former)
        lost = {**former[0], "key": "gone", "content_hash": "0"}
        assert problems(list(read_originals(record, [lost, former[1]]))) == [
            "the original has changed since it was labelled",
            None,
        ]

    def test_only_what_is_wanted_is_given(self, tmp_path: Path, tars: Path) -> None:
        record, images = labelled(tmp_path, str(tars))
        wanted = [images[1], images[3], images[6]]
        assert_all_there(list(read_originals(record, wanted)), wanted)

    def test_images_behind_a_rejected_sample_keep_their_place(self, tmp_path: Path) -> None:
        members = [("a.txt", b"no image"), *sample_members("b", 1), ("c.jpg", jpeg(2))]
        (tmp_path / "shards").mkdir()
        (tmp_path / "shards" / "0.tar").write_bytes(tar_bytes(members))
        record, images = labelled(tmp_path, str(tmp_path / "shards"))
        assert [image["index"] for image in images] == [1, 2]
        assert_all_there(list(read_originals(record, images)), images)

    def test_an_image_that_was_labelled_under_a_higher_limit_is_there(
        self, tmp_path: Path, tars: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, images = labelled(tmp_path, str(tars))
        monkeypatch.setattr("pipeline.sources.originals.MAX_SAMPLE_BYTES", 10)
        measured = [{**image, "n_bytes": 1 << 20} for image in images]
        assert_all_there(list(read_originals(record, measured)), measured)

    def test_a_shard_is_read_no_further_than_the_last_wanted_image(self, tmp_path: Path, tars: Path) -> None:
        record, images = labelled(tmp_path, str(tars))
        shard = tars / "00000.tar"
        content = shard.read_bytes()
        # Behind the first sample's image lies nothing but damage.
        end = content.index(b"000000.json")
        shard.write_bytes(content[:end] + b"\xff" * (len(content) - end))
        (original,) = read_originals(record, images[:1])
        assert original.problem is None


class TestGone:
    """What is not there any more, or is something else."""

    def test_a_shard_that_is_gone_is_a_problem_of_its_images_alone(self, tmp_path: Path, tars: Path) -> None:
        record, images = labelled(tmp_path, str(tars))
        (tars / "00000.tar").unlink()
        originals = list(read_originals(record, images))
        assert problems(originals) == ["the original is gone"] * 4 + [None] * 4

    def test_a_shard_that_ends_early(self, tmp_path: Path, tars: Path) -> None:
        record, images = labelled(tmp_path, str(tars))
        (tars / "00000.tar").write_bytes(tar_bytes(sample_members("000000", 0)))
        originals = list(read_originals(record, images[:4]))
        assert problems(originals) == [None] + ["the original is gone"] * 3

    def test_an_image_that_has_changed(self, tmp_path: Path, tars: Path, folder: Path) -> None:
        record, images = labelled(tmp_path, str(tars))
        (tars / "00001.tar").write_bytes(tar_bytes(member for n in range(4) for member in sample_members(str(n), n)))
        changed = "the original has changed since it was labelled"
        assert problems(list(read_originals(record, images[4:]))) == [changed] * 4

    def test_files_of_a_folder(self, tmp_path: Path, folder: Path) -> None:
        record, images = labelled(tmp_path, str(folder))
        (folder / "a.jpg").unlink()
        (folder / "b [1].jpeg").write_bytes(jpeg(77))
        found = {original.image["key"]: original.problem for original in read_originals(record, images)}
        assert found == {
            "a.jpg": "the original is gone",
            "b [1].jpeg": "the original has changed since it was labelled",
            "below/größe ☃.jpg": None,
            "below/c.PNG": None,
        }

    def test_a_folder_where_a_file_was(self, tmp_path: Path, folder: Path) -> None:
        record, images = labelled(tmp_path, str(folder))
        (folder / "a.jpg").unlink()
        (folder / "a.jpg").mkdir()
        assert problems(list(read_originals(record, images))).count("the original is gone") == 1

    def test_a_list_that_is_gone_is_an_error(self, tmp_path: Path, tars: Path) -> None:
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(tars.iterdir())))
        record, images = labelled(tmp_path, f"@{tmp_path / 'list.txt'}")
        (tmp_path / "list.txt").unlink()
        with pytest.raises(SourceError, match=r"the originals cannot be found: the list .* does not exist"):
            list(read_originals(record, images))

    def test_an_original_behind_a_signed_link_is_not_said_to_be_gone(
        self, tmp_path: Path, tars: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, images = labelled(tmp_path, str(tars))
        signed = replace(record, source="https://host/shards/00000.tar?***", source_root=f"{tmp_path}/elsewhere")
        (problem, *_) = problems(list(read_originals(signed, images)))
        assert problem == "the original needs the signature or login of its link, which the store does not keep"


class TestHostile:
    """Keys and names of shards that want something else."""

    def image(self, shard: str, key: str) -> dict[str, Any]:
        return {"image_id": 1, "shard": shard, "index": 0, "key": key, "content_hash": None}

    @pytest.mark.parametrize(
        "key", ["../secret.jpg", "below/../../secret.jpg", ".hidden.jpg", "secret", "a\0.jpg", "x" * 5000 + ".jpg", ""]
    )
    def test_a_key_leads_to_nothing_outside_the_folder(self, tmp_path: Path, folder: Path, key: str) -> None:
        (tmp_path / "secret.jpg").write_bytes(jpeg(1))
        (folder / ".hidden.jpg").write_bytes(jpeg(1))
        (folder / "secret").write_bytes(jpeg(1))
        record = run_record(RUN, source_root=str(folder), folder_buckets=1)
        (original,) = read_originals(record, [self.image("bucket-0000-of-0001", key)])
        assert original.data is None

    def test_an_absolute_key_is_one_below_the_folder(self, tmp_path: Path, folder: Path) -> None:
        (tmp_path / "secret.jpg").write_bytes(jpeg(1))
        record = run_record(RUN, source_root=str(folder), folder_buckets=1)
        (original,) = read_originals(record, [self.image("b", str(tmp_path / "secret.jpg"))])
        assert original.problem == "the original is gone"

    @pytest.mark.parametrize(
        "shard", ["../other/0", "x/../../other/0", "\0", "y" * 5000, "::file://{other}/0", "{other}/0"]
    )
    def test_a_shard_leads_to_nothing_outside_the_source(self, tmp_path: Path, tars: Path, shard: str) -> None:
        write_tars(tmp_path / "other", 1, 1)
        (tmp_path / "other" / "00000.tar").rename(tmp_path / "other" / "0.tar")
        record = run_record(RUN, source_root=str(tars))
        (original,) = read_originals(record, [self.image(shard.format(other=tmp_path / "other"), "000000")])
        assert original.problem == "the original is gone"


class TestNames:
    """Names for copies."""

    @pytest.mark.parametrize(
        ("key", "stem"),
        [
            ("000000000790", "000000000790-"),
            ("a/b/c.d.jpg", "c-d-"),
            ("../../etc/passwd", "passwd-"),
            ("/", ""),
            ("..", ""),
            ("", ""),
            ("-rf *", "rf-"),
            ("größe ☃\n.PNG", "gr-e-"),
            ("x" * 5000, "x" * 60 + "-"),
        ],
    )
    def test_a_name_is_short_plain_and_without_folders(self, key: str, stem: str) -> None:
        name = clean_file_name({"key": key, "image_id": -1}, jpeg(0))
        assert name == f"{stem}ffffffffffffffff.jpg"
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*\.jpg", name)

    def test_images_of_one_key_have_names_of_their_own(self) -> None:
        names = {clean_file_name({"key": key, "image_id": n}, jpeg(0)).lower() for n, key in enumerate(["A", "a", "ä"])}
        assert len(names) == 3

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
    def test_the_suffix_is_that_of_the_content(self, kind: str) -> None:
        from PIL import Image

        name = clean_file_name({"key": "x.jpg", "image_id": 0}, encode(Image.new("RGB", (4, 4)), kind))
        assert name.rsplit(".")[1] == {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())

    def test_what_is_no_image_has_no_suffix_of_one(self) -> None:
        assert clean_file_name({"key": "x.jpg", "image_id": 0}, b"<svg>") == "x-0000000000000000.bin"

    def test_a_place_is_a_path_or_a_shard_and_a_key(self) -> None:
        image = {"shard": "a/0", "key": "b/c.jpg"}
        assert original_address(run_record(RUN, source_root="/d", folder_buckets=1), image) == "/d/b/c.jpg"
        assert original_address(run_record(RUN, source_root="s3://x/y"), image) == "s3://x/y/a/0#b/c.jpg"
        assert original_address(run_record(RUN, source_root=""), image) == "a/0#b/c.jpg"
