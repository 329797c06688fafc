"""A run beside its source as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SourceError, TagstreamError
from pipeline.labelling.source_status import SourceStatus, compare_with_source
from pipeline.store.store import Store
from tests.fixtures.corpus import jpeg, shard_bytes, write_tars
from tests.fixtures.stored.labelled import label_source

RUN = "run-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three shards of two samples."""
    write_tars(tmp_path / "source", 3, 2)
    return tmp_path / "source"


def compare(store: Store) -> SourceStatus:
    record = store.run(RUN).read_record()
    assert record is not None
    return compare_with_source(store.run(RUN), record, store.run(RUN).committed())


def test_a_run_that_is_done_has_nothing_open(store: Store, source: Path) -> None:
    label_source(store, RUN, str(source))
    assert compare(store) == SourceStatus(3, [], [], [], 0)


def test_what_is_new_changed_and_gone_is_told(store: Store, source: Path) -> None:
    label_source(store, RUN, str(source))
    write_tars(source, 2, 1, first=7)
    (source / "00001.tar").write_bytes(shard_bytes(9, 3))
    (source / "00002.tar").unlink()
    status = compare(store)
    assert (status.open, status.changed, status.missing) == (["00007", "00008"], ["00001"], ["00002"])
    assert (status.n_source, status.n_committed) == (4, 2)


def test_names_of_shards_that_are_gone_are_told_as_they_were(store: Store, tmp_path: Path) -> None:
    write_tars(tmp_path / "source" / "größe x", 1, 1)
    write_tars(tmp_path / "source", 1, 1)
    label_source(store, RUN, str(tmp_path / "source"))
    (tmp_path / "source" / "größe x" / "00000.tar").unlink()
    assert compare(store).missing == ["größe x/00000"]


def test_a_folder_of_images_tells_of_new_and_deleted_ones(store: Store, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(jpeg(number))
    label_source(store, RUN, str(photos))
    (photos / "3.jpg").write_bytes(jpeg(3))
    label_source(store, RUN, str(photos))
    assert compare(store) == SourceStatus(2, [], [], [], 0)
    (photos / "0.jpg").unlink()
    (photos / "9.jpg").write_bytes(jpeg(9))
    status = compare(store)
    assert (len(status.open), status.n_images_gone, status.missing) == (1, 1, [])


def test_a_folder_of_images_tells_of_changed_ones(store: Store, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0.jpg").write_bytes(jpeg(0))
    label_source(store, RUN, str(photos))
    (photos / "0.jpg").write_bytes(jpeg(1))
    assert len(compare(store).changed) == 1


@pytest.mark.parametrize("given", ["source", "./source", ".", "source/"])
def test_a_relative_folder_is_found_from_another_one(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(source if given == "." else source.parent)
    label_source(store, RUN, given)
    monkeypatch.chdir("/")
    assert compare(store).n_committed == 3


def test_a_relative_pattern_from_another_folder_says_where_to_go(
    store: Store, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    label_source(store, RUN, "source/*.tar")
    write_tars(tmp_path / "elsewhere" / "source", 1, 1)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="go to the folder in which the run was made"):
        compare(store)


def test_a_source_that_is_gone_is_one_sentence(store: Store, source: Path) -> None:
    label_source(store, RUN, str(source))
    source.rename(source.parent / "moved")
    with pytest.raises(TagstreamError, match="source does not exist"):
        compare(store)


def test_a_source_on_s3_is_listed_and_no_shard_of_it_opened(
    s3: str, store: Store, source: Path, tmp_path: Path, s3_reads: list[int]
) -> None:
    url = f"{s3}/{tmp_path.name}/source"
    filesystem = Store(url).filesystem
    for path in source.iterdir():
        filesystem.pipe_file(f"{url.removeprefix('s3://')}/{path.name}", path.read_bytes())
    label_source(store, RUN, url)
    filesystem.rm_file(f"{url.removeprefix('s3://')}/00000.tar")
    s3_reads.clear()
    assert (compare(store).missing, compare(store).n_source, s3_reads) == (["00000"], 2, [])
