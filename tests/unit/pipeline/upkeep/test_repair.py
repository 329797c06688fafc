"""A repair takes damage out, and neither loses what nobody could label anew nor uncovers former rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.views import open_store
from pipeline.store.ownership import file_name
from pipeline.store.store import Store
from pipeline.upkeep import repair as repair_module
from pipeline.upkeep.repair import repair_run
from pipeline.upkeep.verification import verify_run
from tests.fixtures.corpus import jpeg, write_tars
from tests.fixtures.interruption import Interruption
from tests.fixtures.stored.damage import Damager
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.verified import FOUND, RUN, all_rows, compact, kinds, relabelled, repair


class TestSource:
    """Nothing is deleted that nobody could label anew."""

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    def test_damage_of_a_shard_that_is_no_longer_at_the_source_is_left(self, tmp_path: Path, kind: str) -> None:
        source, store = tmp_path / "source", Store(str(tmp_path / "store"))
        write_tars(source, 2, 4)
        label_source(store, RUN, str(source), FOUND)
        if kind == "compacted":
            compact(store)
        name = sorted(store.run(RUN).list_images())[0]
        Damager(store, RUN, name).flip("labels", 0.02)
        (source / "00000.tar").unlink()
        (left,) = repair_run(store.run(RUN), verify_run(store.run(RUN)))
        assert (left.what, left.is_mended) == ("left", False)
        assert "1 of its shards are no longer at the source, the first is 00000" in left.path
        assert not verify_run(store.run(RUN)).is_whole

    def test_damage_is_left_where_the_source_cannot_be_looked_at(self, tmp_path: Path) -> None:
        write_tars(tmp_path / "source", 2, 4)
        store = Store(str(tmp_path / "store"))
        label_source(store, RUN, str(tmp_path / "source"), FOUND)
        Damager(store, RUN, "00000.parquet").flip("labels", 0.02)
        shutil.rmtree(tmp_path / "source")
        assert repair(store) == ["left"]
        assert len(store.run(RUN).committed()) == 2

    @pytest.mark.parametrize("damaged", ["bucket-0000-of-0001", "bucket-0000-of-0001+1"])
    def test_damage_of_a_generation_of_a_folder_is_mended_and_no_image_is_there_twice(
        self, tmp_path: Path, damaged: str
    ) -> None:
        store, photos = labelled_thrice(tmp_path)
        before = all_rows(store)
        Damager(store, RUN, f"{damaged}.parquet").flip("images", 0.02)
        assert repair(store) == ["taken out"]
        assert len(all_rows(store)["images"]) == 2
        label_source(store, RUN, str(photos), FOUND)
        assert all_rows(store) == before

    def test_of_a_folder_whose_generations_are_all_damaged_the_next_job_makes_one(self, tmp_path: Path) -> None:
        store, photos = labelled_thrice(tmp_path)
        before = labels_by_key(store)
        assert len(before) == 3 * len(FOUND)
        for name in list(store.run(RUN).list_images()):
            Damager(store, RUN, name).flip("images", 0.02)
        assert repair(store) == ["taken out"] * 3
        assert store.run(RUN).committed().by_stem == {}
        label_source(store, RUN, str(photos), FOUND)
        assert list(store.run(RUN).committed().by_stem) == ["bucket-0000-of-0001"]
        assert labels_by_key(store) == before


def labelled_thrice(tmp_path: Path) -> tuple[Store, Path]:
    """A store of a folder of images that grew by one in front of each of three jobs."""
    store, photos = Store(str(tmp_path / "store")), tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(jpeg(number))
        label_source(store, RUN, str(photos), FOUND)
    return store, photos


def labels_by_key(store: Store) -> list[tuple[Any, ...]]:
    """Labels by the images' keys and content, whichever shards they are in."""
    query = "SELECT key, content_hash, rank, label, score FROM images JOIN stored_labels USING (image_id) ORDER BY ALL"
    rows: list[tuple[Any, ...]] = open_store(store.url).execute(query).fetchall()
    return rows


class TestFormerRows:
    """A repair never uncovers rows of a shard's former version."""

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    def test_they_do_not_count_after_their_successor_was_taken_out(self, tmp_path: Path, kind: str) -> None:
        store, source = relabelled(tmp_path, kind)
        before = all_rows(store)
        damage = Damager(store, RUN, file_name("00001", 1))
        damage.flip("labels", 0.02)
        assert "unreadable" in kinds(verify_run(store.run(RUN)))
        repair(store)
        assert "00001" not in store.run(RUN).committed()
        assert {row[1] for row in all_rows(store)["images"]} == {"00000", "00002"}
        label_source(store, RUN, str(source), FOUND)
        assert verify_run(store.run(RUN)).findings == []
        assert all_rows(store) == before

    @pytest.mark.parametrize("kind", ["plain", "compacted"])
    @pytest.mark.parametrize("step", range(1, 8))
    def test_killed_at_any_step_a_repair_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: int
    ) -> None:
        store, source = relabelled(tmp_path, kind)
        before = all_rows(store)
        Damager(store, RUN, file_name("00001", 1)).write("images", b"PAR1")
        Damager(store, RUN, "00000.parquet").write("labels", b"") if kind == "plain" else None
        with monkeypatch.context() as patched:
            _die_at(patched, store, step)
            try:
                repair(store)
            except KeyboardInterrupt:
                pass
            else:
                assert step > 4
        former = store.run(RUN).committed().by_stem.get("00001")
        assert former is None or former.generation == 1
        repair(store)
        label_source(store, RUN, str(source), FOUND)
        assert verify_run(store.run(RUN)).is_whole
        assert all_rows(store) == before


def _die_at(monkeypatch: pytest.MonkeyPatch, store: Store, step: int) -> None:
    """Interrupts before the n-th file is deleted or rewritten."""
    interruption = Interruption(step)
    rewrite = interruption.around(repair_module.rewrite_without_superseded)
    monkeypatch.setattr(repair_module, "rewrite_without_superseded", rewrite)
    monkeypatch.setattr(store.filesystem, "rm_file", interruption.around(store.filesystem.rm_file))
