"""The actor's class: holds one recognizer, turns batches of encoded images into label rows.

It is a plain class. Ray Data hosts it in the labelling pool; a training worker builds the same class and trains its
`recognizer.module`, so that preprocessing, prompt and sampling cannot differ.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from model.choices import find_ranking
from model.hub.options import HubOptions
from model.images.opening import MAX_IMAGE_PIXELS, allow_image_pixels
from model.images.pixels import PIXEL_RULE
from model.images.preprocessing import fit_decoding
from model.images.reduced_decoding import DECODING
from model.images.views import count_tokens, cut_batches, share_branches
from model.part_clock import PartClock
from pipeline.actor.batch_size import Trial, search_batch_size
from pipeline.actor.decoded_batches import DecodingRead, read_images
from pipeline.actor.decoding import DecodedImage, DecodePool, decode
from pipeline.actor.device_thread import DeviceStuckError, DeviceThread
from pipeline.actor.found_views import FoundViews, join_found
from pipeline.actor.labelled_rows import FoundLabels, failure_row, labelled_rows
from pipeline.actor.rows import READER
from pipeline.background import without_collector
from pipeline.errors import ClusterError
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import NEAR_DISTANCE, LabelSettings, full_labelling
from pipeline.settings.limits import MAX_SAMPLE_S
from pipeline.storage.model_cache import check_names, load_preprocessor, load_tagger, measure_image_cost

if TYPE_CHECKING:
    from model.tagger import ImageCost
    from model.transfers import Transfers


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
    image_tokens: int = 0
    """Tokens that the decoder reads of an image; 0 is all of them."""
    is_demo: bool = False
    """Whether the model is the one that comes along; images that are strange to it are marked."""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Images that claim more pixels are rejected."""
    pixel_rule: int = PIXEL_RULE
    """Rule of `model.images.pixels` by which images become 8-bit RGB."""
    decoding: str = DECODING
    """How much of a JPEG is decoded: exact, fast or faster."""
    views: int = 1
    """Squares of an image that are labelled, at most."""
    view_tokens: int = 0
    """Tokens that the decoder reads of each square of an image that has several; 0 is as many as of any other."""
    max_sample_s: float = MAX_SAMPLE_S
    """Seconds that decoding one image may take."""
    no_progress_timeout_s: float | None = None
    """Seconds that the model may take for one batch; None sets no limit."""
    hub: HubOptions = field(default_factory=HubOptions)
    """How a vision-language model of the hub is asked."""
    lists: tuple[NameList, ...] = ()
    """Lists of names that every image is scored for."""
    batch_size: int = 64
    """Views that are labelled or scored at once, at most; more where a batch has more images than these."""
    makes_hashes: bool = True
    """Whether the hashes of images are made where these are decoded. Otherwise batches come with them."""
    perceptual_hash: bool = False
    """Whether images get a hash of what they look like."""
    skip_near_duplicates: bool = False
    """Whether an image that looks like an earlier one of its shard is not labelled. Its batches come decoded then."""
    near_distance: int = NEAR_DISTANCE
    """In how many bits the hashes of two images that look alike may differ."""
    samples_labels: bool = True
    """Whether labels are sampled; otherwise the lists of names are scored, and nothing else."""
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
            hub=settings.hub,
            **full_labelling(settings.labelling(dtype)),
        )


