"""Labelling jobs on storages that fail: what is committed stays, and a rerun completes it as if nothing had been."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.errors import StorageError
from pipeline.store.store import Store
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import LabelFunction, label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.servers.faulty_s3 import Fault, FaultyS3
from tests.fixtures.stored.queries import read_table, rows

N_SHARDS, N_SAMPLES = 6, 3
# A worker waits seconds before its fifth attempt, the last; this process hardly at all. The rest is for busy machines.
_GIVEN_UP_AFTER_S = 240


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "source"
    write_tars(folder, N_SHARDS, N_SAMPLES)
    return folder


@pytest.fixture(scope="module")
def s3_corpus(corpus: Path, s3: str) -> str:
    """URL of the corpus on S3; its name is always the same, so that the faults that are drawn for it are, too."""
    url = f"{s3}/faults/source"
    filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    filesystem.put(f"{corpus}/", f"{path}/", recursive=True)
    return url


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, corpus: Path) -> Path:
    """A local store of the corpus, made without Ray."""
    store = corpus.with_name("undisturbed")
    label_with(tiny_model, corpus, store, labeler_class=InstantLabeler)
    return store


def assert_same_tables(store: Any, undisturbed: Path) -> None:
    for table in ("images", "labels"):
        assert read_table(store, table).equals(read_table(undisturbed, table))


@pytest.mark.long
def test_a_job_on_an_s3_that_fails_one_time_in_seven_gives_the_tables_of_an_undisturbed_one(
    shared_ray: str, label_instantly: LabelFunction, s3_corpus: str, undisturbed: Path, faulty_s3: FaultyS3
) -> None:
    store = s3_corpus.replace("/source", "/store-at-random")
    # The two that are worst, surely; the rest as it comes.
    faulty_s3.inject(Fault.CUT_BODY, method="GET", part="/source/0000", times=2)
    faulty_s3.inject(Fault.CUT_AFTER, method="PUT", part="/images/", times=2)
    faulty_s3.inject_at_random(seed=11, rate=0.15, part="faults/")
    outcome = label_instantly(s3_corpus, store, address=shared_ray)
    injected = faulty_s3.injected.copy()
    faulty_s3.calm()

    assert sum(injected.values()) >= 10, injected
    assert min(injected[Fault.CUT_BODY], injected[Fault.CUT_AFTER]) >= 2, injected
    assert (outcome.record.n_shards_committed, outcome.record.n_rejected) == (N_SHARDS, 0)
    assert_same_tables(store, undisturbed)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        pytest.param(
            {"method": "PUT", "part": "/images/", "skip": 3},
            r"cannot commit shard \d+ to the store s3://.*",
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"method": "GET", "part": "/00005.tar"},
            r"cannot read shard 00005 \(s3://.*/00005\.tar\): .*",
            marks=pytest.mark.long,
        ),
    ],
    ids=["commit", "read"],
)
def test_a_job_on_an_s3_that_fails_for_good_says_so_and_its_rerun_goes_on(
    shared_ray: str,
    label_instantly: LabelFunction,
    s3_corpus: str,
    undisturbed: Path,
    faulty_s3: FaultyS3,
    where: dict[str, Any],
    sentence: str,
) -> None:
    store, started = s3_corpus.replace("/source", f"/store-{where['method']}"), time.monotonic()
    faulty_s3.inject(Fault.INTERNAL_ERROR, times=None, **where)
    with pytest.raises(StorageError) as caught:
        label_instantly(s3_corpus, store, address=shared_ray)
    seconds = time.monotonic() - started
    faulty_s3.calm()
    n_done = len(Store(store).run(Store(store).run_names()[0]).committed())
    second = label_instantly(s3_corpus, store)

    end = r"given up after 5 attempts\); what is committed stays, and the same command goes on from there"
    caught.match(f"^{sentence}{end}$")
    assert seconds < _GIVEN_UP_AFTER_S
    assert n_done < N_SHARDS
    assert second.record.n_shards_done_before == n_done
    assert rows(store, "SELECT outcome, n_rejected FROM jobs ORDER BY started") == [("failed", 0), ("done", 0)]
    assert_same_tables(store, undisturbed)


@pytest.mark.long
def test_a_job_on_a_full_disk_says_so_and_its_rerun_goes_on(
    label_instantly: LabelFunction, corpus: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    link = Path.hardlink_to

    def fill(self: Path, target: Path) -> None:
        written.append(self)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        link(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "hardlink_to", fill)
        with pytest.raises(
            StorageError, match=r"^cannot commit shard \d+ .*No space left on device; what is committed"
        ):
            label_instantly(corpus, tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.tmp"))
    second = label_instantly(corpus, tmp_path / "store")

    assert 0 < second.record.n_shards_done_before < N_SHARDS
    assert rows(tmp_path / "store", "SELECT outcome FROM jobs ORDER BY started") == [("failed",), ("done",)]
    assert_same_tables(tmp_path / "store", undisturbed)
