"""Compaction beside jobs that label."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.run import Run
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run
from tests.fixtures.corpus import shard_bytes, write_tars
from tests.fixtures.labelling import LabelFunction
from tests.fixtures.stored.queries import read_table, rows

RUN = "run-1"
N_SHARDS, N_IMAGES = 24, 6


class Compactor(threading.Thread):
    """Compacts a run again and again until it is told to stop."""

    def __init__(self, store: Path) -> None:
        super().__init__(daemon=True)
        self._store = Store(str(store))
        self.is_told_to_stop = threading.Event()
        self.has_compacted = threading.Event()

    def run(self) -> None:
        while not self.is_told_to_stop.wait(0.05):
            if self._store.run(RUN).read_record() is not None:
                outcome = compact_run(self._store.run(RUN), read_vocabulary(None), lambda done, total: None)
                if outcome.n_files_after < outcome.n_files_before:
                    self.has_compacted.set()


@pytest.mark.long
def test_a_job_beside_compactions_labels_every_image_once(
    label_instantly: LabelFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_IMAGES)
    label_instantly(tmp_path / "source", tmp_path / "undisturbed", run=RUN)
    compactor = Compactor(tmp_path / "store")
    commit, n_committed = Run.commit, itertools.count(1)

    def commit_in_company(*arguments: Any, **options: Any) -> bool:
        # Halfway the job waits for a compaction, which a fast one would leave behind.
        if next(n_committed) == N_SHARDS // 2:
            assert compactor.has_compacted.wait(120)
        return commit(*arguments, **options)

    monkeypatch.setattr(Run, "commit", commit_in_company)
    compactor.start()
    outcome = label_instantly(tmp_path / "source", tmp_path / "store", run=RUN)
    compactor.is_told_to_stop.set()
    compactor.join()

    assert outcome.record.n_shards_committed == N_SHARDS
    assert compactor.has_compacted.is_set()
    for table in ("images", "labels"):
        assert read_table(tmp_path / "store", table).equals(read_table(tmp_path / "undisturbed", table))


def test_after_a_compaction_only_new_and_changed_shards_are_labelled(
    label_instantly: LabelFunction, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", 3, 4)
    label_instantly(tmp_path / "source", tmp_path / "store", run=RUN)
    compact_run(Store(str(tmp_path / "store")).run(RUN), read_vocabulary(None), lambda done, total: None)
    assert label_instantly(tmp_path / "source", tmp_path / "store", run=RUN).record.n_shards_committed == 0

    (tmp_path / "source" / "00001.tar").write_bytes(shard_bytes(9, 2))
    (tmp_path / "source" / "new.tar").write_bytes(shard_bytes(10, 5))
    outcome = label_instantly(tmp_path / "source", tmp_path / "store", run=RUN, changed="relabel")
    assert outcome.record.n_shards_committed == 2
    counted = "SELECT shard, count(*) FROM images GROUP BY shard ORDER BY shard"
    assert rows(tmp_path / "store", counted) == [("00000", 4), ("00001", 2), ("00002", 4), ("new", 5)]
    assert rows(tmp_path / "store", "SELECT sum(n_labels) = (SELECT count(*) FROM labels) FROM images") == [(True,)]
