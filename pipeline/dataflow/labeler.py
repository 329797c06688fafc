"""The actor's class: holds one recognizer, turns batches of encoded images into label rows.

It is a plain class. Ray Data hosts it in the labelling pool; a training worker builds the same class and trains its
`recognizer.module`, so that preprocessing, prompt and sampling cannot differ.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from model.part_clock import PartClock
from model.preprocessing import MAX_IMAGE_PIXELS, allow_image_pixels
from pipeline.dataflow.decoding import DecodedImage, DecodePool, decode
from pipeline.dataflow.device_thread import DeviceStuckError, DeviceThread
from pipeline.dataflow.rows import LABEL, LABELLED_ROWS, PARTS, STAGES
from pipeline.errors import ClusterError
from pipeline.settings.labelling import LabelSettings
from pipeline.settings.limits import MAX_SAMPLE_S
from pipeline.sources.sample import DECODE_STAGE, READ_STAGE
from pipeline.storage.model_cache import load_recognizer
from schemas import LABELLED, REJECTED

if TYPE_CHECKING:
    from model.ranking import Label


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelerConfig:
    """What an actor needs to build its recognizer and label with it."""

    model: str
    """Absolute local folder, `org/name@commit` of the hub or URL of the model, or `demo`."""
    top_k: int
    """Branches that are decoded for an image."""
    ranking: str
    """prob, ppl, sim or none."""
    sampling: str
    """one_shot, greedy or beam."""
    max_label_tokens: int
    """Longest label in tokens."""
    honour_exif: bool
    """Turn photographs upright by their EXIF orientation."""
    dtype: str
    """The dtype that the model computes in: float32, bfloat16 or float16."""
    device: str
    """torch's name of the device that the model computes on."""
    n_threads: int
    """CPU threads for decoding, and for the model where it runs on the CPU."""
    is_demo: bool = False
    """Whether the model is the one that comes along; images that are strange to it are marked."""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Images that claim more pixels are rejected."""
    max_sample_s: float = MAX_SAMPLE_S
    """Seconds that decoding one image may take."""
    no_progress_timeout_s: float | None = None
    """Seconds that the model may take for one batch; None sets no limit."""
    run: str = ""
    """Name of the run, for the device's metrics."""
    job: str = ""
    """The job whose metrics the device's are; by default the device shows none."""

    @classmethod
    def of(cls, model: str, settings: LabelSettings, *, dtype: str, device: str, n_threads: int) -> Self:
        """Labelling with these settings, where the dtype is resolved."""
        return cls(
            model=model,
            device=device,
            n_threads=n_threads,
            max_image_pixels=settings.max_image_pixels,
            max_sample_s=settings.max_sample_s,
            no_progress_timeout_s=settings.no_progress_timeout_s,
            **settings.labelling(dtype),
        )


class Labeler:
    """Labels batches of encoded images; safe to call from several threads, so that decoding overlaps with labelling."""

    def __init__(self, config: LabelerConfig) -> None:
        self.config = config
        self._device = DeviceThread()
        self.recognizer = self._device.run(None, self.load_recognizer, config)
        allow_image_pixels(config.max_image_pixels)
        self.preprocessor = replace(
            self.recognizer.preprocessor, honour_exif=config.honour_exif, max_image_pixels=config.max_image_pixels
        )
        self._decoders = DecodePool(self._decode, config.n_threads, config.max_sample_s)
        if config.job:
            from pipeline.dataflow.device_metrics import DeviceMetrics

            DeviceMetrics(config.run, config.job, config.device, self._device).start()

    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        """The recognizer, its weights mapped from node-local disk."""
        import torch

        if config.device == "cpu":
            # Ray gives a worker one OpenMP thread a CPU it reserves; the model may use all that are meant for it.
            os.environ["OMP_NUM_THREADS"] = str(config.n_threads)
            torch.set_num_threads(config.n_threads)
        return load_recognizer(config.model, config.device, config.dtype)

    def __call__(self, batches: pa.Table) -> pa.Table:
        """Labels rows of `pipeline.dataflow.datasource.BATCHES`; returns rows of `LABELLED_ROWS`."""
        return pa.concat_tables([self._label_batch(row) for row in _rows(batches)])

    def _label_batch(self, batch: dict[str, Any]) -> pa.Table:
        started = time.perf_counter()
        data = batch["data"]
        decoded = self.decode_images(data)
        decode_s = time.perf_counter() - started
        crops = [image.crop for image in decoded if image.crop is not None]
        try:
            labels, seconds = self.label_crops(crops)
        except DeviceStuckError:
            raise ClusterError(self._stuck_at(batch, len(crops))) from None
        return _labelled_rows(batch, decoded, labels, {"read": batch["read_s"], "decode": decode_s, **seconds})

    def label_crops(self, crops: Sequence[np.ndarray]) -> tuple[list[list[Label]], dict[str, float]]:
        """Labels of decoded images, unfinished ones included, and the seconds that the device took, also by part.

        Raises DeviceStuckError where that is longer than `no_progress_timeout_s`.
        """
        sampled, seconds = self._device.run(self.config.no_progress_timeout_s, self._sample, crops)
        # Ranked here: the device samples the next batch meanwhile.
        return self.recognizer.rank(sampled, self.config.ranking, keep_unfinished=True), seconds

    def _stuck_at(self, batch: dict[str, Any], n_images: int) -> str:
        return (
            f"a labelling actor (process {os.getpid()} on {socket.gethostname()}) is stuck: for "
            f"{self.config.no_progress_timeout_s:g} s it has worked on {n_images} images of shard {batch['shard']}, "
            f"from sample {batch['first_index']} on; where it is only slow, make batch_size smaller or raise "
            "no_progress_timeout_s"
        )

    def decode_images(self, images: Iterable[bytes | None]) -> list[DecodedImage]:
        """Decodes and crops encoded images, in threads; damage becomes a message."""
        return self._decoders.decode(images)

    def _decode(self, data: bytes | None) -> DecodedImage:
        return decode(data, self.preprocessor, find_strange=self.config.is_demo)

    def _sample(self, crops: Sequence[np.ndarray]) -> tuple[Any, dict[str, float]]:
        """What the device finds in these images, and the seconds it took, also by part."""
        started = time.perf_counter()
        config, clock = self.config, PartClock(self.config.device)
        pixel_values = self.recognizer.pixel_values(crops)
        sampled = self.recognizer.sample(
            pixel_values, config.top_k, sampling=config.sampling, max_label_tokens=config.max_label_tokens, clock=clock
        )
        return sampled, {"infer": time.perf_counter() - started, **clock.seconds()}


