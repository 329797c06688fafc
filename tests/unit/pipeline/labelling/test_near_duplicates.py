"""Jobs that label one of the images that look alike: what they do, and that no interruption changes it."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.folder import DEMO_MODEL
from pipeline.errors import TagstreamError
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.labelling.retry import RetryJob, RetryRequest
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.settings.labelling import LabelSettings
from pipeline.store import run as run_module
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from pipeline.upkeep.counting import count_run
from pipeline.upkeep.verification import verify_run
from tests.fixtures.corpus import encode, jpeg, tar_bytes
from tests.fixtures.interruption import Interruption
from tests.fixtures.labelling import label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler, InstantRecognizer
from tests.fixtures.stored.lists import name_list
from tests.fixtures.stored.queries import read_tables, rows

# Each shard's pictures: a number is a picture, a letter behind it another file of the same one, `!` is damaged.
SHARDS = (("0", "1", "0a", "!", "0", "2", "1b", "3", "2a"), ("2", "4", "4a", "4a", "0"), ("5", "!", "5a", "6", "6"))
# By shard and index: index of the image whose labels an image gets.
ALIKE = {(0, 2): 0, (0, 4): 0, (0, 6): 1, (0, 8): 5, (1, 2): 1, (1, 3): 1, (2, 2): 0, (2, 4): 3}
OWN = """SELECT images.shard, images.index, label, rank, score FROM images JOIN labels USING (image_id)
    WHERE reused_from IS NULL ORDER BY ALL"""
# Labels of images that look alike, beside those of the image that was labelled.
SHARED = """
    SELECT list((l.label, l.rank, l.score) ORDER BY l.rank)
    FROM images AS i JOIN labels AS l ON l.image_id = {} WHERE i.reused_distance IS NOT NULL
    GROUP BY i.image_id ORDER BY i.image_id
"""


def label(source: Path, store: Path, **settings: Any) -> Any:
    settings = {"skip_near_duplicates": True, "batch_size": 4, **settings}
    return label_with(DEMO_MODEL, source, store, labeler_class=InstantLabeler, **settings).record


def content(name: str) -> bytes:
    if name == "!":
        return b"no picture"
    picture = Image.open(io.BytesIO(jpeg(int(name[0]), 160, 120)))
    # Of a new run's rule of pixels what is seen of them differs, as the recognizer's labels do.
    return encode(picture, "JPEG", quality={"": 95, "a": 70, "b": 50}[name[1:]])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for shard, names in enumerate(SHARDS):
        members = [(f"{place}.jpg", content(name)) for place, name in enumerate(names)]
        (folder / f"{shard}.tar").write_bytes(tar_bytes(members))
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one job made of the source."""
    store = tmp_path_factory.mktemp("undisturbed")
    label(source, store)
    return store


def alike(store: Path) -> dict[tuple[int, int], int]:
    """Of every image with labels of another: which image that is."""
    query = """SELECT copies.shard, copies.index, first.shard, first.index
        FROM images AS copies JOIN images AS first ON first.image_id = copies.reused_from"""
    found = rows(store, query)
    assert all(shard == of_shard for shard, _, of_shard, _ in found)
    return {(int(shard), index): of for shard, index, _, of in found}