class Labeler:
    """Labels batches of encoded images; safe to call from several threads, so that decoding overlaps with labelling."""

    def __init__(self, config: LabelerConfig) -> None:
        self.config = config
        self._device = DeviceThread()
        with without_collector():
            self.recognizer = self._device.run(None, self.load_recognizer, config)
        self._transfers = _transfers(config.device)
        allow_image_pixels(config.max_image_pixels)
        self.preprocessor = fit_decoding(self.recognizer.preprocessor, config)
        self._names = self._list_names(config.batch_size)
        self._decoders = DecodePool(self._decode, config.n_threads, config.max_sample_s)
        if config.job:
            from pipeline.actor.device_metrics import DeviceMetrics

            DeviceMetrics(config.run, config.job, config.device, self._device).start()
            _keep_from_collector()

    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        """The recognizer, its weights mapped from node-local disk."""
        import torch

        if config.device == "cpu":
            # Ray gives a worker one OpenMP thread a CPU it reserves; the model may use all that are meant for it.
            os.environ["OMP_NUM_THREADS"] = str(config.n_threads)
            torch.set_num_threads(config.n_threads)
        return load_tagger(config.model, config.device, config.dtype, config.hub)

    @staticmethod
    def load_preprocessor(config: LabelerConfig) -> Any:
        """What decodes images for the recognizer, as `recognizer.preprocessor`. Loads no weights."""
        return load_preprocessor(config.model, config.hub)

    @staticmethod
    def decoder(preprocessor: Any, config: LabelerConfig) -> Callable[[bytes | None], DecodedImage]:
        """Decodes one image, in actors and in read tasks alike.

        Args:
            preprocessor: the recognizer's, under the settings of `config`.
        """
        return partial(
            decode,
            preprocessor=preprocessor,
            find_strange=config.is_demo,
            most_views=config.views,
            with_hash=config.makes_hashes,
            with_phash=config.perceptual_hash,
        )

    @classmethod
    def decoding_read(cls, config: LabelerConfig, n_threads: int) -> DecodingRead:
        """Reads shards and decodes their images as the labeler would, with so many threads."""
        decode_one = cls.decoder(fit_decoding(cls.load_preprocessor(config), config), config)
        near_distance = config.near_distance if config.skip_near_duplicates else None
        return DecodingRead(decode_one, n_threads, config.max_sample_s, config.max_image_pixels, near_distance)

    def __call__(self, batches: pa.Table) -> pa.Table:
        """Labels rows of `BATCHES` or of `DECODED_BATCHES`; returns rows of `pipeline.actor.rows.LABELLED_ROWS`."""
        return pa.concat_tables([self._label_batch(row) for row in _rows(batches)])

    def _label_batch(self, batch: dict[str, Any]) -> pa.Table:
        if batch["failure"] is not None:
            return failure_row(batch["shard"], batch["failure"])
        decoded = batch["images"] or self.decode_images(batch["data"])
        images = [image.views for image in decoded if image.views]
        try:
            found = self.label_images(images)
        except DeviceStuckError:
            raise ClusterError(self._stuck_at(batch, len(images))) from None
        except RuntimeError as error:
            # torch's error by its name: a labeler of the tests, whose recognizer costs nothing, loads no torch.
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise ClusterError(
                f"the device has too little memory to label {len(images)} images of shard {batch['shard']} at once; "
                "make batch_size or top_k smaller"
            ) from None
        seconds = {
            "read": batch["read_s"],
            READER: batch.get("task_s", batch["read_s"]),
            "decode": sum(image.cpu_s for image in decoded),
        }
        return labelled_rows(batch, decoded, found, {**seconds, **found.seconds})

    def label_images(self, images: Sequence[Sequence[np.ndarray]]) -> FoundLabels:
        """Labels of decoded images, each with its views.

        Raises DeviceStuckError where the device takes longer than `no_progress_timeout_s` for one of its batches.
        """
        config, n_views = self.config, [len(views) for views in images]
        places = cut_batches(n_views, max(len(images), config.batch_size))
        found = []
        for of_batch in places:
            found.append(self._label_views([images[image][view] for image, view in of_batch], n_views[of_batch[0][0]]))
        ranking = find_ranking(config.ranking)
        joined = join_found(places, found, len(images), ranking, config.top_k, config.lists)
        return replace(joined, why_copied=self.recognizer.why_copied)

    def _label_views(self, views: Sequence[np.ndarray], n_alike: int) -> FoundViews:
        """Labels of views of images that have so many each."""
        config = self.config
        n_tokens = count_tokens(n_alike, config.image_tokens, config.view_tokens)
        n_branches = share_branches(config.top_k, n_alike)
        work = (
            (self._sample, self._send(views), n_tokens, n_branches)
            if config.samples_labels
            else (self._score, self._send(views), n_tokens)
        )
        found, infer_s, clock = self._device.run(config.no_progress_timeout_s, *work)
        # Fetched and ranked here: the device samples the next batch meanwhile.
        seconds = {"infer": infer_s, **clock.seconds()}
        if not config.samples_labels:
            return FoundViews(None, found, seconds)
        labels = self.recognizer.rank_batch(found, config.ranking)
        return FoundViews(labels, found.listed if config.lists else (), seconds)

    def label_single_views(self, views: Sequence[np.ndarray]) -> FoundLabels:
        """Labels of decoded images that have one view each."""
        return self.label_images([[view] for view in views])

    def find_batch_size(self, gpu_share: float) -> int:
        """Views at once from which on more are hardly faster, or do not fit the GPU's memory, by trying.

        Args:
            gpu_share: share of the GPU's memory that is this labeler's.

        Raises ClusterError where not even one fits.
        """
        from pipeline.actor.batch_trials import device_memory_bytes, make_photograph, try_batches

        (photograph,) = self.decode_images([make_photograph()])
        assert photograph.views, "Pillow does not read its own JPEG"

        def attempt(size: int) -> Trial | None:
            self._names = self._list_names(size)
            return try_batches(self.label_single_views, [photograph.views[0]] * size)

        return search_batch_size(attempt, int(gpu_share * device_memory_bytes()))

    @staticmethod
    def check_lists(model: str, hub: HubOptions, lists: Sequence[NameList]) -> None:
        """Raises TagstreamError where a name of a list cannot be a label of the model. Loads no weights.

        Args:
            hub: how the model is asked, where it is one of the hub.
        """
        check_names(model, hub, [(spelling, of_list.version) for of_list in lists for spelling in of_list.spellings()])

    @staticmethod
    def measure_image_cost(model: str, hub: HubOptions) -> ImageCost:
        """What images cost a model of the hub. Loads no weights.

        Raises ModelError where the model cannot be asked so.
        """
        return measure_image_cost(model, hub)

    def _stuck_at(self, batch: dict[str, Any], n_images: int) -> str:
        return (
            f"a labelling actor (process {os.getpid()} on {socket.gethostname()}) is stuck: for "
            f"{self.config.no_progress_timeout_s:g} s it has worked on {n_images} images of shard {batch['shard']}, "
            f"from sample {batch['first_index']} on; where it is only slow, make batch_size smaller or raise "
            "no_progress_timeout_s"
        )

    def decode_images(self, images: Iterable[bytes | None]) -> list[DecodedImage]:
        """Decodes encoded images, in threads; damage becomes a message."""
        return self._decoders.decode(images)

    def _decode(self, data: bytes | None) -> DecodedImage:
        return self.decoder(self.preprocessor, self.config)(data)

    def _send(self, views: Sequence[np.ndarray]) -> Callable[[], Any]:
        """What gives the device's thread these views as the recognizer takes them.

        On CUDA they are prepared now, and on their way while the device samples another batch. A CPU that computes has
        nothing to gain by it: it prepares them in turn.
        """
        prepare = partial(self.recognizer.prepare, views)
        return self._transfers.send(prepare) if self._transfers else prepare

    def _sample(self, take: Callable[[], Any], n_tokens: int, n_branches: int) -> tuple[Any, float, PartClock]:
        """What the device finds in a batch, the seconds it took, and the clock of its parts."""
        started = time.perf_counter()
        config, clock = self.config, PartClock(self.config.device)
        sampled = self.recognizer.sample(
            take(),
            n_branches,
            sampling=config.sampling,
            max_label_tokens=config.max_label_tokens,
            image_tokens=n_tokens,
            names=self._names,
            clock=clock,
        )
        return sampled, time.perf_counter() - started, clock

    def _score(self, take: Callable[[], Any], n_tokens: int) -> tuple[Any, float, PartClock]:
        """Log probabilities of the names of each list, the seconds they took, and the clock of its parts."""
        started, clock = time.perf_counter(), PartClock(self.config.device)
        scores = self.recognizer.score_prepared(take(), self._names, image_tokens=n_tokens, clock=clock)
        return scores, time.perf_counter() - started, clock

    def _list_names(self, batch_size: int) -> list[Any]:
        def list_all() -> list[Any]:
            spellings = [list(of_list.names.values()) for of_list in self.config.lists]
            return [self.recognizer.list_names(of_list, batch_size) for of_list in spellings]

        return self._device.run(None, list_all) if self.config.lists else []


