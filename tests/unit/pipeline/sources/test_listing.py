"""Finding the shards of a source, in every form it may be given."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from pipeline.errors import SourceError, StorageError, TagstreamError
from pipeline.sources.batches import read_batches
from pipeline.sources.contents import describe_skipped, shard_name
from pipeline.sources.image_folder import read_files
from pipeline.sources.listing import current_version, find_source, source_name
from pipeline.sources.shard import Source
from pipeline.storage.files import open_filesystem
from tests.fixtures.corpus import tar_bytes

STORE = [
    "images/run=r/0.parquet",
    "labels/run=r/sub%2F1.parquet",
    "spellings/run=r/compacted.parquet",
    "embeddings/abc.parquet",
    "runs/r/run.json",
    "runs/r/jobs/2026.json",
]
TAR = tar_bytes([("a.jpg", b"A")])
HTTP_LIST = "https://host/x/0.tar?signature=1\nhttps://host/x/1.tar?signature=2\n"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(TAR)


def names(source: Source) -> list[str]:
    return [shard.name for shard in source.shards]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty but for `shards` with two tars, one of them nested."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shards", "0.tar", "sub/1.tar")
    return tmp_path


class TestForms:
    """One source, given in different ways."""

    @pytest.mark.parametrize(
        "given",
        [
            "shards",
            "shards/",
            "./shards",
            "other/../shards",
            "{here}/shards",
            "file://{here}/shards/",
            "shards/**/*.tar",
            "other/../shards/**/*.tar",
            "shards/{0,sub/1}.tar",
            "./shards//{0,sub/1}.tar",
            "other/../shards/{0,sub/1}.tar",
            "file://{here}/shards/{0,sub/1}.tar",
            "{here}/shards/{*,sub/*}.tar",
            "shards/{0.tar,*/*.tar}",
            "shards/{0,sub/1,0,sub/[1]}.tar",
        ],
    )
    def test_every_form_names_the_shards_alike(self, here: Path, given: str) -> None:
        source = find_source(given.replace("{here}", str(here)))
        assert (names(source), source.root) == (["0", "sub/1"], str(here / "shards"))
        assert [shard.url for shard in source.shards] == [f"{here}/shards/0.tar", f"{here}/shards/sub/1.tar"]

    def test_a_single_file_has_the_name_it_has_in_its_directory(self, here: Path) -> None:
        source = find_source("shards/0.tar")
        assert (names(source), source.root) == (["0"], str(here / "shards"))

    def test_size_etag_and_time_come_with_the_listing(self, here: Path) -> None:
        os.utime(here / "shards/0.tar", (1e9, 1e9))
        (shard,) = find_source("shards/0.tar").shards
        assert (shard.kind, shard.size, shard.etag) == ("tar", len(TAR), "1000000000.000000")
        # It came here later than it was written.
        assert shard.modified == pytest.approx((here / "shards/0.tar").stat().st_ctime)

    def test_a_directory_whose_name_has_wildcards_is_taken_at_its_word(self, here: Path) -> None:
        for name in ("a[1]", "b{1,2}", "c*"):
            write(here / name, "0.tar")
            assert names(find_source(name)) == ["0"], name

    def test_a_list_names_shards_by_their_whole_path(self, here: Path) -> None:
        (here / "list").write_text(f"# two\n\nshards/0.tar\r\n file://{here}/shards/sub/../sub/1.tar \nshards/0.tar\n")
        source = find_source("@list")
        prefix = str(here)[1:]
        assert (names(source), source.root) == ([f"{prefix}/shards/0", f"{prefix}/shards/sub/1"], "")

    def test_a_list_may_begin_with_a_byte_order_mark(self, here: Path) -> None:
        (here / "list").write_text("\ufeffshards/0.tar\n", encoding="utf-8")
        assert len(find_source("@list").shards) == 1

    def test_a_list_may_name_shards_on_different_storages(self, here: Path) -> None:
        (here / "list").write_text("https://host/x/0.tar\nshards/0.tar\n")
        assert names(find_source("@list")) == [f"{str(here)[1:]}/shards/0", "host/x/0"]

    def test_a_list_of_web_addresses_is_not_looked_up(self, here: Path) -> None:
        (here / "list").write_text(HTTP_LIST)
        assert [(shard.size, shard.etag, shard.modified) for shard in find_source("@list").shards] == [(None,) * 3] * 2

    def test_a_signature_is_no_part_of_a_shards_name(self, here: Path) -> None:
        (here / "list").write_text(HTTP_LIST)
        source = find_source("@list")
        assert names(source) == ["host/x/0", "host/x/1"]
        assert [shard.url for shard in source.shards] == HTTP_LIST.split()

    def test_alternatives_in_front_of_every_directory_are_named_by_their_whole_path(
        self, here: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = tmp_path_factory.mktemp("other")
        write(other, "1.tar")
        source = find_source(f"{{{here}/shards/0,{other}/1}}.tar")
        assert (set(names(source)), source.root) == ({f"{here}/shards/0"[1:], f"{other}/1"[1:]}, "")


class TestContent:
    """What is a shard, and what is not."""

    def test_tars_and_parquet_may_be_mixed(self, here: Path) -> None:
        write(here / "mixed", "a.tar", "b.tar.gz", "c.tgz", "d.parquet", "E.TAR")
        found = {shard.name: shard.kind for shard in find_source("mixed").shards}
        assert found == {"E": "tar", "a": "tar", "b.tar.gz": "tar", "c.tgz": "tar", "d": "parquet"}

    @pytest.mark.parametrize("given", ["shards", "shards/**/*", "shards/**/*.tar"])
    def test_hidden_files_are_passed_over(self, here: Path, given: str) -> None:
        write(here / "shards", "._0.tar", ".0.tar.tmp", ".cache/2.tar")
        assert names(find_source(given)) == ["0", "sub/1"]

    @pytest.mark.parametrize("given", ["shards/.cache/*.tar", "shards/.cache", "shards/.cache/{2..2}.tar"])
    def test_hidden_files_that_are_asked_for_are_found(self, here: Path, given: str) -> None:
        write(here / "shards", ".cache/2.tar")
        assert names(find_source(given)) == ["2"]

    @pytest.mark.parametrize("given", ["shards", "shards/**/*.tar", "shards/{0,sub/1,2}.tar"])
    def test_a_link_to_a_shard_is_a_shard_of_the_version_it_leads_to(self, here: Path, given: str) -> None:
        write(here / "blobs", "9e1f")
        os.utime(here / "blobs/9e1f", (1e9, 1e9))
        (here / "shards/2.tar").symlink_to("../blobs/9e1f")
        linked = find_source(given).shards[1]
        assert (linked.name, linked.size, linked.etag) == ("2", len(TAR), "1000000000.000000")

    def test_links_to_no_file_are_counted_and_not_followed(self, here: Path) -> None:
        (here / "shards/2.tar").symlink_to("nowhere")
        (here / "shards/again").symlink_to(".", target_is_directory=True)
        source = find_source("shards")
        assert (names(source), source.skipped) == (["0", "sub/1"], {"link": 2})

    @pytest.mark.parametrize("given", ["shards", "shards/**/*.parquet", "shards/{0.tar,**/*.parquet}"])
    def test_a_store_within_the_source_is_no_part_of_it(self, here: Path, given: str) -> None:
        write(here / "shards", "p.parquet", *(f"tags/{name}" for name in STORE))
        source = find_source(given)
        assert names(source)[0] in ("0", "p")
        assert (any("tags" in name for name in names(source)), source.skipped) == (False, {})

    def test_a_folder_of_images_with_a_store_in_it_stays_a_folder_of_images(self, here: Path) -> None:
        write(here / "photos", "a.jpg", "labels/run=r/bucket-0000-of-0001.parquet")
        source = find_source("photos")
        assert (source.shards, [file.path for file in source.images]) == ([], ["a.jpg"])

    def test_tars_of_the_same_name_in_different_directories_stay_apart(self, here: Path) -> None:
        write(here / "twins", "a/0.tar", "b/0.tar", "a-0.tar")
        assert names(find_source("twins")) == ["a-0", "a/0", "b/0"]

    def test_tars_whose_suffix_alone_differs_stay_apart(self, here: Path) -> None:
        write(here / "twins", "a.TAR", "a.tar", "b.TAR")
        assert {shard.name: shard.url for shard in find_source("twins").shards} == {
            "a": f"{here}/twins/a.tar",
            "a.TAR": f"{here}/twins/a.TAR",
            "b": f"{here}/twins/b.TAR",
        }

    def test_a_name_that_is_no_utf_8_becomes_a_valid_one_that_can_be_read(self, here: Path) -> None:
        write(here / "odd", os.fsdecode(b"caf\xe9.tar"))
        (shard,) = find_source("odd").shards
        (batch,) = read_batches(shard, 8)
        assert (shard.name, batch.column("shard").to_pylist()) == ("caf\\xe9", ["caf\\xe9"])


class TestKind:
    """A source is shards or a folder of images: what most of its files are."""

    def test_files_of_the_other_kind_are_counted(self, here: Path) -> None:
        write(here / "shards", "a.jpg", "sub/b.PNG", ".hidden.jpg")
        source = find_source("shards")
        assert (names(source), source.skipped) == (["0", "sub/1"], {".jpg": 1, ".png": 1})

    @pytest.mark.parametrize("stray", ["labels.parquet", "backup.tar", "old.zip"])
    def test_a_stray_shard_makes_no_shards_of_a_folder_of_images(self, here: Path, stray: str) -> None:
        write(here / "photos", "a.jpg", "b.jpg", stray)
        source = find_source("photos")
        assert ([file.path for file in source.images], source.shards) == (["a.jpg", "b.jpg"], [])
        assert source.skipped == {f".{stray.split('.')[1]}": 1}
        expected = "photos is taken for a folder of images; 1 shards in it are left out, and can be labelled by name"
        assert source.notes == [expected]

    def test_a_source_may_be_taken_as_the_kind_that_its_run_began_with(self, here: Path) -> None:
        write(here / "photos", "a.jpg", "b.tar", "c.tar", "d.txt")
        as_shards = find_source("photos")
        as_folder = as_shards.of_kind(is_folder=True)
        assert as_folder is not None
        assert as_shards.of_kind(is_folder=False) is as_shards
        assert (names(as_shards), as_shards.skipped) == (["b", "c"], {".jpg": 1, ".txt": 1})
        assert ([file.path for file in as_folder.images], as_folder.skipped) == (["a.jpg"], {".tar": 2, ".txt": 1})
        assert find_source("shards").of_kind(is_folder=True) is None

    def test_tables_that_img2dataset_leaves_beside_its_tars_and_folders_are_no_shards(self, here: Path) -> None:
        write(here / "tars", "00000.tar", "00000.parquet", "00000_stats.json", "00001.tar", "00001.parquet")
        write(here / "files", "00000/a.jpg", "00000/a.txt", "00000.parquet", "00000_stats.json")
        tars, files = find_source("tars"), find_source("files")
        assert (names(tars), tars.skipped) == (["00000", "00001"], {".parquet": 2, ".json": 1})
        assert ([file.path for file in files.images], files.skipped) == (["00000/a.jpg"], {".json": 1, ".parquet": 1})

    def test_what_spark_and_delta_keep_for_themselves_is_no_shard(self, here: Path) -> None:
        hidden = ["_temporary/0/part-1.parquet", "_delta_log/0010.checkpoint.parquet", "_metadata.parquet"]
        write(here / "table", "_day=1/part-0.parquet", "label=dog/part-0.parquet", *hidden)
        source = find_source("table")
        assert (names(source), source.skipped) == (["_day=1/part-0", "label=dog/part-0"], {"system file": 3})

    def test_names_that_begin_with_an_underscore_are_photographs(self, here: Path) -> None:
        write(here / "photos", "_DSC0001.JPG", "_edited/b.jpg")
        assert [file.path for file in find_source("photos").images] == ["_DSC0001.JPG", "_edited/b.jpg"]

    @pytest.mark.parametrize("folder", ["@eaDir/a.jpg", "__MACOSX", "x/#recycle", "$RECYCLE.BIN"])
    def test_thumbnails_and_bins_of_storage_boxes_are_no_photographs(self, here: Path, folder: str) -> None:
        write(here / "photos", "a.jpg", f"{folder}/SYNOPHOTO_THUMB_XL.jpg")
        source = find_source("photos")
        assert ([file.path for file in source.images], source.skipped) == (["a.jpg"], {"system file": 1})


class TestFoldersOfImages:
    """Which files of a folder are images, and what is counted of the others."""

    def test_images_are_known_by_more_suffixes_than_their_usual_ones(self, here: Path) -> None:
        known = ["a.jfif", "b.jpe", "c.apng", "d.jpg_large", "e.jpg!thumb", "f.JPG:orig", "g.png?width=100"]
        write(here / "photos", *known, "h.jpg.part", "i.jpgx")
        source = find_source("photos")
        assert [file.path for file in source.images] == known
        assert source.skipped == {".jpgx": 1, ".part": 1}

    def test_a_file_without_a_suffix_is_an_image_if_it_begins_like_one(self, here: Path) -> None:
        write(here / "photos", "README", "a.jpg")
        (here / "photos/scan.d").mkdir()
        (here / "photos/scan.d/0001").write_bytes(b"\xff\xd8\xff\xe0" + bytes(20))
        source = find_source("photos")
        assert [file.path for file in source.images] == ["a.jpg", "scan.d/0001"]
        assert source.skipped == {"file without suffix": 1}

    def test_other_files_are_counted_by_suffix_and_side_files_that_are_taken_are_not(self, here: Path) -> None:
        write(here / "photos", "a.jpg", "a.txt", "a.TXT", "b.MP4", "x/c.mp4", "x/d.json", "e.p\u202edf", ".hidden")
        os.mkfifo(here / "photos/pipe.jpg")
        (here / "photos/linked").symlink_to("..", target_is_directory=True)
        assert find_source("photos").skipped == {
            ".mp4": 2,
            ".json": 1,
            ".txt": 1,
            "file of another kind": 1,
            "link": 1,
            "special file": 1,
        }

    def test_folders_that_may_not_be_read_are_counted(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(here / "photos", "a.jpg", "private/b.jpg", "private/c.jpg")
        # As root no folder is closed.
        scandir = os.scandir

        def scan(path: str) -> Any:
            if path.endswith("private"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", scan)
        source = find_source("photos")
        assert ([file.path for file in source.images], source.skipped) == (["a.jpg"], {"folder without permission": 1})
        assert find_source("photos/**/*.jpg").skipped == {"folder without permission": 1}
        with pytest.raises(StorageError, match="permission denied"):
            find_source("photos/private")

    @pytest.mark.parametrize(
        ("skipped", "text"),
        [
            ({}, ""),
            ({".mp4": 12, ".heic": 3, "link": 1}, "12 .mp4, 3 .heic, 1 link"),
            (
                {"folder without permission": 2, "file without suffix": 1},
                "2 folders without permission, 1 file without suffix",
            ),
            (
                {f".{n:02}": 1 for n in range(12)} | {"link": 1500},
                ", ".join(f"1 .{n:02}" for n in range(12)) + ", 1,500 others",
            ),
        ],
    )
    def test_what_was_left_out_is_told_in_words(self, skipped: dict[str, int], text: str) -> None:
        assert describe_skipped(skipped) == text


class TestSeveral:
    """Several arguments make one source."""

    @pytest.mark.parametrize(
        "given", [("shards/0.tar", "shards/sub/1.tar"), ("shards", "shards/0.tar"), ("shards/*.tar", "shards/sub")]
    )
    def test_shards_are_named_as_in_their_common_directory(self, here: Path, given: tuple[str, ...]) -> None:
        source = find_source(*given)
        assert (names(source), source.root, source.addresses) == (["0", "sub/1"], str(here / "shards"), given)

    def test_shards_of_one_name_in_different_directories_stay_apart(self, here: Path) -> None:
        write(here, "a/0.tar", "b/0.tar")
        assert names(find_source("a", "b")) == names(find_source("a/0.tar", "b/0.tar")) == ["a/0", "b/0"]

    def test_images_come_with_the_side_files_that_lie_beside_them(self, here: Path) -> None:
        write(here / "photos", "a.jpg", "a.txt", "b.png", "c.mp4", "sub/d.jpg", "sub/d.json")
        images = ["photos/a.jpg", "photos/b.png", "photos/c.mp4", "photos/sub"]
        source = find_source(*images)
        assert source.root == str(here / "photos")
        assert [(file.path, file.text, file.description) for file in source.images] == [
            ("a.jpg", "a.txt", None),
            ("b.png", None, None),
            ("sub/d.jpg", None, "sub/d.json"),
        ]
        assert source.skipped == {".mp4": 1}
        assert source.images == find_source("photos").images

    @pytest.mark.parametrize("given", ["photos/*.jpg", "photos/a.jpg", "photos/{a,x}.jpg"])
    def test_a_pattern_and_a_name_may_be_those_of_images(self, here: Path, given: str) -> None:
        write(here / "photos", "a.jpg", "a.txt", "b.png", "x.jpg")
        (image, *_) = find_source(given).images
        assert (image.path, image.text) == ("a.jpg", "a.txt")

    def test_a_list_of_images_names_them_by_their_whole_path(self, here: Path) -> None:
        write(here / "photos", "a.jpg", "b.jpg")
        (here / "list").write_text("photos/a.jpg\nphotos/b.jpg\n")
        source = find_source("@list")
        assert (source.root, [file.key for file in source.images]) == (
            "/",
            [f"{here}/photos/a.jpg"[1:], f"{here}/photos/b.jpg"[1:]],
        )

    def test_shards_and_images_by_name_are_refused(self, here: Path) -> None:
        write(here / "photos", "a.jpg")
        with pytest.raises(SourceError, match=r"shards has shards, and .*photos has images; label them as two runs"):
            find_source("shards", "photos")

    def test_an_image_of_a_list_that_is_gone_is_one_row_and_all_of_them_are_a_mistake(self, here: Path) -> None:
        write(here / "photos", "a.jpg")
        (here / "list").write_text("photos/a.jpg\nphotos/gone.jpg\n")
        source = find_source("@list")
        filesystem, root = open_filesystem(source.root)
        assert [sample.error for sample in read_files(filesystem, root, source.images)] == [None, "FileVanished"]
        (here / "photos/a.jpg").unlink()
        with pytest.raises(SourceError, match="2 of the 2 shards of @list do not exist"):
            find_source("@list")

    def test_a_missing_one_is_told(self, here: Path) -> None:
        with pytest.raises(SourceError, match=r"shards/2\.tar does not exist"):
            find_source("shards/0.tar", "shards/2.tar")

    def test_a_message_names_the_first_three(self) -> None:
        assert source_name(("a b.tar", "c.tar", "d", "e", "f")) == "'a b.tar' c.tar d and 2 more"
        assert source_name(("a b.tar",)) == "a b.tar"


def test_two_colons_are_part_of_a_name(here: Path) -> None:
    write(here, "tars/a::b.tar", "album::2024/c::d.jpg")
    assert find_source("album::2024").images[0].key == "c::d.jpg"
    for given in ("tars", "tars/a::b.tar", "tars/*::*.tar"):
        (shard,) = find_source(given).shards
        (batch,) = read_batches(shard, 8)
        assert (shard.name, batch.column("n_samples").to_pylist()) == ("a::b", [1])


class TestMistakes:
    """Sources that cannot be labelled: one sentence says why."""

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ("", "the source is empty"),
            ("nowhere", "nowhere does not exist; expected a directory"),
            ("nothing", "holds 0 files, none of them a shard or an image; expected"),
            ("texts", r"holds 4 files, none of them a shard or an image \(2 files without suffix, 1 .mp4, 1 .txt\)"),
            ("texts/a.txt", "is a single file that is neither a shard nor an image"),
            ("texts/*", "holds 4 files, none of them"),
            ("shards/x*.tar", "matches nothing"),
            ("shards/{x,y}*.tar", "names no shards"),
            ("shards/{0..", "is no valid pattern"),
            ("shards/**.tar", "is no valid pattern"),
            ("@texts/empty", "names no shards"),
            ("@texts/absent", "the list texts/absent does not exist"),
            ("@texts/latin", "is no UTF-8 text"),
        ],
    )
    def test_it_is_refused(self, here: Path, given: str, sentence: str) -> None:
        (here / "nothing").mkdir()
        write(here / "texts", "a.txt", "film.MP4")
        (here / "texts/empty").write_text("# nothing\n\n")
        (here / "texts/latin").write_bytes(b"caf\xe9.tar")
        with pytest.raises(SourceError, match=sentence):
            find_source(given)

    def test_an_unknown_protocol_is_refused(self) -> None:
        with pytest.raises(TagstreamError, match="Protocol not known: nopro"):
            find_source("nopro://bucket/x.tar")

    @pytest.mark.parametrize("given", ["shards/{0..3}.tar", "@list"])
    def test_missing_shards_are_one_error_that_counts_them(self, here: Path, given: str) -> None:
        (here / "list").write_text("\n".join(f"shards/{number}.tar" for number in range(4)))
        with pytest.raises(SourceError, match=r"3 of the 4 shards of .* do not exist, the first is .*/shards/1\.tar"):
            find_source(given)


@pytest.mark.parametrize(
    ("root", "url", "name"),
    [
        ("/data", "/data/a/0.tar", "a/0"),
        ("/", "/data/0.tar", "data/0"),
        ("s3://bucket", "s3://bucket/a/0.parquet", "a/0"),
        ("", "/data/0.tar", "data/0"),
        ("", "s3://bucket/.x/0.tar", "bucket/.x/0"),
        ("", "https://host/0.TAR?x=1.tar", "host/0"),
        ("/data", "/data/a/.tar", "a/.tar"),
        ("/data", "/data/0.parquet.tar", "0.parquet"),
        ("/data", "/data/0.tar.gz", "0.tar.gz"),
    ],
)
def test_a_shards_name_is_its_path_below_the_root(root: str, url: str, name: str) -> None:
    assert shard_name(root, url) == name


def test_the_version_at_the_time_of_reading_is_that_of_the_listing(here: Path) -> None:
    (here / "shards/2.tar").symlink_to("0.tar")
    for shard in find_source("shards").shards:
        assert current_version(*open_filesystem(shard.url)) == (shard.size, shard.etag)


@pytest.fixture
def bucket(s3: str, tmp_path: Path) -> Callable[..., str]:
    """Puts objects under a prefix of the test's own, and returns its URL."""

    def put(*keys: str) -> str:
        filesystem, root = open_filesystem(f"{s3}/{tmp_path.name}")
        for key in keys:
            filesystem.pipe_file(f"{root}/{key}", TAR)
        return f"{s3}/{tmp_path.name}"

    return put