def test_of_images_that_look_alike_the_first_of_a_shard_is_labelled_and_rows_say_so(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    assert alike(undisturbed) == ALIKE
    distances = rows(undisturbed, "SELECT reused_distance FROM images WHERE reused_from IS NOT NULL")
    assert all(0 <= distance <= 4 for (distance,) in distances)
    plain = label(source, tmp_path, skip_near_duplicates=False, perceptual_hash=True)
    # All else is as without: hashes, faults, what images are, and labels of images that are labelled themselves.
    shared = ["reused_from", "reused_distance", "n_labels", "n_unfinished"]
    assert read_tables(tmp_path, *shared, "run")[0] == read_tables(undisturbed, *shared, "run")[0]
    own = set(rows(undisturbed, OWN))
    assert own < set(rows(tmp_path, OWN))
    assert rows(undisturbed, SHARED.format("i.image_id")) == rows(undisturbed, SHARED.format("i.reused_from"))
    assert plain.n_near_duplicates == 0


def test_images_that_look_alike_are_counted_and_do_not_reach_the_recognizer(
    source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops: list[np.ndarray] = []
    sample = InstantRecognizer.sample
    monkeypatch.setattr(
        InstantRecognizer, "sample", lambda self, seen, *a, **b: crops.extend(seen) or sample(self, seen, *a, **b)
    )
    record = label(source, tmp_path)
    n_images = sum(map(len, SHARDS))
    counts = (record.n_images, record.n_labelled, record.n_near_duplicates, record.n_reused)
    assert counts == (n_images, n_images - 2, len(ALIKE), 0)
    assert len(crops) == n_images - 2 - len(ALIKE)
    run = Store(str(tmp_path)).run(record.run)
    counted = count_run(run, run.committed())
    assert (counted.n_near_duplicates, counted.n_reused) == (len(ALIKE), 0)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_what_is_skipped_does_not_depend_on_batches(source: Path, tmp_path: Path, batch_size: int) -> None:
    label(source, tmp_path, batch_size=batch_size)
    assert alike(tmp_path) == ALIKE


@pytest.mark.parametrize("steps", [(4, 7), pytest.param(range(2, 12), marks=pytest.mark.long)])
def test_after_an_interruption_at_any_write_the_tables_are_those_of_an_undisturbed_job(
    source: Path, undisturbed: Path, tmp_path: Path, steps: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_interrupted = 0
    for step in steps:
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "write_whole", Interruption(step).around(run_module.write_whole))
            try:
                label(source, tmp_path / str(step))
            except KeyboardInterrupt:
                n_interrupted += 1
        label(source, tmp_path / str(step))
        assert read_tables(tmp_path / str(step)) == read_tables(undisturbed), f"interrupted in front of write {step}"
    assert n_interrupted > len(steps) / 2


def test_an_image_with_the_bytes_of_a_skipped_one_names_the_one_that_was_labelled(source: Path, tmp_path: Path) -> None:
    record = label(source, tmp_path, reuse=True)
    assert alike(tmp_path) == ALIKE
    is_equal = "reused_from IS NOT NULL AND reused_distance IS NULL"
    # Not the second `4a` of shard 1, which looks like another as the first one does.
    assert set(rows(tmp_path, f"SELECT shard, index FROM images WHERE {is_equal}")) == {("0", 4), ("2", 4)}
    assert (record.n_reused, record.n_near_duplicates) == (2, len(ALIKE) - 2)
    again = label(source, tmp_path, reuse=True, run="again")
    assert (again.n_reused, again.n_near_duplicates) == (again.n_labelled - 6, 6)
    columns = ["reused_from", "reused_run", "run"]
    for table in read_tables(tmp_path, *columns)[:1]:
        of_both = table.to_pylist()
        assert [row for row in of_both if of_both.count(row) != 2] == []


def test_a_run_with_images_that_look_alike_is_verified_and_compacted_as_any_other(
    undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    run = store.run(store.run_names()[0])
    assert verify_run(run).findings == []
    compact_run(run, read_vocabulary(None), lambda done, of: None)
    assert verify_run(run).findings == []
    assert read_tables(tmp_path / "store") == read_tables(undisturbed)


def test_images_that_are_tried_again_are_labelled_themselves(source: Path, tmp_path: Path) -> None:
    record = label(source / "1.tar", tmp_path, max_image_pixels=1000)
    assert record.n_labelled == record.n_near_duplicates == 0
    RetryJob(RetryRequest(store=str(tmp_path), labeler_class=InstantLabeler)).run()
    assert alike(tmp_path) == {}
    assert rows(tmp_path, "SELECT count(phash), count(*) FROM images WHERE status = 'labelled'") == [(5, 5)]
    assert verify_run(Store(str(tmp_path)).run(record.run)).findings == []


def test_hashes_change_neither_the_run_nor_its_labels_and_stay_in_the_run(source: Path, tmp_path: Path) -> None:
    plain = label(source, tmp_path / "plain", skip_near_duplicates=False)
    hashed = label(source, tmp_path / "hashed", skip_near_duplicates=False, perceptual_hash=True, limit=1)
    assert hashed.run == plain.run
    label(source, tmp_path / "hashed", skip_near_duplicates=False)
    assert read_tables(tmp_path / "hashed", "phash") == read_tables(tmp_path / "plain", "phash")
    assert rows(tmp_path / "hashed", "SELECT count(*) FROM images WHERE phash IS NULL") == [(2,)]
    with pytest.raises(TagstreamError, match="made without perceptual hashes"):
        label(source, tmp_path / "plain", skip_near_duplicates=False, perceptual_hash=True)


def test_a_run_that_skips_is_one_of_its_own(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    (run,) = Store(str(undisturbed)).run_names()
    others = ({"skip_near_duplicates": False}, {"near_distance": 2})
    assert len({run, *(label(source, tmp_path, **settings).run for settings in others)}) == 3


def test_scores_of_names_are_not_shared(source: Path, tmp_path: Path) -> None:
    settings = LabelSettings(skip_near_duplicates=True, batch_size=4)
    lists = (name_list("animals", "cat", "dog"),)
    request = LabelRequest(
        source=str(source), store=str(tmp_path), model=DEMO_MODEL, settings=settings, labeler_class=InstantLabeler
    )
    with pytest.raises(TagstreamError, match="without --names first"):
        LabelJob(replace(request, lists=lists)).run()
    LabelJob(request).run()
    LabelJob(replace(request, lists=lists)).run()
    n_labelled = sum(map(len, SHARDS)) - 2
    assert rows(tmp_path, "SELECT count(DISTINCT image_id) FROM listed_labels") == [(n_labelled,)]


def test_without_the_library_no_run_is_made(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(TagstreamError, match="pip install"):
        label(source, tmp_path)
    assert not Store(str(tmp_path)).run_names()
