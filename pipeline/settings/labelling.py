"""What a labelling job is asked to do."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from model.choices import (
    DTYPES,
    RANKINGS,
    SAMPLINGS,
    TOKEN_MERGING,
    check_hub_choice,
    check_hub_image_tokens,
    check_merging,
    check_view_tokens,
)
from model.hub.options import IMAGE_BACKENDS, OPENS, HubOptions
from model.images.opening import MAX_IMAGE_PIXELS
from model.images.pixels import PIXEL_RULE, TORCH_RULE
from model.images.reduced_decoding import DECODING, DECODINGS
from model.images.views import CENTRE, most_squares
from pipeline.errors import TagstreamError
from pipeline.settings.limits import MAX_SAMPLE_BYTES, MAX_SAMPLE_S
from pipeline.settings.toml_file import check_choice, check_range

ChangedPolicy = Literal["keep", "relabel", "fail"]
DecodePlace = Literal["actor", "read"]
# Of runs whose record names none.
FORMER_PIXEL_RULE = 1
FORMER_DECODING = "exact"
# Photographs that are written anew or made smaller differ in fewer bits, others in more
# (tests/benchmarks/results/near-duplicates-cpu.md).
NEAR_DISTANCE = 4
FORMER_LABELLING: Mapping[str, Any] = {
    "pixel_rule": FORMER_PIXEL_RULE,
    "decoding": FORMER_DECODING,
    "views": 1,
    "image_tokens": 0,
    "view_tokens": 0,
}
# What the user should know who asks for several views of a model that has no use for them.
VIEWS_IGNORED = (
    "this model takes pictures of any shape and sees each of them whole; the settings views and view_tokens do nothing"
)
# Hashes of pictures that have nothing in common differ in 32 of their 64 bits.
_MOST_DISTANT = 24
CHANGED_POLICIES: tuple[str, ...] = get_args(ChangedPolicy)
DECODE_PLACES: tuple[str, ...] = get_args(DecodePlace)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComingNodes:
    """Nodes for labelling that an autoscaling cluster adds when they are asked for: `[nodes_to_come]` in the file."""

    count: int = 0
    cpus: int = 0
    """CPUs of each of these nodes."""
    gpus: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "cpus", "gpus"):
            check_range(f"nodes_to_come.{name}", getattr(self, name), 0, 100_000)
        if self.count and not self.cpus:
            raise TagstreamError("nodes_to_come.cpus is 0; expected the number of CPUs of each of these nodes")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSettings:
    """Settings of `tagstream label`; each can stand in its `--config` file under the same name."""

    top_k: int = 20
    """Branches decoded an image; fewer labels where they are empty, alike or unfinished."""
    ranking: str = "prob"
    """prob, ppl, sim or none."""
    sampling: str = "one_shot"
    """one_shot, or the baselines greedy and beam."""
    max_label_tokens: int = 16
    image_tokens: int = 0
    """Tokens that the decoder reads of an image: the model's image tokens are merged into so many. 0 is all of them."""
    honour_exif: bool = True
    """Turn photographs upright by their EXIF orientation."""
    pixel_rule: int = PIXEL_RULE
    """How images of more than 8 bits, with alpha or with several frames become 8-bit RGB, and what resizes them: a rule
    of `model.images.pixels`."""
    decoding: str = DECODING
    """How much of a large JPEG is decoded (`model.images.reduced_decoding`): exact, fast or faster. Pixel rules 1 and 2
    decode all of it."""
    views: str | int = CENTRE
    """What is seen of an image that is not square: centre, whole (up to four squares that cover it) or a number of
    squares at most. The squares share `top_k`."""
    view_tokens: int = 0
    """`image_tokens` of the squares of images that have several, and of no others; 0 is all."""
    dtype: str = "auto"
    """float32, bfloat16 or float16; auto is bfloat16 on GPUs and float32 on CPUs."""
    batch_size: int = 0
    """Images labelled at once; 0 is 16 on CPUs. On GPUs it is 64, or where there is much to label what a search finds
    before the run's first image."""
    actors: int = 0
    """Labelling actors; 0 is one a GPU, or as many as the CPUs allow."""
    min_actors: int = 0
    """With fewer than `max_actors` the pool begins with these and grows where they are busy; 0 is 1."""
    max_actors: int = 0
    """0 is as many as fit."""
    gpus_per_actor: float = 1.0
    actor_resources: dict[str, float] = field(default_factory=dict)
    """Custom resources of Ray that each labelling actor reserves, such as {gpu_node = 1}."""
    label_selector: dict[str, str] = field(default_factory=dict)
    """Ray's labels of the nodes that may label, such as {"ray.io/accelerator-type" = "H100"}; all nodes read."""
    nodes_to_come: ComingNodes = field(default_factory=ComingNodes)
    """Nodes that the cluster has not yet, but will add."""
    decode_in: str = "auto"
    """Where images are decoded: actor, read (in the tasks that read shards, on any node) or auto. Labels are equal."""
    limit: int = 0
    """Stop after about this many images, at a shard's end; 0 is all."""
    changed: str = "keep"
    """What to do with shards that changed at the source after they were committed: keep, relabel or fail."""
    max_sample_bytes: int = MAX_SAMPLE_BYTES
    """Larger encoded images are rejected unread."""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Images that claim more are rejected before their pixels are decoded."""
    max_sample_s: float = MAX_SAMPLE_S
    """Images that take longer to decode are rejected."""
    no_progress_timeout_s: int = 600
    """A job whose workers finish nothing for this long is stopped with an error."""
    reuse: bool = False
    """Label images of one content once. A run that began with it goes on with it."""
    reuse_stores: tuple[str, ...] = ()
    """Other stores, whose labels of the same model and settings are reused as well."""
    perceptual_hash: bool = False
    """Keep a hash of what each image looks like (`images.phash`). A run that began with it goes on with it."""
    skip_near_duplicates: bool = False
    """Do not label an image that looks like an earlier one of its shard: it gets the labels of that. It brings
    `perceptual_hash` with it, and images are decoded where they are read."""
    near_distance: int = NEAR_DISTANCE
    """In how many of 64 bits the hashes of two images that look alike may differ."""
    hub: HubOptions = field(default_factory=HubOptions)
    """How a vision-language model of the hub is asked; a table in the file."""

    def __post_init__(self) -> None:
        check_choice("ranking", self.ranking, tuple(RANKINGS))
        check_choice("sampling", self.sampling, SAMPLINGS)
        check_choice("dtype", self.dtype, ("auto", *DTYPES))
        check_choice("decoding", self.decoding, tuple(DECODINGS))
        check_choice("changed", self.changed, CHANGED_POLICIES)
        check_choice("decode_in", self.decode_in, ("auto", *DECODE_PLACES))
        check_range("top_k", self.top_k, 1, 200)
        check_range("pixel_rule", self.pixel_rule, FORMER_PIXEL_RULE, PIXEL_RULE)
        check_range("max_label_tokens", self.max_label_tokens, 1, 256)
        for name in ("image_tokens", "view_tokens"):
            check_range(name, getattr(self, name), 0)
        with _as_setting_error():
            check_merging(self.image_tokens, self.sampling)
            check_merging(self.view_tokens, self.sampling, "view_tokens")
            check_view_tokens(self.view_tokens, self.image_tokens, most_squares(self.views))
        check_range("batch_size", self.batch_size, 0, 4096)
        for name in ("actors", "min_actors", "max_actors"):
            check_range(name, getattr(self, name), 0, 100_000)
        check_range("limit", self.limit, 0)
        check_range("max_sample_bytes", self.max_sample_bytes, 1)
        check_range("max_image_pixels", self.max_image_pixels, 1)
        check_range("max_sample_s", self.max_sample_s, 0.1, 86_400)
        check_range("no_progress_timeout_s", self.no_progress_timeout_s, 1)
        share = self.gpus_per_actor
        if not (0 < share <= 1 or (1 < share < math.inf and share == int(share))):
            raise TagstreamError(
                f"gpus_per_actor is {share}; expected a whole number, or a share of one GPU: above 0 and below 1"
            )
        self._check_pool()
        if self.reuse_stores and not self.reuse:
            raise TagstreamError("reuse_stores names stores and reuse is false; set reuse = true as well")
        self._check_near_duplicates()
        check_choice("hub.opens", self.hub.opens, OPENS)
        check_choice("hub.image_backend", self.hub.image_backend, IMAGE_BACKENDS)
        check_range("hub.max_view_pixels", self.hub.max_view_pixels, 1)

    def _check_pool(self) -> None:
        if self.actors and (self.min_actors or self.max_actors):
            raise TagstreamError("actors is a fixed number; leave it out beside min_actors and max_actors")
        if self.max_actors and self.min_actors > self.max_actors:
            raise TagstreamError(f"min_actors is {self.min_actors}; expected at most max_actors, {self.max_actors}")
        for name, amount in self.actor_resources.items():
            if not isinstance(amount, int | float) or isinstance(amount, bool) or not 0 < amount < math.inf:
                raise TagstreamError(f"actor_resources.{name} is {amount!r}; expected a number above 0")
        for name, value in self.label_selector.items():
            if not isinstance(value, str):
                raise TagstreamError(f"label_selector.{name} is {value!r}; expected a string")

    def _check_near_duplicates(self) -> None:
        check_range("near_distance", self.near_distance, 0, _MOST_DISTANT)
        if not self.skip_near_duplicates:
            if self.near_distance != NEAR_DISTANCE:
                raise TagstreamError(
                    "near_distance is set and skip_near_duplicates is false; set skip_near_duplicates = true as well"
                )
        elif self.decode_in == "actor":
            raise TagstreamError(
                "decode_in is actor and skip_near_duplicates is true: what looks alike is found where a shard is read; "
                "leave decode_in out"
            )

    @property
    def place_of_decoding(self) -> str:
        """actor, read or auto: where images are to be decoded."""
        return "read" if self.skip_near_duplicates else self.decode_in

    def labelling(self, dtype: str, is_hub_model: bool = False) -> dict[str, Any]:
        """The settings that decide the labels, with the dtype as resolved.

        Limits of a sample are not among them: they decide which are rejected, and a run may go on with others. Nor are
        the former rule of pixels, the former decoding, all image tokens and the centre as the only view: runs had these
        before there was another choice, and keep their fingerprint.

        Args:
            is_hub_model: whether the model is a vision-language model of the hub, whose labels `hub` decides too.

        Raises TagstreamError where such a model has not what is asked for.
        """
        if is_hub_model:
            with _as_setting_error():
                check_hub_choice("ranking", self.ranking)
                check_hub_choice("sampling", self.sampling)
                check_hub_image_tokens(self.image_tokens)
                check_hub_image_tokens(self.view_tokens, "view_tokens")
        merging = {name: number for name in ("image_tokens", "view_tokens") if (number := getattr(self, name))}
        if merging:
            merging["token_merging"] = TOKEN_MERGING
        rule = {} if self.pixel_rule == FORMER_PIXEL_RULE else {"pixel_rule": self.pixel_rule}
        is_exact = self.decoding == FORMER_DECODING or self.pixel_rule < TORCH_RULE
        n_squares = most_squares(self.views)
        views = {} if n_squares == 1 else {"views": n_squares}
        near = {"skip_near_duplicates": True, "near_distance": self.near_distance} if self.skip_near_duplicates else {}
        return {
            "top_k": self.top_k,
            "ranking": self.ranking,
            "sampling": self.sampling,
            "max_label_tokens": self.max_label_tokens,
            "honour_exif": self.honour_exif,
            "dtype": dtype,
            **merging,
            **rule,
            **({} if is_exact else {"decoding": self.decoding}),
            **views,
            **near,
            **({"hub": asdict(self.hub)} if is_hub_model else {}),
        }


def full_labelling(labelling: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the labels as a run's record has them, and those that it leaves out.

    Raises TagstreamError where the run's image tokens are merged by a method that this program does not have.
    """
    settings = {**FORMER_LABELLING, **labelling}
    method = settings.pop("token_merging", TOKEN_MERGING)
    if method != TOKEN_MERGING:
        raise TagstreamError(
            f"the run's image tokens are merged by {method}, and this program merges by {TOKEN_MERGING}; "
            "use the version of tagstream that made the run"
        )
    return settings


@contextmanager
def _as_setting_error() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise TagstreamError(str(error)) from error


def resolve_dtype(dtype: str, device: str) -> str:
    """The dtype to compute in: `auto` is bfloat16 on GPUs and float32 on CPUs, any other stays.

    Args:
        device: torch's name of a device, such as cuda or cpu.
    """
    if dtype != "auto":
        return dtype
    return "bfloat16" if device.startswith("cuda") else "float32"


def run_fingerprint(model_fingerprint: str, labelling: Mapping[str, Any]) -> str:
    """Fingerprint of a run, 12 hex digits: the model's and that of the settings which decide the labels."""
    described = json.dumps({"model": model_fingerprint, "labelling": labelling}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:12]
