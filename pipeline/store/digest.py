"""A digest of a Parquet file within the file: of all of its bytes, with zeros in the digest's own place.

Parquet protects little of itself: a changed bit in a page is mostly read as another value, in a footer as other
statistics, by which queries pass over rows.
"""

from __future__ import annotations

import hashlib
import uuid

import pyarrow.parquet as pq

_KEY = b"tagstream.digest"
_N_DIGITS = 32


def reserve_digest(writer: pq.ParquetWriter) -> bytes:
    """Makes room for the digest in the metadata of a file that is being written; returns what marks the place.

    Names of shards stand beside it and are not trusted: the mark is one that nobody can know.
    """
    mark = uuid.uuid4().hex
    writer.add_key_value_metadata({_KEY.decode(): mark})
    return mark.encode()


def with_digest(content: bytes, mark: bytes) -> bytes:
    """A file for which room was reserved, with its digest."""
    return content.replace(mark, _digest_of(content, content.index(mark)))


def has_other_digest(file: pq.ParquetFile, content: bytes) -> bool:
    """Whether a file says that other bytes were written than it has; one without a digest says nothing."""
    digest = (file.metadata.metadata or {}).get(_KEY)
    if digest is None:
        return False
    place = content.rfind(digest)
    return len(digest) != _N_DIGITS or place < 0 or digest != _digest_of(content, place)


def _digest_of(content: bytes, place: int) -> bytes:
    digest = hashlib.blake2b(digest_size=_N_DIGITS // 2)
    view = memoryview(content)
    for part in (view[:place], b"0" * _N_DIGITS, view[place + _N_DIGITS :]):
        digest.update(part)
    return digest.hexdigest().encode()