def _rows(batches: pa.Table) -> list[dict[str, Any]]:
    """The batches as plain values; image bytes are copied out of Arrow once."""
    rows = []
    for row in range(batches.num_rows):
        samples = batches.column("samples")[row].values
        values = {name: batches.column(name)[row].as_py() for name in batches.column_names if name != "samples"}
        columns = {name: samples.field(name).to_pylist() for name in ("data", "error", "message")}
        kept = {name: samples.field(name) for name in ("key", "caption", "truth")}
        rows.append({**values, **columns, **kept})
    return rows


def _labelled_rows(
    batch: dict[str, Any], decoded: list[DecodedImage], labels: list[list[Label]], seconds: dict[str, float]
) -> pa.Table:
    n_rows = len(decoded)
    remaining = iter(labels)
    of_image = [next(remaining) if image.crop is not None else [] for image in decoded]
    finished = [[label for label in image if label.finished] for image in of_image]
    faults = [_fault(*row) for row in zip(decoded, batch["data"], batch["error"], batch["message"], strict=True)]
    columns = {
        "shard": [batch["shard"]] * n_rows,
        "index": range(batch["first_index"], batch["first_index"] + n_rows),
        "key": batch["key"],
        "status": [LABELLED if image.crop is not None else REJECTED for image in decoded],
        "stage": [stage for stage, _, _ in faults],
        "error": [error for _, error, _ in faults],
        "message": [message for _, _, message in faults],
        "width": [image.width for image in decoded],
        "height": [image.height for image in decoded],
        "n_bytes": [None if data is None else len(data) for data in batch["data"]],
        "content_hash": [image.content_hash for image in decoded],
        "caption": batch["caption"],
        "truth": batch["truth"],
        "n_unfinished": [len(image) - len(done) for image, done in zip(of_image, finished, strict=True)],
        "labels": _label_lists(finished),
        "is_strange": [image.is_strange for image in decoded],
        "n_samples": [None] * (n_rows - 1) + [batch["n_samples"]],
        "source_size": [None] * (n_rows - 1) + [batch["source_size"]],
        "source_etag": [None] * (n_rows - 1) + [batch["source_etag"]],
        **{f"{name}_s": _first_of(n_rows, seconds.get(name, 0.0)) for name in (*STAGES, *PARTS)},
    }
    return pa.table([columns[name] for name in LABELLED_ROWS.names], schema=LABELLED_ROWS)


def _fault(
    image: DecodedImage, data: bytes | None, error: str | None, message: str | None
) -> tuple[str | None, str | None, str | None]:
    """Stage, error class and message of a sample's fault; an image that cannot be decoded outweighs its side files."""
    if data is not None and image.crop is None:
        return DECODE_STAGE, image.error, image.message
    return (READ_STAGE, error, message) if error else (None, None, None)


def _label_lists(images: list[list[Label]]) -> pa.ListArray:
    flat = [label for image in images for label in image]
    offsets = np.cumsum([0, *(len(image) for image in images)])
    arrays = [
        pa.array([label.text for label in flat], pa.string()),
        pa.array([label.score for label in flat], pa.float32()),
        pa.array([label.token_probs[0] for label in flat], pa.float32()),
        pa.array([len(label.token_ids) for label in flat], pa.int16()),
    ]
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(arrays, fields=list(LABEL))
    )


def _first_of(n_rows: int, value: float) -> list[float]:
    """A batch's seconds, counted once."""
    return [value] + [0.0] * (n_rows - 1)
