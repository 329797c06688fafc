"""Tables that are kept come back as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline.reuse.kept_tables import KeptTables

TABLES = [[pa.table({"a": [number] * number, "b": ["text"] * number}), pa.table({"c": [1.5]})] for number in range(20)]


def test_tables_come_back_as_they_were_from_any_thread() -> None:
    kept = KeptTables()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(kept.keep, range(20), TABLES))
        assert list(threads.map(kept.get, range(21))) == [*TABLES, None]


def test_what_finds_no_room_is_not_kept() -> None:
    kept = KeptTables(most_bytes=2_000)
    for number, tables in enumerate(TABLES):
        kept.keep(number, tables)
    n_kept = sum(kept.get(number) is not None for number in range(20))
    assert 0 < n_kept < 20
    assert kept.get(0) == TABLES[0]
