"""Jobs that label images of one content once: what they do, and that no interruption changes it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from model.folder import DEMO_MODEL
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.errors import TagstreamError
from pipeline.labelling import reusing
from pipeline.labelling.retry import RetryJob, RetryRequest
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.reuse import marking, order
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import read_batches_or_failure
from pipeline.sources.shard import Shard
from pipeline.store import run as run_module
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from pipeline.upkeep.verification import verify_run
from tests.fixtures.corpus import jpeg, tar_bytes
from tests.fixtures.interruption import Interruption
from tests.fixtures.labelling import label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.stored.queries import read_tables, rows

N_SHARDS, N_SAMPLES, N_CONTENTS = 6, 12, 30
REUSE_COLUMNS = ["reused_from", "reused_run"]
# Every labelled image of another's labels and the image itself, which may be of another run.
PAIRS = """
    SELECT copies.content_hash, own.content_hash, copies.shard >= own.shard
    FROM images AS copies JOIN images AS own
    ON own.image_id = copies.reused_from AND own.run = coalesce(copies.reused_run, copies.run)
    WHERE copies.reused_from IS NOT NULL
"""


def label(source: Path, store: Path, **settings: Any) -> Any:
    settings = {"reuse": True, "batch_size": 5, **settings}
    return label_with(DEMO_MODEL, source, store, labeler_class=InstantLabeler, **settings).record


def content(number: int) -> bytes:
    return b"no picture" if number % 10 == 9 else jpeg(number, 16, 12)


def drawn_numbers() -> list[list[int]]:
    """Which picture each sample of each shard is."""
    draw = random.Random(5)
    return [[draw.randrange(N_CONTENTS) for _ in range(N_SAMPLES)] for _ in range(N_SHARDS)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards in which images occur several times, in one and in several of them; some of them are damaged."""
    folder = tmp_path_factory.mktemp("source")
    for shard, numbers in enumerate(drawn_numbers()):
        members = [(f"{place:02}.jpg", content(number)) for place, number in enumerate(numbers)]
        captions = [(f"{place:02}.txt", f"caption {shard} {place}".encode()) for place in range(N_SAMPLES)]
        (folder / f"{shard}.tar").write_bytes(tar_bytes(sorted(members + captions)))
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one job made of the source."""
    store = tmp_path_factory.mktemp("undisturbed")
    label(source, store)
    return store


def test_images_of_one_content_are_labelled_once_and_the_tables_are_those_of_a_run_without_reuse(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    record = label(source, tmp_path, reuse=False)
    assert read_tables(tmp_path, *REUSE_COLUMNS) == read_tables(undisturbed, *REUSE_COLUMNS)
    # Which are labelled themselves: the first of their shard that are in no shard before the former one.
    expected = set()
    for shard, numbers in enumerate(drawn_numbers()):
        before = {number for former in drawn_numbers()[: max(0, shard - 1)] for number in former}
        first = {number: place for place, number in reversed(list(enumerate(numbers)))}
        expected |= {(str(shard), place) for number, place in first.items() if number not in before and number % 10 < 9}
    own = rows(undisturbed, """SELECT shard, "index" FROM images WHERE status = 'labelled' AND reused_from IS NULL""")
    assert set(own) == expected
    n_reused = record.n_labelled - len(own)
    (job,) = Store(str(undisturbed)).run(Store(str(undisturbed)).run_names()[0]).read_jobs()
    assert (job.n_reused, job.n_labelled, job.n_rejected) == (n_reused, record.n_labelled, record.n_rejected)
    assert all(one == other and is_later for one, other, is_later in rows(undisturbed, PAIRS))
    assert len(rows(undisturbed, PAIRS)) >= n_reused > 10


@pytest.mark.parametrize("is_compacted", [False, True])
def test_another_run_labels_nothing_that_the_first_has(
    source: Path, undisturbed: Path, tmp_path: Path, is_compacted: bool
) -> None:
    label(source, tmp_path, run="first", reuse=False)
    if is_compacted:
        compact_run(Store(str(tmp_path)).run("first"), read_vocabulary(None), lambda done, of: None)
    record = label(source, tmp_path, run="second")
    assert record.n_reused == record.n_labelled > 0
    assert {
        run
        for (run,) in rows(
            tmp_path, "SELECT DISTINCT reused_run FROM images WHERE reused_from IS NOT NULL AND status = 'labelled'"
        )
    } == {"first"}
    of_second = [
        table.filter(pa.compute.equal(table["run"], "second")) for table in read_tables(tmp_path, *REUSE_COLUMNS)
    ]
    expected = read_tables(undisturbed, *REUSE_COLUMNS)
    assert [table.drop_columns(["run"]) for table in of_second] == [table.drop_columns(["run"]) for table in expected]


def test_another_store_is_named_where_its_labels_are_reused_and_copies_name_the_image_that_was_labelled(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    record = label(source, tmp_path / "b", reuse_stores=(str(undisturbed),))
    assert record.n_reused == record.n_labelled
    first = f"{undisturbed}/runs/{record.run}"
    query = "SELECT DISTINCT reused_run FROM images WHERE status = 'labelled'"
    assert rows(tmp_path / "b", query) == [(first,)]
    label(source, tmp_path / "c", reuse_stores=(str(tmp_path / "b"),))
    assert rows(tmp_path / "c", query) == [(first,)]
    first_images = """SELECT content_hash, first(image_id ORDER BY shard, "index") FROM images
        WHERE status = 'labelled' AND reused_from IS NULL GROUP BY ALL ORDER BY ALL"""
    named = "SELECT DISTINCT content_hash, reused_from FROM images WHERE status = 'labelled' ORDER BY ALL"
    assert rows(tmp_path / "c", named) == rows(undisturbed, first_images)


def test_runs_of_other_settings_give_no_labels(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    record = label(source, tmp_path, top_k=4, reuse_stores=(str(undisturbed),))
    assert 0 < record.n_reused < record.n_labelled


@pytest.mark.parametrize(
    ("sizes", "n_actors", "expected"),
    [
        ([100] * 7, 1, [0, 0, 0, 0, 2, 2, 4]),
        ([100] * 7, 2, [0, 0, 0, 0, 0, 0, 0]),
        ([10] * 13, 1, [*[0] * 10, 5, 5, 5]),
        ([None] * 5, 1, [0, 0, 0, 0, 2]),
    ],
)
def test_on_ray_shards_look_at_the_groups_before_the_former_which_have_so_many_shards_and_bytes(
    sizes: list[int | None], n_actors: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reusing, "_SHARDS_AN_ACTOR", 2)
    monkeypatch.setattr(reusing, "_BYTES_AN_ACTOR", 50)
    pool = replace(plan_pool([Node(8, 0)], LabelSettings()), n_actors=n_actors)
    shards = [Shard(str(number), "", "tar", size) for number, size in enumerate(sizes)]
    assert reusing.look_back(shards, pool) == expected


def counted_steps(monkeypatch: pytest.MonkeyPatch, step: int) -> Interruption:
    """Interrupts a job in front of its n-th write."""
    interruption = Interruption(step)
    for module in (run_module, order):
        monkeypatch.setattr(module, "write_whole", interruption.around(module.write_whole))
    return interruption


@pytest.mark.parametrize(
    ("on_ray", "steps"),
    [
        (True, (5, 12)),
        pytest.param(True, range(2, 20), marks=pytest.mark.long),
        pytest.param(False, range(2, 20), marks=pytest.mark.long),
    ],
)
def test_after_an_interruption_at_any_write_the_tables_are_those_of_an_undisturbed_job(
    source: Path, tmp_path: Path, on_ray: bool, steps: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_ray:
        # The order that a job on Ray would make, of groups of two.
        monkeypatch.setattr(reusing, "_SHARDS_AN_ACTOR", 2)
        monkeypatch.setattr(reusing, "_BYTES_AN_ACTOR", 0)
        pool_of = reusing.look_back
        monkeypatch.setattr(reusing, "look_back", lambda shards, pool: pool_of(shards, replace(pool, in_process=False)))
    label(source, tmp_path / "undisturbed")
    expected = read_tables(tmp_path / "undisturbed")
    n_interrupted = 0
    for step in steps:
        store = tmp_path / str(step)
        with monkeypatch.context() as patch:
            counted_steps(patch, step)
            try:
                label(source, store)
            except KeyboardInterrupt:
                n_interrupted += 1
        label(source, store)
        assert read_tables(store) == expected, f"interrupted in front of write {step}"
    assert n_interrupted > len(steps) / 2


def test_a_shard_that_cannot_be_read_is_waited_for_by_nobody_and_labelled_later(
    source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(shard: Shard, *arguments: int) -> Iterator[pa.Table]:
        return read_batches_or_failure(replace(shard, url="gone.tar") if shard.name == "2" else shard, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(marking, "read_batches_or_failure", read)
        with pytest.raises(TagstreamError, match="read shard 2"):
            label(source, tmp_path)
    assert label(source, tmp_path).n_shards_committed == 1
    assert read_tables(tmp_path, *REUSE_COLUMNS) == read_tables(undisturbed, *REUSE_COLUMNS)


def test_after_a_commit_that_fails_no_shard_decides_without_that_one(
    source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = run_module.write_whole

    def fail(filesystem: Any, path: str, *arguments: Any, **options: Any) -> bool:
        if path.endswith("/2.parquet"):
            raise OSError(28, "No space left on device")
        return write(filesystem, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_whole", fail)
        with pytest.raises(TagstreamError, match="No space left"):
            label(source, tmp_path)
    # The next one does not look at it.
    assert {row[0] for row in rows(tmp_path, "SELECT DISTINCT shard FROM images")} <= {"0", "1", "3"}
    label(source, tmp_path)
    assert read_tables(tmp_path) == read_tables(undisturbed)


def test_a_run_with_reuse_is_verified_compacted_and_retried_as_any_other(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    # Some images are too large at first, and so are their copies.
    record = label(source, tmp_path, max_image_pixels=100)
    run = Store(str(tmp_path)).run(record.run)
    retry = RetryRequest(store=str(tmp_path), given={"max_image_pixels": 1000}, labeler_class=InstantLabeler)
    RetryJob(retry).run()
    assert record.n_labelled == 0
    assert read_tables(tmp_path, *REUSE_COLUMNS) == read_tables(undisturbed, *REUSE_COLUMNS)
    before = read_tables(tmp_path)
    assert verify_run(run).findings == []
    compact_run(run, read_vocabulary(None), lambda done, of: None)
    assert verify_run(run).findings == []
    assert read_tables(tmp_path) == before


def test_a_run_goes_on_with_reuse_without_being_asked_and_none_begins_it_later(source: Path, tmp_path: Path) -> None:
    label(source, tmp_path / "with", limit=1)
    assert label(source, tmp_path / "with", reuse=False).n_reused > 0
    label(source, tmp_path / "without", limit=1, reuse=False)
    with pytest.raises(TagstreamError, match="made without reuse"):
        label(source, tmp_path / "without")


def test_a_store_that_is_not_there_is_an_error_before_a_run_is_made(source: Path, tmp_path: Path) -> None:
    with pytest.raises(TagstreamError, match="no store at"):
        label(source, tmp_path / "store", reuse_stores=(str(tmp_path / "nowhere"),))
    assert Store(str(tmp_path / "store")).run_names() == []
    assert label(source, tmp_path / "store", reuse=False).n_labelled
