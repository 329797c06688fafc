"""One pyarrow schema per table of the store."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

SCHEMA_VERSION = 2
# Labels and spellings have the same columns in both: version 2 has listed labels beside them, and images tell `flat`
# where the run has the rule of pixels that came with it.
READABLE_VERSIONS = (1, 2)

LABELLED = "labelled"
REJECTED = "rejected"

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("n_bytes", pa.int64()),
        pa.field("content_hash", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("truth", pa.list_(pa.string())),
        pa.field("n_labels", pa.int16(), nullable=False),
        pa.field("n_unfinished", pa.int16(), nullable=False),
        pa.field("flat", pa.bool_()),
    ]
)
# Of runs that were made before images told whether they are flat. A run keeps its columns.
FORMER_IMAGES = IMAGES.remove(IMAGES.get_field_index("flat"))

# Of runs that reuse labels by content: `reused_from` is the image_id of the image whose labels these are, `reused_run`
# its run, null where it is the run itself. Both are null where the labels are the image's own.
IMAGES_OF_REUSE = pa.schema([*IMAGES, pa.field("reused_from", pa.int64()), pa.field("reused_run", pa.string())])

# Of runs with perceptual hashes, whether they reuse labels or not: `phash` has 64 bits, and `reused_distance` tells in
# how many of them an image differs from the one whose labels it has, where these two are not of one content.
IMAGES_OF_HASHES = pa.schema([*IMAGES_OF_REUSE, pa.field("phash", pa.int64()), pa.field("reused_distance", pa.int8())])


def images_schema(columns: Collection[str]) -> pa.Schema:
    """The one of the schemas of images that has these columns."""
    if "phash" in columns:
        return IMAGES_OF_HASHES
    if "reused_from" in columns:
        return IMAGES_OF_REUSE
    return IMAGES if "flat" in columns else FORMER_IMAGES


LABELS = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("first_token_prob", pa.float32(), nullable=False),
        pa.field("n_tokens", pa.int16(), nullable=False),
    ]
)

# Of runs that label several views of an image. Others have the columns that they had before there were such runs.
LABELS_OF_VIEWS = LABELS.append(pa.field("view", pa.int8(), nullable=False))

# Labels of a list of names. Which list is told by the file's folder and metadata.
LISTED = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)

SPELLINGS = pa.schema(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("vocabulary", pa.string(), nullable=False),
    ]
)

# Images that were drawn for review.
DRAWN = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
    ]
)

# What people say of labels. Of the verdicts, `added` is a label that is true and was not shown.
REVIEWS = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reviewer", pa.string(), nullable=False),
        pa.field("reviewed", pa.string()),
    ]
)
VERDICTS = ("yes", "no", "unsure", "added")

# What jobs note of the files that they commit, so that nobody has to open them for it. One row a file of images.
LEDGER = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("images_bytes", pa.int64(), nullable=False),
        pa.field("labels_bytes", pa.int64(), nullable=False),
        # The version of the source's file.
        pa.field("source_size", pa.int64()),
        pa.field("source_etag", pa.string()),
        # Shards that have a sample.
        pa.field("n_shards", pa.int64(), nullable=False),
        pa.field("n_images", pa.int64(), nullable=False),
        pa.field("n_labelled", pa.int64(), nullable=False),
        pa.field("n_rejected", pa.int64(), nullable=False),
        pa.field("n_flat", pa.int64(), nullable=False),
        # As the images name them, and as they lie in the file of labels.
        pa.field("n_labels", pa.int64(), nullable=False),
        pa.field("n_label_rows", pa.int64(), nullable=False),
        pa.field("n_unfinished", pa.int64(), nullable=False),
        # A JSON list by class (stage, error, n_rejected), with the first images of each as examples; null without any.
        pa.field("rejects", pa.string()),
        # Labelled images whose labels are those of another image: of the same content, and of one that looks alike.
        pa.field("n_reused", pa.int64(), nullable=False),
        pa.field("n_near_duplicates", pa.int64(), nullable=False),
    ]
)

# Which shards a run may reuse labels of, in their order (`pipeline.reuse.order`). One row a shard.
REUSE_ORDER = pa.schema(
    [
        # Absolute path or URL; null for the run's own store.
        pa.field("store", pa.string()),
        pa.field("run", pa.string(), nullable=False),
        # How its files begin.
        pa.field("stem", pa.string(), nullable=False),
        # Of a shard of the run itself: it may reuse labels of so many of the first rows' shards. Null for others.
        pa.field("n_seen", pa.int64()),
    ]
)
