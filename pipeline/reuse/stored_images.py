"""Images whose labels a run may reuse, in the stores that hold them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import StorageError, StoreError
from pipeline.reuse.kept_tables import KeptTables
from pipeline.reuse.known_images import ImageIndex
from pipeline.reuse.order import Place, ReuseOrder
from pipeline.store.ownership import SUFFIX, CommittedShards, is_compacted, shard_stem
from pipeline.store.parquet_file import read_file, reading
from pipeline.store.run import Run
from pipeline.store.store import Store
from schemas import LABELLED, READABLE_VERSIONS

_N_READERS = 16
_INDEXED = ("shard", "index", "status", "content_hash")
# No shard's name.
_NONE = ""
Rows = Sequence[pa.Table]
"""Images and labels."""


@dataclass(slots=True)
class _HoldingRun:
    run: Run
    committed: CommittedShards


class StoredImages:
    """The images of the shards of an order. Several threads may read.

    Args:
        own: the run that reuses.
    """

    def __init__(self, own: Run, order: ReuseOrder) -> None:
        self._own, self._order = own, order
        self._runs: dict[tuple[str | None, str], _HoldingRun] = {}
        self._one_of_many = threading.Lock()
        self._kept = KeptTables()
        self._lock = threading.Lock()

    def add_to(self, index: ImageIndex, most: int, without: Set[int] = frozenset()) -> None:
        """Adds what is committed and labelled of the first shards. Opens every file of the runs that have them.

        Args:
            most: number of these shards.
            without: numbers of shards to leave out.
        """
        for store, run in dict.fromkeys((place.store, place.run) for place in self._order.places[:most]):
            holding = self._holding(store, run)
            files = list(holding.committed.files)
            with ThreadPoolExecutor(_N_READERS) as pool:
                # No more files' hashes are in memory than so many.
                for first in range(0, len(files), 4 * _N_READERS):
                    read = partial(_read_indexed, holding)
                    for table in pool.map(read, files[first : first + 4 * _N_READERS]):
                        self._add_table(index, (store, run), table, most, without)

    def _add_table(
        self, index: ImageIndex, of: tuple[str | None, str], rows: pa.Table, most: int, without: Set[int]
    ) -> None:
        shards = rows["shard"].combine_chunks().dictionary_encode()
        names = shards.dictionary.to_pylist()
        places = [Place(*of, shard_stem(name)) for name in names]
        numbers = np.array([self._order.numbers.get(place, most) for place in places], np.int64)
        numbers[np.isin(numbers, list(without))] = most
        of_row = numbers[shards.indices.to_numpy()] if names else np.empty(0, np.int64)
        is_wanted = pc.and_(pc.equal(rows["status"], LABELLED), pc.is_valid(rows["content_hash"]))
        mask = is_wanted.to_numpy() & (of_row < most)
        hashes = rows["content_hash"].combine_chunks().filter(pa.array(mask))
        index.add(hashes, of_row[mask], rows["index"].to_numpy()[mask])

    def read(self, number: int, indexes: Sequence[int]) -> Rows:
        """Rows of images and of labels of some images of a shard.

        Raises StoreError where they are not there any more.
        """
        rows = self._kept.get(number) or self._read_shard(number)
        wanted = pa.array(sorted(set(indexes)), pa.int32())
        images, labels = (table.filter(pc.is_in(table["index"], wanted)) for table in rows)
        return images, labels

    def name_run(self, number: int, said: str | None) -> str | None:
        """What a row says of the run of a shard: None for this run, another run's name, or its path in another store.

        Args:
            said: what a row of the shard says itself: where its labels are copied from.
        """
        store, run, _ = self._order.places[number]
        if said is not None and "/" in said:
            return said
        named = said or run
        if store is not None:
            return f"{store}/runs/{named}"
        return None if named == self._own.name else named

    def _read_shard(self, number: int) -> Rows:
        store, run, stem = self._order.places[number]
        for is_again in (False, True):
            holding = self._holding(store, run, anew=is_again)
            commit = holding.committed.by_stem.get(stem)
            # Of shards that were committed since the run was listed.
            file = commit.file if commit else f"{stem}{SUFFIX}"
            try:
                if is_compacted(file):
                    return self._read_of_many(holding, file, (store, run), number)
                rows = _read_whole(holding.run, file)
            except StorageError as error:
                # Compacted meanwhile, or labelled again: its rows are in another file.
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                continue
            self._kept.keep(number, rows)
            return rows
        raise StoreError(
            f"shard {stem} of run {run} is gone from {store or self._own.store_url}, and its labels were to be reused; "
            "run the command again"
        )

    def _read_of_many(self, holding: _HoldingRun, file: str, of: tuple[str | None, str], number: int) -> Rows:
        """Rows of a shard of a compacted file. Its labels are in no order of shards: those of all shards are kept."""
        with self._one_of_many:
            if (kept := self._kept.get(number)) is not None:
                return kept
            parts = [_split(table) for table in _read_whole(holding.run, file)]
            found: Rows = ()
            for name in parts[0]:
                if not holding.committed.is_owner(file, name):
                    continue
                rows = [part.get(name, part[_NONE]) for part in parts]
                at = self._order.numbers.get(Place(*of, shard_stem(name)))
                if at == number:
                    found = rows
                if at is not None:
                    self._kept.keep(at, rows)
        return found

    def _holding(self, store: str | None, run: str, *, anew: bool = False) -> _HoldingRun:
        with self._lock:
            holding = self._runs.get((store, run))
        if holding is None or anew:
            of_store = Store(self._own.store_url if store is None else store).run(run)
            holding = _HoldingRun(of_store, of_store.committed())
            with self._lock:
                self._runs[store, run] = holding
        return holding


def find_others(own: Run, fingerprint: str, stores: Sequence[str]) -> Iterator[Place]:
    """Shards that other runs of the same fingerprint have committed: of the run's own store, then of others.

    Args:
        stores: absolute paths or URLs.
    """
    for url in (None, *stores):
        store = Store(own.store_url if url is None else url)
        for name in store.run_names():
            run = store.run(name)
            record = None if url is None and name == own.name else run.read_record()
            if record is None or record.fingerprint != fingerprint or record.schema_version not in READABLE_VERSIONS:
                continue
            yield from (Place(url, name, stem) for stem in sorted(run.committed().by_stem))


def _read_whole(run: Run, file: str) -> Rows:
    """Images and labels of a file, whose digests are checked: damage must not be committed anew."""
    paths = (run.layout.images(file), run.layout.labels(file))
    return [read_file(run.filesystem, path)[0].replace_schema_metadata() for path in paths]


def _split(rows: pa.Table) -> dict[str, pa.Table]:
    """Rows by their shard; no rows under `_NONE`."""
    shards = rows["shard"].combine_chunks().dictionary_encode()
    codes = shards.indices.to_numpy()
    in_order = rows.take(pa.array(codes.argsort(kind="stable"))).combine_chunks()
    ends = np.cumsum(np.bincount(codes, minlength=len(shards.dictionary)))
    starts = [0, *ends[:-1].tolist()]
    names = shards.dictionary.to_pylist()
    parts = {name: in_order.slice(at, end - at) for name, at, end in zip(names, starts, ends.tolist(), strict=True)}
    return {**parts, _NONE: rows.slice(0, 0)}


def _read_indexed(holding: _HoldingRun, file: str) -> pa.Table:
    """What the index needs of the rows that a file of images owns."""
    path = holding.run.layout.images(file)
    lost = holding.committed.superseded.get(file)
    with reading(path), holding.run.filesystem.open(path, "rb") as opened:
        rows = pq.read_table(opened, columns=list(_INDEXED), use_threads=False)
    return rows.filter(~pc.field("shard").isin(lost)) if lost else rows
