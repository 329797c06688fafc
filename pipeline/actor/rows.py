"""Label rows as they come back from the actors, and the stages whose seconds they carry."""

from __future__ import annotations

import pyarrow as pa

from schemas import IMAGES

STAGES = ("read", "decode", "infer")
# Of the stage `infer`.
PARTS = ("encode", "prefill", "branches", "names")
# Of a read task, by the clock: `read`, or where it decodes too, what both take together.
READER = "reader"
# Of a whole job, whose driver writes.
JOB_STAGES = (*STAGES, "write")
LABEL = pa.struct(
    [
        ("label", pa.string()),
        ("score", pa.float32()),
        ("first_token_prob", pa.float32()),
        ("n_tokens", pa.int16()),
        ("view", pa.int8()),
    ]
)
LISTED_LABEL = pa.struct([("list", pa.string()), ("label", pa.string()), ("score", pa.float32())])
_IMAGE_FIELDS = [field for field in IMAGES if field.name not in ("image_id", "n_labels")]
# The `index` of a row that stands for a shard that cannot be read; its message says why.
FAILED_SHARD = -1
# One row a sample. The last columns are for the commit and the job's record: whether the image is strange to the demo
# model, why the actor's branches copy their image's tokens, what a shard's last batch says of it, bytes of what the
# recognizer saw, and seconds of work.
LABELLED_ROWS = pa.schema(
    [
        *_IMAGE_FIELDS,
        pa.field("labels", pa.list_(LABEL)),
        pa.field("is_strange", pa.bool_()),
        pa.field("why_copied", pa.string()),
        # Of all lists, those of one list together, the best first.
        pa.field("listed", pa.list_(LISTED_LABEL)),
        pa.field("n_samples", pa.int32()),
        pa.field("source_size", pa.int64()),
        pa.field("source_etag", pa.string()),
        pa.field("view_bytes", pa.int64()),
        # Of an image that gets the labels of another: the number of its shard and its index there (`pipeline.reuse`).
        pa.field("known_shard", pa.int32()),
        pa.field("known_index", pa.int32()),
        # Of one that looks like another of its shard: in how many bits their hashes differ. Null for equal contents.
        pa.field("known_distance", pa.int8()),
        pa.field("phash", pa.int64()),
        *(pa.field(f"{name}_s", pa.float64()) for name in (*STAGES, *PARTS, READER)),
    ]
)
