"""Known images are marked where they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.reuse.known_images import ImageIndex, KnownImages
from pipeline.reuse.marking import MARKED_BATCHES, SAME_SHARD, MarkingRead
from pipeline.sources.listing import find_source
from pipeline.sources.shard import Shard
from schemas import content_hash
from tests.fixtures.corpus import jpeg, tar_bytes

CONTENTS = [jpeg(number, 8, 8) for number in (0, 1, 0, 2, 1, 3)]


def known_of(*images: tuple[bytes, int, int]) -> KnownImages:
    index = ImageIndex()
    for data, shard, place in images:
        index.add(pa.array([content_hash(data)]), shard, np.array([place]))
    return index.known(10)


def marked(tmp_path: Path, known: KnownImages, batch_size: int) -> tuple[list[pa.Table], Shard]:
    members = [(f"{place}.jpg", data) for place, data in enumerate(CONTENTS)]
    # Without bytes nothing can be known of it.
    members.append(("6.txt", b"a caption without an image"))
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    (shard,) = find_source(str(tmp_path)).shards
    return list(MarkingRead(lambda: known)(shard, batch_size)), shard


def test_images_get_the_mark_of_the_first_one_known_or_of_the_first_in_their_shard(tmp_path: Path) -> None:
    for batch_size in (1, 4, 100):
        batches, _ = marked(tmp_path, known_of((CONTENTS[1], 7, 3), (CONTENTS[5], 2, 9)), batch_size)
        marks = [mark for batch in batches for mark in batch["known"].to_pylist()[0]]
        pairs = [(mark["shard"], mark["index"]) for mark in marks]
        assert pairs == [(None, None), (7, 3), (SAME_SHARD, 0), (None, None), (7, 3), (2, 9), (None, None)]
        assert [mark["content_hash"] for mark in marks] == [*map(content_hash, CONTENTS), None]
        assert [mark["n_bytes"] for mark in marks] == [*map(len, CONTENTS), None]


def test_marked_images_lose_their_bytes_and_others_keep_them(tmp_path: Path) -> None:
    batches, _ = marked(tmp_path, known_of((CONTENTS[1], 7, 3)), 100)
    (samples,) = batches[0]["samples"].to_pylist()
    assert [sample["data"] for sample in samples] == [CONTENTS[0], None, None, CONTENTS[3], None, CONTENTS[5], None]
    assert [sample["key"] for sample in samples] == ["0", "1", "2", "3", "4", "5", "6"]
    assert batches[0].schema.equals(MARKED_BATCHES)


def test_a_shard_that_cannot_be_read_is_told_with_a_batch_without_marks(tmp_path: Path) -> None:
    (batch,) = MarkingRead(lambda: known_of())(Shard("gone", str(tmp_path / "gone.tar"), "tar"), 8)
    assert "gone" in batch["failure"][0].as_py()
    assert batch["known"].to_pylist() == [[]]
