"""What a labelling job is asked to do."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from model.choices import DTYPES, RANKINGS, SAMPLINGS
from model.preprocessing import MAX_IMAGE_PIXELS
from pipeline.errors import TagstreamError
from pipeline.sample import MAX_SAMPLE_BYTES, MAX_SAMPLE_S
from pipeline.settings_file import check_choice, check_range

ChangedPolicy = Literal["keep", "relabel", "fail"]
CHANGED_POLICIES: tuple[str, ...] = get_args(ChangedPolicy)


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
    honour_exif: bool = True
    """Turn photographs upright by their EXIF orientation."""
    dtype: str = "auto"
    """float32, bfloat16 or float16; auto is bfloat16 on GPUs and float32 on CPUs."""
    batch_size: int = 0
    """Images labelled at once; 0 is 64 on GPUs and 16 on CPUs."""
    actors: int = 0
    """Labelling actors; 0 is one a GPU, or as many as the CPUs allow."""
    gpus_per_actor: float = 1.0
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

    def __post_init__(self) -> None:
        check_choice("ranking", self.ranking, RANKINGS)
        check_choice("sampling", self.sampling, SAMPLINGS)
        check_choice("dtype", self.dtype, ("auto", *DTYPES))
        check_choice("changed", self.changed, CHANGED_POLICIES)
        check_range("top_k", self.top_k, 1, 200)
        check_range("max_label_tokens", self.max_label_tokens, 1, 256)
        check_range("batch_size", self.batch_size, 0, 4096)
        check_range("actors", self.actors, 0, 100_000)
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

    def labelling(self, dtype: str) -> dict[str, Any]:
        """The settings that decide the labels, with the dtype as resolved.

        Limits of a sample are not among them: they decide which are rejected, and a run may go on with others.
        """
        return {
            "top_k": self.top_k,
            "ranking": self.ranking,
            "sampling": self.sampling,
            "max_label_tokens": self.max_label_tokens,
            "honour_exif": self.honour_exif,
            "dtype": dtype,
        }


def run_fingerprint(model_fingerprint: str, labelling: Mapping[str, Any]) -> str:
    """Fingerprint of a run, 12 hex digits: the model's and that of the settings which decide the labels."""
    described = json.dumps({"model": model_fingerprint, "labelling": labelling}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:12]
