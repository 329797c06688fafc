"""Rejected samples tried again: they alone are labelled, and the store is as if they had been the first time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import StoreError
from pipeline.labelling.request import LabelOutcome
from pipeline.labelling.retry import RetryJob, RetryRequest
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from tests.fixtures.corpus import encode, jpeg, sample_members, tar_bytes, write_tars
from tests.fixtures.labelling import LabelFunction, label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.stored.queries import read_table, rows
from tests.fixtures.stored.tables import run_record

WIDE = encode(Image.new("RGB", (300, 200), (20, 120, 200)), "PNG")
SMALL = {"max_image_pixels": 50_000}


def write_source(folder: Path) -> None:
    """Two shards without a fault, and one of images that are too large or that no limit lets through."""
    write_tars(folder, 2, 3)
    members = [
        ("wide.png", WIDE),
        *sample_members("good", 50),
        ("cut.jpg", jpeg(51)[:500]),
        ("twice.jpg", jpeg(52)),
        ("other.jpg", jpeg(53)),
        ("twice.jpg", jpeg(52)),
        ("again/wide.png", WIDE),
        ("again/wide.txt", b"a caption"),
        ("alone.txt", b"no image"),
    ]
    (folder / "mixed.tar").write_bytes(tar_bytes(members))


def retry(store: Path, **request: Any) -> LabelOutcome:
    return RetryJob(RetryRequest(store=str(store), labeler_class=InstantLabeler, **request)).run()


@pytest.fixture(scope="module")
def labelled(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, a store that was labelled with small limits, and one that was labelled with the default's."""
    folder = tmp_path_factory.mktemp("retry")
    write_source(folder / "source")
    label_with(tiny_model, folder / "source", folder / "small", labeler_class=InstantLabeler, **SMALL)
    label_with(tiny_model, folder / "source", folder / "whole", labeler_class=InstantLabeler)
    return folder


@pytest.fixture
def stores(labelled: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of both stores."""
    for name in ("small", "whole"):
        shutil.copytree(labelled / name, tmp_path / name)
    return tmp_path / "small", tmp_path / "whole"


@pytest.mark.parametrize("compacted", [False, True])
def test_after_larger_limits_the_store_is_as_if_it_had_been_labelled_with_them(
    stores: tuple[Path, Path], compacted: bool
) -> None:
    small, whole = stores
    n_files = len(list(small.glob("images/run=*/*.parquet")))
    if compacted:
        store = Store(str(small))
        compact_run(store.run(store.run_names()[0]), read_vocabulary(None), lambda done, total: None)
    outcome = retry(small, error="ImageTooLarge")

    assert (outcome.record.n_retried, outcome.record.n_labelled, outcome.record.n_shards_committed) == (2, 2, 1)
    assert read_table(small, "images").equals(read_table(whole, "images"))
    assert read_table(small, "labels").equals(read_table(whole, "labels"))
    assert n_files == 3
    assert rows(small, "SELECT n_images, n_retried FROM jobs ORDER BY started") == [(14, 0), (2, 2)]


def test_what_is_rejected_again_stays_rejected_and_nothing_else_changes(stores: tuple[Path, Path]) -> None:
    _, whole = stores
    before = {table: read_table(whole, table) for table in ("images", "labels")}
    outcome = retry(whole)

    assert (outcome.record.n_retried, outcome.record.n_labelled) == (3, 0)
    assert {table: read_table(whole, table) for table in ("images", "labels")} == before


def test_only_the_class_and_stage_that_were_asked_for_are_tried(stores: tuple[Path, Path]) -> None:
    small, _ = stores
    assert retry(small, error="Nothing").record.n_images == 0
    assert retry(small, stage="read").record.n_images == 2
    assert rows(small, "SELECT count(*) FROM rejects WHERE error = 'ImageTooLarge'") == [(2,)]


def test_a_shard_that_changed_since_is_left_out_and_named(stores: tuple[Path, Path], labelled: Path) -> None:
    small, _ = stores
    before = read_table(small, "images")
    shard = labelled / "source" / "mixed.tar"
    content = shard.read_bytes()
    shard.write_bytes(tar_bytes([("other.jpg", jpeg(1))]))
    outcome = retry(small)
    shard.write_bytes(content)

    assert outcome.record.n_images == 0
    assert any("1 shards changed at the source" in note for note in outcome.notes)
    assert read_table(small, "images").equals(before)


def test_a_mended_file_of_a_folder_is_labelled_though_others_have_changed(
    label_instantly: LabelFunction, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(jpeg(number) if number != 2 else b"not yet")
    label_instantly(folder, tmp_path / "store")
    (folder / "2.jpg").write_bytes(jpeg(2))
    (folder / "0.jpg").unlink()
    outcome = retry(tmp_path / "store")

    assert (outcome.record.n_images, outcome.record.n_labelled) == (1, 1)
    found = rows(tmp_path / "store", 'SELECT key, status, n_labels > 0 FROM images ORDER BY "index"')
    assert found == [(f"{number}.jpg", "labelled", True) for number in range(4)]


def test_of_several_runs_one_has_to_be_named(tmp_path: Path) -> None:
    for run in ("a", "b"):
        Store(str(tmp_path / "store")).create_run(run_record(run))
    with pytest.raises(StoreError, match=r"the store holds 2 runs \(a, b\); choose one with --run"):
        retry(tmp_path / "store")
    with pytest.raises(StoreError, match="there is no run c"):
        retry(tmp_path / "store", run="c")
