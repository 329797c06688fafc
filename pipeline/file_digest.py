"""A digest of a Parquet file within the file: of all of its bytes but those of the digest itself.

Parquet protects little of itself: a changed bit in a page is mostly read as another value, in a footer as other
statistics, by which queries pass over rows.
"""

from __future__ import annotations

import hashlib

import pyarrow.parquet as pq

_KEY = "tagstream.digest"
_N_DIGITS = 32
_BLANK = b"0" * _N_DIGITS
# A key and the length of its value, as Thrift writes them; the last in a file, since what is added comes after the rest.
_BEFORE = _KEY.encode() + bytes([0x18, _N_DIGITS])


def reserve_digest(writer: pq.ParquetWriter) -> None:
    """Makes room for the digest in the metadata of a file that is being written."""
    writer.add_key_value_metadata({_KEY: _BLANK.decode()})


def with_digest(content: bytes) -> bytes:
    """A file for which room was reserved, with its digest."""
    place = content.rindex(_BEFORE) + len(_BEFORE)
    return content[:place] + _digest_of(content, place) + content[place + _N_DIGITS :]


def has_other_digest(content: bytes) -> bool:
    """Whether a file says that other bytes were written than it has; one without a digest says nothing."""
    place = content.rfind(_BEFORE) + len(_BEFORE)
    return place >= len(_BEFORE) and content[place : place + _N_DIGITS] != _digest_of(content, place)


def _digest_of(content: bytes, place: int) -> bytes:
    digest = hashlib.blake2b(digest_size=_N_DIGITS // 2)
    view = memoryview(content)
    for part in (view[:place], _BLANK, view[place + _N_DIGITS :]):
        digest.update(part)
    return digest.hexdigest().encode()
