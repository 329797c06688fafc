"""The Parquet files of a shard: what they say of themselves, and what is told of a damaged one."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StoreError
from pipeline.store.ownership import ShardVersion, file_name
from pipeline.store.parquet_file import describe_file, encode_file, read_file, read_metadata
from pipeline.store.store import Store
from schemas import IMAGES, LABELS
from tests.fixtures.stored.tables import commit_shard

RUN = "run-1"


class TestOfAShard:
    """The two files that a commit writes."""

    def test_both_files_say_what_they_were_made_from(self, store: Store) -> None:
        commit_shard(store, RUN, "a/0", size=7, etag="v1", fingerprint="f00")
        commits = set()
        for path in (store.layout.run(RUN).images(file_name("a/0")), store.layout.run(RUN).labels(file_name("a/0"))):
            stored = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
            commits.add(stored.pop("tagstream.commit"))
            assert re.fullmatch(b"[0-9a-f]{32}", pq.read_metadata(path).metadata[b"tagstream.digest"])
            assert stored == {
                "tagstream.schema_version": "2",
                "tagstream.shard": "a/0",
                "tagstream.fingerprint": "f00",
                "tagstream.source_size": "7",
                "tagstream.source_etag": "v1",
            }
        assert len(commits) == 1

    @pytest.mark.parametrize(("size", "etag"), [(7, "v1"), (None, None), (0, None)])
    def test_the_version_of_the_source_is_read_back(self, store: Store, size: int | None, etag: str | None) -> None:
        commit_shard(store, RUN, "0", size=size, etag=etag)
        assert store.run(RUN).read_version(store.run(RUN).committed()["0"]) == ShardVersion(size, etag)

    def test_a_shard_without_labels_has_a_file_of_none(self, store: Store) -> None:
        commit_shard(store, RUN, "0", n_rows=2, n_labels=0)
        assert pq.read_table(store.layout.run(RUN).labels(file_name("0"))).num_rows == 0

    def test_the_files_have_the_schemas_of_the_tables(self, store: Store) -> None:
        commit_shard(store, RUN, "0")
        assert pq.read_schema(store.layout.run(RUN).images(file_name("0"))).equals(IMAGES, check_metadata=False)
        assert pq.read_schema(store.layout.run(RUN).labels(file_name("0"))).equals(LABELS, check_metadata=False)

    @pytest.mark.parametrize("content", [b"", b"PAR1 and nothing else"])
    def test_a_damaged_commit_is_named_in_the_error(self, store: Store, content: bytes) -> None:
        commit_shard(store, RUN, "0")
        Path(store.layout.run(RUN).images(file_name("0"))).write_bytes(content)
        for read in (
            lambda: store.run(RUN).read_keys("0", store.run(RUN).committed()["0"]),
            lambda: store.run(RUN).read_version(store.run(RUN).committed()["0"]),
        ):
            with pytest.raises(StoreError, match=r"images/run=run-1/0\.parquet is damaged: .* delete it"):
                read()


class TestAnyFile:
    """A file of any rows, written, described and read."""

    TABLE = pa.table({"shard": ["a", "a", "b"], "index": [0, 1, 0]}).replace_schema_metadata({"column": "order"})
    PATH = "/images/0.parquet"

    def write(self, store: Store, content: bytes | None = None) -> str:
        """Writes a file of these rows, or other content, below the store."""
        described = describe_file({"shard": "größe", "n": 3, "etag": None})
        path = f"{store.root}{self.PATH}"
        store.filesystem.makedirs(f"{store.root}/images", exist_ok=True)
        store.filesystem.pipe_file(path, content or encode_file(self.TABLE, described))
        return path

    def test_rows_and_description_are_read_as_they_were_written(self, any_store: Store) -> None:
        table, described = read_file(any_store.filesystem, self.write(any_store))
        assert table.equals(self.TABLE)
        assert described == {"schema_version": "2", "shard": "größe", "n": "3", "etag": ""}

    def test_the_description_is_read_without_the_rows(self, any_store: Store) -> None:
        path = self.write(any_store)
        assert read_metadata(any_store.filesystem, path) == read_file(any_store.filesystem, path)[1]

    def test_the_metadata_that_the_rows_had_stays(self, store: Store) -> None:
        assert pq.read_schema(self.write(store)).metadata[b"column"] == b"order"

    def test_a_column_stays_a_dictionary_where_that_is_asked_for(self, store: Store) -> None:
        table, _ = read_file(store.filesystem, self.write(store), ["shard"])
        assert pa.types.is_dictionary(table.schema.field("shard").type)
        assert table.column("shard").to_pylist() == ["a", "a", "b"]

    def test_other_bytes_than_were_written_are_damage_though_they_can_be_read(self, store: Store) -> None:
        content = bytearray(encode_file(pa.table({"x": ["right"]}), {}))
        content[content.index(b"right")] ^= 1
        path = self.write(store, bytes(content))
        assert pq.read_table(path).num_rows == 1
        with pytest.raises(StoreError, match=r"images/0\.parquet is damaged: its digest is that of other bytes"):
            read_file(store.filesystem, path)

    def test_damage_at_any_byte_is_no_failure_of_the_storage(self, store: Store) -> None:
        content = encode_file(self.TABLE, {})
        kinds = set()
        for place in range(4, len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 1
            path = self.write(store, bytes(damaged))
            try:
                read_file(store.filesystem, path)
            except StoreError as error:
                kinds.add(type(error))
        assert kinds == {StoreError}

    def test_a_file_that_is_not_there_is_named(self, any_store: Store) -> None:
        for read in (read_file, read_metadata):
            with pytest.raises(StoreError, match=r"cannot read .*images/0\.parquet"):
                read(any_store.filesystem, f"{any_store.root}{self.PATH}")
