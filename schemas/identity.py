"""Stable identities of samples."""

from __future__ import annotations

import hashlib


def image_id(shard: str, key: str, repetition: int = 0) -> int:
    """A sample's 64-bit signed id: a hash of shard and key, the same on every run and machine.

    Args:
        repetition: 0 for the first row of a key in its shard, then 1, 2, ...; it keeps the rejected rows of a repeated
            key apart from the labelled one.
    """
    text = f"{shard}\0{key}" if repetition == 0 else f"{shard}\0{key}\0{repetition}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def content_hash(data: bytes) -> str:
    """Hash of a sample's encoded bytes: 32 hex digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def image_ids(shard: str, keys: list[str]) -> list[int]:
    """One id a row of a shard, in order; rows that repeat a key get ids of their own, so that a label has one row."""
    seen: dict[str, int] = {}
    ids = []
    for key in keys:
        repetition = seen.get(key, 0)
        seen[key] = repetition + 1
        ids.append(image_id(shard, key, repetition))
    return ids
