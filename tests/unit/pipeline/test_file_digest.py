"""A file's digest within itself."""

from __future__ import annotations

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.file_digest import has_other_digest, reserve_digest, with_digest

LOOKS_LIKE_IT = "tagstream.digest\x18 " + "0" * 40


def file_of(texts: list[str]) -> bytes:
    """A file that room for a digest is reserved in."""
    table = pa.table({"text": texts}).replace_schema_metadata({"tagstream.shard": texts[0]})
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="none") as writer:
        writer.write_table(table)
        reserve_digest(writer)
    return sink.getvalue()


@pytest.mark.parametrize("texts", [["a", "b"], ["tagstream.digest", "0" * 32], [LOOKS_LIKE_IT, "x"]])
def test_it_is_that_of_the_file_before_it_was_put_in(texts: list[str]) -> None:
    blank = file_of(texts)
    content = with_digest(blank)
    metadata = pq.read_metadata(io.BytesIO(content)).metadata
    digest = metadata[b"tagstream.digest"]
    assert metadata[b"tagstream.shard"].decode() == texts[0]
    assert digest.decode() == hashlib.blake2b(blank, digest_size=16).hexdigest()
    assert not has_other_digest(content)
    assert pq.read_table(io.BytesIO(content))["text"].to_pylist() == texts


def test_any_changed_byte_is_noticed_but_in_the_digests_own_key() -> None:
    content = with_digest(file_of(["a", "b"]))
    unnoticed = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        if not has_other_digest(bytes(changed)):
            unnoticed.append(place)
    key = b"tagstream.digest\x18 "
    start = content.rindex(key)
    assert unnoticed == list(range(start, start + len(key)))


def test_a_file_that_is_cut_short_or_longer_is_noticed_while_its_digest_is_there() -> None:
    content = with_digest(file_of(["a", "b"]))
    assert has_other_digest(content[:-1])
    assert has_other_digest(content[1:])
    assert has_other_digest(content + b"x")


def test_a_file_without_a_digest_says_nothing() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), sink)
    assert not has_other_digest(sink.getvalue())
    assert not has_other_digest(b"")
