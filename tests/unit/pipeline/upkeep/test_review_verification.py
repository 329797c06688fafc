"""Damage to samples and reviews is found, and never deleted by a machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.store import Store
from pipeline.upkeep.verification import verify_run
from tests.fixtures.stored.damage import Damager, drop_column, put
from tests.fixtures.stored.reviewed import SAMPLE, add_reviews, add_sample
from tests.fixtures.stored.tables import run_record
from tests.fixtures.stored.verified import RUN, kinds, repair


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record(RUN))
    add_sample(store, RUN, "a", {0: 0.5, 1: 0.25})
    add_reviews(store, RUN, "a", [(0, "dog", "yes", "ada"), (1, "cat", "no", "ada")])
    return store


def files(store: Store) -> dict[str, Damager]:
    """What is damaged, by its table."""
    (review,) = Path(store.root).glob("reviews/*/*.parquet")
    return {"drawn": Damager(store, RUN, f"{SAMPLE}.parquet"), "reviews": Damager(store, RUN, review.name)}


Break = Callable[[Damager], object]
DAMAGE: dict[str, tuple[str, str, Break]] = {
    "a bit flipped among the drawn": ("drawn", "unreadable", lambda d: d.flip("drawn", 0.1)),
    "drawn images cut short": ("drawn", "unreadable", lambda d: d.write("drawn", d.content("drawn")[:-20])),
    "drawn images deleted": ("drawn", "missing", lambda d: d.delete("drawn")),
    "a column of the drawn missing": ("drawn", "schema", lambda d: d.edit("drawn", drop_column("key"))),
    "another sample": ("drawn", "metadata", lambda d: d.describe("drawn", "sample", "rare-1")),
    "another sample in a row": ("drawn", "metadata", lambda d: d.edit_rows("drawn", put(0, "sample", "rare-1"))),
    "a probability of 0": ("drawn", "rows", lambda d: d.edit_rows("drawn", put(0, "probability", 0.0))),
    "a probability of none": ("drawn", "rows", lambda d: d.edit_rows("drawn", put(0, "probability", math.nan))),
    "an image forgotten": ("drawn", "rows", lambda d: d.edit("drawn", lambda t: t.slice(1))),
    "an image twice": ("drawn", "rows", lambda d: d.edit("drawn", lambda t: t.take([1, 1]))),
    "a bit flipped among the reviews": ("reviews", "unreadable", lambda d: d.flip("reviews", 0.1)),
    "reviews are garbage": ("reviews", "unreadable", lambda d: d.write("reviews", b"PAR1" + bytes(99) + b"PAR1")),
    "another version": ("reviews", "metadata", lambda d: d.describe("reviews", "schema_version", "9")),
    "another verdict": ("reviews", "rows", lambda d: d.edit_rows("reviews", put(0, "verdict", "maybe"))),
    "another reviewer": ("reviews", "rows", lambda d: d.edit_rows("reviews", put(0, "reviewer", "bob"))),
    "a review forgotten": ("reviews", "rows", lambda d: d.edit("reviews", lambda t: t.slice(1))),
}  # fmt: skip


def test_a_good_store_is_whole(store: Store) -> None:
    assert verify_run(store.run(RUN)).findings == []


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_left_to_people(store: Store, what: str) -> None:
    table, kind, break_it = DAMAGE[what]
    damager = files(store)[table]
    break_it(damager)
    found = verify_run(store.run(RUN))
    assert (kinds(found), found.is_whole) == ({kind}, False)
    (finding,) = found.findings
    assert finding.path == f"{table}/run={RUN}/{damager.name}"
    assert "once it is deleted" in finding.mend
    assert repair(store) == []
    assert kinds(verify_run(store.run(RUN))) == {kind}


@pytest.mark.parametrize(
    ("values", "message"),
    [({"n_drawn": 3}, "its record says 3"), ({"run": "other"}, "of run other"), ({}, "is no record")],
)
def test_a_record_that_does_not_fit_is_found(store: Store, values: dict[str, Any], message: str) -> None:
    path = Path(store.layout.run(RUN).sample_record(SAMPLE))
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}) if values else "{")
    (finding,) = verify_run(store.run(RUN)).findings
    assert message in finding.message


def test_a_record_that_is_gone_is_found_and_drawn_again_it_is_whole(store: Store) -> None:
    Path(store.layout.run(RUN).sample_record(SAMPLE)).unlink()
    (finding,) = verify_run(store.run(RUN)).findings
    assert (finding.kind, finding.path) == ("missing", f"runs/{RUN}/samples/{SAMPLE}.json")
    add_sample(store, RUN, "a", {0: 0.5, 1: 0.25})
    assert verify_run(store.run(RUN)).findings == []


def test_what_is_half_written_is_a_leftover_and_what_is_none_of_ours_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(store.layout.run(RUN).all_reviews)
    (folder / ".x.parquet.1.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"mine")
    found = {Path(finding.path).name: finding.kind for finding in verify_run(store.run(RUN)).findings}
    assert found == {"notes.txt": "foreign"}
    monkeypatch.setattr("pipeline.upkeep.leftovers.LEFT_BEHIND_S", -1)
    assert repair(store) == ["deleted"]
    assert sorted(path.suffix for path in folder.iterdir()) == [".parquet", ".txt"]


def test_the_digest_tells_the_reviews_of_a_file_from_others_whatever_their_order(store: Store) -> None:
    files(store)["reviews"].edit("reviews", lambda table: table.take([1, 0]))
    assert verify_run(store.run(RUN)).findings == []
