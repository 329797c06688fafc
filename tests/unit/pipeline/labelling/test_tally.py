"""What a job rejected, counted."""

from __future__ import annotations

import pyarrow as pa

from pipeline.labelling.tally import RejectTally
from schemas import IMAGES


def images(shard: str, *faults: str | None) -> pa.Table:
    """One row a sample: labelled, or rejected with this error."""
    rows = [
        {"shard": shard, "index": index, "key": f"k{index}", "status": "rejected", "stage": "read", "error": fault}
        | {"message": f"at https://me:secret@{shard}"}
        if fault
        else {"shard": shard, "index": index, "key": f"k{index}", "status": "labelled"}
        for index, fault in enumerate(faults)
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def test_classes_are_counted_over_shards_the_most_first_each_with_its_first_example_and_no_login() -> None:
    tally = RejectTally()
    tally.add(images("a", None, "NoImage", "LinkMember"))
    tally.add(images("b", "LinkMember", None))
    common = {"stage": "read", "shard": "a", "message": "at https://***@a"}
    assert tally.most_first() == [
        {"n_images": 2, "error": "LinkMember", "key": "k2", **common},
        {"n_images": 1, "error": "NoImage", "key": "k1", **common},
    ]


def test_where_nothing_was_rejected_there_is_nothing() -> None:
    tally = RejectTally()
    tally.add(images("a", None))
    assert tally.most_first() == []
