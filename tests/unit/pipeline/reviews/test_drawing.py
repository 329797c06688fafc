"""Images that are drawn for review, and how likely each was to be drawn."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.catalog.connection import Connection
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.reviews.drawing import WAYS, Draw, draw_by_size, draw_images
from pipeline.store.store import Store
from schemas import DRAWN
from tests.fixtures.stored.tables import commit_judged, run_record

N_IMAGES = 400


def images(seed: int) -> list[dict[str, Any]]:
    """Images with one to four of a few words; the first alone has a word that no other has."""
    rng = random.Random(seed)
    made = [{"labels": rng.sample(["dog", "cat", "bus", "tree", "tie"], rng.randrange(1, 5))} for _ in range(N_IMAGES)]
    made[0]["labels"] = ["dog", "platypus"]
    return made


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    store = Store(str(tmp_path_factory.mktemp("drawing") / "store"))
    for run in ("run-1", "run-2"):
        store.create_run(run_record(run))
    commit_judged(store, "run-1", {"a": images(1)})
    # The other run labels the second half otherwise.
    commit_judged(store, "run-2", {"a": [*images(1)[: N_IMAGES // 2], *images(2)[N_IMAGES // 2 :]]})
    return open_store(store.url)


def draw(connection: Connection, **how: Any) -> pa.Table:
    against = "run-2" if how.get("by") == "disagreement" else ""
    return draw_images(connection, "run-1", Draw(**{"n": 80, "against": against, **how}))[1]


def probabilities(connection: Connection, n: int, seed: int = 0) -> dict[int, float]:
    """Of every image how likely it is to be drawn, found by drawing until each was drawn once."""
    found: dict[int, float] = {}
    for seed_ in range(seed, seed + 150):
        _, drawn = draw_by_size(connection, n, seed_)
        found |= dict(zip(*(drawn.column(name).to_pylist() for name in ("image_id", "probability")), strict=True))
        if len(found) == N_IMAGES:
            break
    return found


@pytest.mark.parametrize("by", WAYS)
def test_the_same_call_draws_the_same_images_and_another_seed_others(connection: Connection, by: str) -> None:
    first, again, other = (draw(connection, by=by, seed=seed) for seed in (1, 1, 2))
    assert first.schema == DRAWN
    assert first.equals(again)
    assert first.column("image_id") != other.column("image_id")


@pytest.mark.parametrize("by", WAYS)
def test_probabilities_add_up_to_the_number_asked_for_and_none_is_below_half_of_the_mean(
    connection: Connection, by: str
) -> None:
    draw(connection, by=by)
    found = probabilities(connection, 80)
    assert len(found) == N_IMAGES
    assert sum(found.values()) == pytest.approx(80)
    assert min(found.values()) >= 0.5 * 80 / N_IMAGES - 1e-9
    assert max(found.values()) <= 1


def test_images_with_a_rare_name_are_rather_drawn(connection: Connection) -> None:
    draw(connection, by="rare")
    ((platypus,),) = connection.sql("SELECT image_id FROM labels WHERE run = 'run-1' AND name = 'platypus'").fetchall()
    found = probabilities(connection, 80)
    # It has nearly all of the size; what is above one is dealt to the others.
    assert found[platypus] == 1
    assert sum(found.values()) == pytest.approx(80)


def test_images_on_which_another_run_disagrees_are_rather_drawn(connection: Connection) -> None:
    drawn = draw(connection, by="disagreement", n=100)
    disputed = [index >= N_IMAGES // 2 for index in drawn.column("index").to_pylist()]
    chances = drawn.column("probability").to_pylist()
    mean = {
        side: sum(c for c, d in zip(chances, disputed, strict=True) if d == side) / disputed.count(side)
        for side in (0, 1)
    }
    assert mean[1] > 1.8 * mean[0]


def test_asking_for_more_than_there_are_draws_all_with_certainty(connection: Connection) -> None:
    drawn = draw(connection, by="rare", n=N_IMAGES + 1)
    assert drawn.num_rows == N_IMAGES
    assert set(drawn.column("probability").to_pylist()) == {1.0}


def test_a_draw_that_cannot_be_done_says_why(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(TagstreamError, match="name it with --against"):
        draw(connection, by="disagreement", against="")
    with pytest.raises(TagstreamError, match="--against is run-1, the run that is drawn from; name another one"):
        draw(connection, by="disagreement", against="run-1")
    with pytest.raises(TagstreamError, match="images are drawn by random"):
        draw(connection, by="random", against="run-2")
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1", labelling={"top_k": 5, "ranking": "ppl"}))
    with pytest.raises(TagstreamError, match="ranked by ppl, whose scores are no probabilities"):
        draw(open_store(store.url), by="uncertain")
    with pytest.raises(TagstreamError, match="run-1 has no labelled image; there is nothing to draw"):
        draw(open_store(store.url), by="random")