@pytest.fixture(scope="module")
def three_thousand(s3: str) -> str:
    """URL of a prefix with three thousand shards."""
    # Not put by requests, which would take longer than all these tests.
    for number in range(3000):
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("corpus", f"three-thousand/{number:04}.tar", b"x")
    return f"{s3}/three-thousand"


class TestS3:
    """The same on S3."""

    @pytest.mark.parametrize(
        "form", ["{url}", "{url}/", "{url}/**/*.tar", "{url}/{0,sub/1}.tar", "{url}/{*,sub/*}.tar"]
    )
    def test_every_form_names_the_shards_alike(self, bucket: Callable[..., str], form: str) -> None:
        url = bucket("0.tar", "sub/1.tar", ".hidden.tar", "README")
        source = find_source(form.replace("{url}", url))
        assert (names(source), source.root) == (["0", "sub/1"], url)
        assert [shard.url for shard in source.shards] == [f"{url}/0.tar", f"{url}/sub/1.tar"]
        assert all(shard.size == len(TAR) and shard.etag and shard.modified for shard in source.shards)

    def test_a_list_may_lie_on_s3(self, bucket: Callable[..., str]) -> None:
        url = bucket("0.tar", "sub/1.tar")
        filesystem, path = open_filesystem(f"{url}/list")
        filesystem.pipe_file(path, f"{url}/0.tar\n{url}/sub/1.tar\n".encode())
        assert names(find_source(f"@{url}/list")) == [f"{url}/0"[5:], f"{url}/sub/1"[5:]]

    def test_missing_shards_are_one_error(self, bucket: Callable[..., str]) -> None:
        url = bucket("0.tar")
        with pytest.raises(SourceError, match="2 of the 3 shards"):
            find_source(f"{url}/{{0..2}}.tar")

    @pytest.mark.parametrize("prefix", ["a [2019]", "b{1,2}", "what?"])
    def test_a_prefix_that_is_named_like_a_pattern_is_found(self, bucket: Callable[..., str], prefix: str) -> None:
        url = bucket(f"{prefix}/0.tar")
        assert names(find_source(f"{url}/{prefix}")) == ["0"]

    def test_a_folder_of_images_has_the_etags_of_its_objects(self, bucket: Callable[..., str]) -> None:
        source = find_source(bucket("a.jpg", "sub/b.jpg", "sub/b.txt"))
        assert [(file.path, file.text) for file in source.images] == [("a.jpg", None), ("sub/b.jpg", "sub/b.txt")]
        assert len({file.version.etag for file in source.images}) == 1

    @pytest.mark.parametrize(("form", "n_requests"), [("{url}", 6), ("{url}/*.tar", 9), ("{url}/{0000..2999}.tar", 3)])
    def test_three_thousand_shards_cost_few_requests(
        self, three_thousand: str, caplog: pytest.LogCaptureFixture, form: str, n_requests: int
    ) -> None:
        with caplog.at_level(logging.INFO, "werkzeug"):
            source = find_source(form.replace("{url}", three_thousand))
        requests = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
        assert len(source.shards) == 3000
        # A listing comes in pages of a thousand.
        assert 3 <= len(requests) <= n_requests, requests