def _transfers(device: str) -> Transfers | None:
    """What brings batches to a device that has a memory of its own."""
    if not device.startswith("cuda"):
        return None
    # Only here: a labeler of the tests, whose recognizer costs nothing, loads no torch.
    from model.transfers import Transfers

    return Transfers(device)


def _keep_from_collector() -> None:
    """Takes what is loaded by now out of the garbage collector's sight. It lives as long as the process.

    The objects of torch, transformers and a model are 400,000. A collection that looks at them takes 0.2 s, in which no
    thread of Python runs, and so nothing is given to the device. With them the device of one actor was busy 87 % of the
    time at 640 images/s and 20 labels, and 60 % at 100; without them 92 % and 82 %
    (tests/benchmarks/busy_share.py measures it).
    """
    gc.collect()
    gc.freeze()


def _rows(batches: pa.Table) -> list[dict[str, Any]]:
    """The batches as plain values; encoded images are copied out of Arrow once, pixels are not."""
    rows = []
    are_decoded = "images" in batches.column_names
    for row in range(batches.num_rows):
        samples = batches.column("samples")[row].values
        nested = ("samples", "images", "known")
        values = {name: batches.column(name)[row].as_py() for name in batches.column_names if name not in nested}
        images = {
            "images": read_images(batches.column("images")[row].values) if are_decoded else None,
            "data": None if are_decoded else samples.field("data").to_pylist(),
        }
        columns = {name: samples.field(name).to_pylist() for name in ("error", "message")}
        kept = {name: samples.field(name) for name in ("key", "caption", "truth")}
        known = batches.column("known")[row].values if "known" in batches.column_names else None
        rows.append({**values, **images, **columns, **kept, "known": known})
    return rows
