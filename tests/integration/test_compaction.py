"""Compaction beside jobs that label."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from tests.fixtures.corpus import shard_bytes, write_tars
from tests.integration.conftest import LabelFunction, read_table, rows

RUN = "run-1"
N_SHARDS, N_IMAGES = 24, 6


class Compactor(threading.Thread):
    """Compacts a run again and again until it is told to stop."""

    def __init__(self, store: Path) -> None:
        super().__init__(daemon=True)
        self._store = Store(str(store))
        self.is_told_to_stop = threading.Event()
        self.n_compacted = 0

    def run(self) -> None:
        while not self.is_told_to_stop.wait(0.25):
            if self._store.run(RUN).read_record() is not None:
                outcome = compact_run(self._store.run(RUN), read_vocabulary(None), lambda done, total: None)
                self.n_compacted += outcome.n_files_after < outcome.n_files_before


@pytest.mark.long
def test_a_job_beside_compactions_labels_every_image_once(label: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_IMAGES)
    label(tmp_path / "source", tmp_path / "undisturbed", run=RUN)
    compactor = Compactor(tmp_path / "store")
    compactor.start()
    outcome = label(tmp_path / "source", tmp_path / "store", run=RUN)
    compactor.is_told_to_stop.set()
    compactor.join()

    assert outcome.record.n_shards_committed == N_SHARDS
    assert compactor.n_compacted > 0
    for table in ("images", "labels"):
        assert read_table(tmp_path / "store", table).equals(read_table(tmp_path / "undisturbed", table))


def test_after_a_compaction_only_new_and_changed_shards_are_labelled(label: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 3, 4)
    label(tmp_path / "source", tmp_path / "store", run=RUN)
    compact_run(Store(str(tmp_path / "store")).run(RUN), read_vocabulary(None), lambda done, total: None)
    assert label(tmp_path / "source", tmp_path / "store", run=RUN).record.n_shards_committed == 0

    (tmp_path / "source" / "00001.tar").write_bytes(shard_bytes(9, 2))
    (tmp_path / "source" / "new.tar").write_bytes(shard_bytes(10, 5))
    outcome = label(tmp_path / "source", tmp_path / "store", run=RUN, changed="relabel")
    assert outcome.record.n_shards_committed == 2
    counted = "SELECT shard, count(*) FROM images GROUP BY shard ORDER BY shard"
    assert rows(tmp_path / "store", counted) == [("00000", 4), ("00001", 2), ("00002", 4), ("new", 5)]
    assert rows(tmp_path / "store", "SELECT sum(n_labels) = (SELECT count(*) FROM labels) FROM images") == [(True,)]
