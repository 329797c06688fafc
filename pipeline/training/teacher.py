"""Self-training: the labelling pool's actors label training images on their way to the student."""

from __future__ import annotations

import pyarrow as pa

from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.sources.batches import BATCHES


class Teacher(Labeler):
    """A `Labeler` that hands the images on, with its confident labels as their truth."""

    def __init__(self, config: LabelerConfig, min_score: float) -> None:
        super().__init__(config)
        self._min_score = min_score

    def __call__(self, batches: pa.Table) -> pa.Table:
        """Labels rows of `pipeline.dataflow.datasource.BATCHES` and returns them with other truths and no captions."""
        labels = super().__call__(batches).column("labels").to_pylist()
        confident = [[label["label"] for label in image if label["score"] >= self._min_score] for image in labels]
        samples = batches.column("samples").combine_chunks()
        flat = samples.flatten()
        columns = {field.name: flat.field(field.name) for field in flat.type}
        columns["truth"] = pa.array(confident, pa.list_(pa.string()))
        columns["caption"] = pa.nulls(len(flat), pa.string())
        taught = pa.StructArray.from_arrays(list(columns.values()), fields=list(flat.type))
        nested = pa.ListArray.from_arrays(samples.offsets.to_numpy() - samples.offsets[0].as_py(), taught)
        place = BATCHES.get_field_index("samples")
        return batches.set_column(place, BATCHES.field(place), nested)
