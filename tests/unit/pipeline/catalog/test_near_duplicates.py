"""The views of images that occur more than once, and of those that look alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from pipeline.catalog.connection import Connection, read_sql
from pipeline.settings.labelling import NEAR_DISTANCE

N_IMAGES, N_SHARDS = 260, 5
MADE = ("CREATE MACRO near_duplicates", "CREATE VIEW near_duplicates", "CREATE VIEW duplicates")
FOUND = "SELECT run, shard, index, first_shard, first_index, distance FROM near_duplicates(max_distance := {})"


def drawn_images() -> list[dict[str, Any]]:
    """Images of two runs, with hashes of which many are alike, and some without."""
    draw = random.Random(7)
    hashes, rows = [draw.getrandbits(64) for _ in range(20)], []
    for number in range(N_IMAGES):
        bits = draw.choice(hashes)
        for place in draw.sample(range(64), draw.randrange(10)):
            bits ^= 1 << place
        hashes.append(bits)
        shard, index = f"s{draw.randrange(N_SHARDS)}", number
        run, phash = draw.choice(["a", "b"]), bits - (1 << 64) if bits >> 63 else bits
        content = None if number % 50 == 49 else f"{draw.randrange(150):032x}"
        rows.append({"run": run, "shard": shard, "index": index, "key": str(number), "image_id": number})
        rows[-1] |= {"phash": None if number % 20 == 19 else phash, "content_hash": content}
    return rows


IMAGES = drawn_images()


def statements(name: str) -> Iterator[str]:
    for statement in read_sql(name).split(";\n"):
        if any(made in statement for made in MADE):
            yield statement


def connect(change: tuple[str, str] = ("", "")) -> Connection:
    """A connection with the views on `IMAGES`, whose SQL was changed."""
    connection = duckdb.connect()
    types = {"index": pa.int32(), "image_id": pa.int64(), "phash": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in IMAGES[0]])
    connection.register("images", pa.Table.from_pylist(IMAGES, schema=schema))
    made = [statement for name in ("derived", "macros") for statement in statements(name)]
    assert len(made) == len(MADE)
    for statement in made:
        connection.execute(statement.replace(*change) if change[0] else statement)
    return connection


def find_slowly(most: int) -> set[tuple[Any, ...]]:
    """Each image beside the nearest before it, by comparing all with all."""
    found = set()
    for row in IMAGES:
        before = [
            ((row["phash"] ^ other["phash"]) & (1 << 64) - 1, other)
            for other in IMAGES
            if row["phash"] is not None
            and other["phash"] is not None
            and other["run"] == row["run"]
            and (other["shard"], other["index"]) < (row["shard"], row["index"])
        ]
        ordered = sorted((bits.bit_count(), other["shard"], other["index"]) for bits, other in before)
        if ordered and ordered[0][0] <= most:
            distance, *first = ordered[0]
            found.add((row["run"], row["shard"], row["index"], *first, distance))
    return found


@pytest.mark.parametrize("most", [0, 3, 4, 6, 7, 9])
def test_each_image_stands_beside_the_nearest_before_it_at_most_so_far_away(most: int) -> None:
    found = connect().execute(FOUND.format(most)).fetchall()
    assert len(found) == len(set(found)) > 10
    assert set(found) == find_slowly(most)


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (("max_distance // n_parts", "0"), 7),
        (("max_distance // n_parts", "0"), 9),
        (("(3, 2, 43, 21)", "(5, 2, 43, 21)"), 7),
    ],
)
def test_a_search_that_compares_fewer_hashes_would_be_noticed(change: tuple[str, str], most: int) -> None:
    assert any(change[0] in statement for statement in statements("macros"))
    assert set(connect(change).execute(FOUND.format(most)).fetchall()) != find_slowly(most)


def test_the_view_has_the_distance_that_images_are_skipped_at() -> None:
    connection = connect()
    view = set(connection.execute("FROM near_duplicates").fetchall())
    assert view == set(connection.execute(f"FROM near_duplicates({NEAR_DISTANCE})").fetchall()) != set()


def test_duplicates_stand_beside_the_first_image_of_their_content() -> None:
    expected = set()
    for row in IMAGES:
        alike = [
            (other["shard"], other["index"])
            for other in IMAGES
            if (other["run"], other["content_hash"]) == (row["run"], row["content_hash"]) and row["content_hash"]
        ]
        if alike and min(alike) != (row["shard"], row["index"]):
            expected.add((row["run"], row["shard"], row["index"], *min(alike), len(alike)))
    columns = "run, shard, index, first_shard, first_index, copies"
    found = connect().execute(f"SELECT {columns} FROM duplicates").fetchall()
    assert len(found) == len(expected) > 20
    assert set(found) == expected
