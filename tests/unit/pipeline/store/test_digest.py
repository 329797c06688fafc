"""A file's digest within itself."""

from __future__ import annotations

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.store.digest import has_other_digest, reserve_digest, with_digest

LOOKS_LIKE_IT = "tagstream.digest\x18 " + "0" * 40


def file_of(texts: list[str]) -> bytes:
    """A file with its digest, and a shard named like the first text."""
    table = pa.table({"text": texts}).replace_schema_metadata({"tagstream.shard": texts[0]})
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="none") as writer:
        writer.write_table(table)
        mark = reserve_digest(writer)
    return with_digest(sink.getvalue(), mark)


def is_noticed(content: bytes) -> bool:
    """Whether it tells that bytes were changed, unless the file cannot be read or says nothing of itself at all."""
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        return not file.metadata.metadata or has_other_digest(file, content)
    except Exception:
        return True


@pytest.mark.parametrize("texts", [["a", "b"], ["tagstream.digest", "0" * 32], [LOOKS_LIKE_IT, "x"]])
def test_it_is_that_of_the_file_with_zeros_in_its_place(texts: list[str]) -> None:
    content = file_of(texts)
    metadata = pq.read_metadata(io.BytesIO(content)).metadata
    digest = metadata[b"tagstream.digest"]
    assert content.count(digest) == 1
    expected = hashlib.blake2b(content.replace(digest, b"0" * 32), digest_size=16).hexdigest()
    assert (digest.decode(), metadata[b"tagstream.shard"].decode()) == (expected, texts[0])
    assert not is_noticed(content)
    assert pq.read_table(io.BytesIO(content))["text"].to_pylist() == texts


def test_the_same_rows_are_the_same_file() -> None:
    assert file_of(["a", "b"]) == file_of(["a", "b"])


def test_any_changed_byte_is_noticed_but_in_the_digests_own_key() -> None:
    content = file_of(["a", "b"])
    unnoticed = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        if not is_noticed(bytes(changed)):
            unnoticed.append(place)
    key = b"tagstream.digest"
    start = content.rindex(key)
    assert set(unnoticed) == set(range(start, start + len(key)))


def test_a_file_without_a_digest_says_nothing() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), sink)
    assert not has_other_digest(pq.ParquetFile(sink), sink.getvalue())
