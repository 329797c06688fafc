"""Where a query's result may be written, and that it is written whole."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline.catalog.result_file import ResultFile, find_result_file
from pipeline.errors import StoreError, TagstreamError
from pipeline.storage.files import open_filesystem


@pytest.fixture
def store(tmp_path: Path) -> str:
    (tmp_path / "store" / "labels").mkdir(parents=True)
    return str(tmp_path / "store")


def find(url: str | Path, store: str, *, overwrite: bool = False) -> ResultFile:
    return find_result_file(str(url), store, overwrite=overwrite)


def write(file: ResultFile, content: bytes) -> None:
    with file.open() as stream:
        stream.write(content)


def fail(file: ResultFile) -> None:
    with file.open() as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


class TestPlaces:
    """What is refused."""

    def test_inside_of_the_store_nothing_is_written(self, store: str, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(f"{store}/labels")
        (tmp_path / "dangling.csv").symlink_to(f"{store}/new.csv")
        places = [f"{store}/x.csv", f"{store}/labels/run=a/x.csv", f"{store}/../store/x.csv", store]
        for place in [*places, f"{tmp_path}/link/x.csv", f"{tmp_path}/dangling.csv"]:
            with pytest.raises(TagstreamError, match=r"lies in the store .*, which is only read"):
                find(place, store, overwrite=True)

    def test_beside_the_store_there_is_room(self, store: str) -> None:
        assert find(f"{store}-other.csv", store).path == f"{store}-other.csv"

    def test_a_file_that_exists_is_kept_unless_it_may_be_replaced(self, store: str, tmp_path: Path) -> None:
        place = tmp_path / "x.csv"
        place.write_text("mine")
        with pytest.raises(TagstreamError, match=r"x\.csv exists; give another name, or --overwrite"):
            find(place, store)
        write(find(place, store, overwrite=True), b"new")
        assert place.read_bytes() == b"new"

    @pytest.mark.parametrize("place", ["", "/dev/null"])
    def test_what_is_no_file_is_never_replaced(self, store: str, tmp_path: Path, place: str) -> None:
        with pytest.raises(TagstreamError, match=r"is no file; expected the name of a file"):
            find(tmp_path / place, store, overwrite=True)

    def test_a_folder_that_is_not_there_is_told_of(self, store: str, tmp_path: Path) -> None:
        with pytest.raises(TagstreamError, match=r"there is no folder .*nowhere"):
            find(tmp_path / "nowhere" / "x.csv", store)

    def test_an_unknown_protocol_is_told_of(self, store: str) -> None:
        with pytest.raises(TagstreamError, match=r"cannot open nothing://x.csv"):
            find("nothing://x.csv", store)


class TestWriting:
    """All or nothing."""

    def test_until_all_is_written_there_is_no_such_file(self, store: str, tmp_path: Path) -> None:
        file = find(tmp_path / "x.csv", store)
        with file.open() as stream:
            stream.write(b"all")
            assert not Path(file.path).exists()
        assert Path(file.path).read_bytes() == b"all"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "x.csv"]

    def test_a_failure_leaves_the_former_file_and_nothing_else(self, store: str, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text("mine")
        with pytest.raises(KeyboardInterrupt):
            fail(find(tmp_path / "x.csv", store, overwrite=True))
        assert (tmp_path / "x.csv").read_text() == "mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "x.csv"]

    def test_others_may_read_it_as_any_new_file(self, store: str, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        write(find(tmp_path / "x.csv", store), b"")
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("x.csv", "plain")]
        assert modes[0] == modes[1]

    def test_a_name_of_full_length_has_room_for_the_temporary_one(self, store: str, tmp_path: Path) -> None:
        name = "x" * 251 + ".csv"
        write(find(tmp_path / name, store), b"all")
        assert (tmp_path / name).read_bytes() == b"all"

    def test_a_place_that_cannot_be_written_is_one_sentence(self, tmp_path: Path) -> None:
        filesystem, path = open_filesystem(str(tmp_path / "gone" / "x.csv"))
        with pytest.raises(StoreError, match=r"cannot write x.csv"):
            write(ResultFile("x.csv", filesystem, path), b"")


class TestS3:
    """Results on an object store."""

    def test_a_result_appears_whole_or_not_at_all(self, s3: str, store: str, tmp_path: Path) -> None:
        url = f"{s3}/{tmp_path.name}/x.csv"
        with pytest.raises(KeyboardInterrupt):
            fail(find(url, store))
        filesystem, path = open_filesystem(url)
        assert not filesystem.exists(path)
        write(find(url, store), b"all")
        assert filesystem.cat_file(path) == b"all"
        with pytest.raises(TagstreamError, match=r"exists; give another name"):
            find(url, store)

    def test_a_store_there_is_not_written_into(self, s3: str, tmp_path: Path) -> None:
        store = f"{s3}/{tmp_path.name}/store"
        for url in (f"{store}/x.csv", store.replace("s3:", "s3a:") + "/labels/x.csv"):
            with pytest.raises(TagstreamError, match="lies in the store"):
                find(url, store)
        assert find(f"{store}-other.csv", store).url == f"{store}-other.csv"
