"""`Tagger`: what labels images, whatever its kind. NXTP recognizers and vision-language models of the hub are taggers.

Shape suffixes: B images, N names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from model.folder import is_hub_model
from model.hub.options import HubOptions
from model.listed_names import ListedNames
from model.part_clock import PartClock
from model.ranking import Label, RankedLabels
from model.sampling import SampledBatch

_PHOTOGRAPH = (768, 1024)


class Tagger(Protocol):
    """Labels batches of images: `views` in any thread, `prepare`, then `sample` on the device, then `rank`."""

    @property
    def preprocessor(self) -> Any:
        """What decodes images, a frozen `model.images.preprocessing.ImageDecoding`. Its `views` are uint8 [H, W, 3]."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def why_copied(self) -> str | None:
        """Why each branch has a copy of its image's tokens, which costs memory and time; None where they are shared."""

    def prepare(self, views: Sequence[np.ndarray]) -> Any:
        """What `sample` takes for these views, in the CPU's memory."""

    def sample(
        self,
        prepared: Any,
        top_k: int,
        *,
        sampling: str,
        max_label_tokens: int,
        image_tokens: int = 0,
        names: Sequence[ListedNames] = (),
        clock: PartClock | None = None,
    ) -> SampledBatch:
        """Labels of a batch, not yet ranked, and over the same prefixes the scores of lists of names.

        Args:
            image_tokens: how many tokens the decoder reads of an image; 0 is all. Raises ValueError where the model
                cannot do with so many.
        """

    def score_prepared(
        self, prepared: Any, names: Sequence[ListedNames], *, image_tokens: int = 0, clock: PartClock | None = None
    ) -> tuple[Tensor, ...]:
        """Log probability of every name of each list, float32 [B, N] in the CPU's memory; no labels are sampled."""

    def rank(self, sampled: SampledBatch, ranking: str, *, keep_unfinished: bool = False) -> list[list[Label]]:
        """Each image's labels, best first."""

    def rank_batch(self, sampled: SampledBatch, ranking: str) -> RankedLabels:
        """The same labels as columns, which is many times faster."""

    def list_names(self, spellings: Sequence[Sequence[str]], batch_size: int = 1) -> ListedNames:
        """A list of names, each with its spellings, ready to be scored for batches of this size."""


def load_tagger(
    folder: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    options: HubOptions | None = None,
) -> Tagger:
    """The tagger of a model's local folder.

    Args:
        device: default the first GPU where there is one, else the CPU.
        dtype: float32, bfloat16 or float16; default the dtype the weights are stored in.
        options: how a model of the hub is asked.

    Raises ValueError, ImportError or NotImplementedError, with a sentence, where a model of the hub is no tagger.
    """
    if is_hub_model(folder):
        from model.hub.recognizer import HubRecognizer

        return HubRecognizer.from_pretrained(folder, device, dtype, options)
    from model.nxtp.recognizer import Recognizer

    return Recognizer.from_pretrained(folder, device, dtype)


def load_name_tokens(folder: str | Path, options: HubOptions) -> Callable[[str], list[int]]:
    """Token ids of a name as a model writes it, what ends it not included. No weights are loaded for it.

    The function raises ValueError where the model cannot write the name.
    """
    if is_hub_model(folder):
        prompt, processor = _read_prompt(folder, options)
        return lambda name: prompt.label_ids(processor.tokenizer, name)
    from model.nxtp.name_tokens import NameTokens

    return NameTokens.from_pretrained(folder).ids


def resolve_image_tokens(folder: str | Path, image_tokens: int, name: str = "image_tokens") -> int:
    """The number of image tokens as an NXTP recognizer's labels depend on it: 0 where all are asked for by number.

    No weights are loaded. Raises ValueError, which calls the number by its `name`, for more than the model has.
    """
    from model.nxtp.configuration import RecognizerConfig

    config = RecognizerConfig.from_pretrained(folder)
    n_kept = config.n_kept_tokens(image_tokens, name)
    return 0 if n_kept == config.n_image_tokens else n_kept


@dataclass(frozen=True, slots=True)
class ImageCost:
    """What images cost a model of the hub.

    image_options: of its image processor, those by default among them.
    n_tokens: tokens that a photograph of 1024 x 768 costs in front of every label.
    sees_squares: whether every image is one square to the model, so that wide ones are better seen in several views.
    """

    image_options: dict[str, Any]
    n_tokens: int
    sees_squares: bool = False


def measure_image_cost(folder: str | Path, options: HubOptions) -> ImageCost:
    """What images cost a model of the hub that is asked so. No weights are loaded for it.

    Raises ValueError or ImportError, with a sentence, where the model cannot be asked so.
    """
    from transformers import AutoConfig

    from model.hub.inputs import (
        image_token_count,
        image_token_of,
        make_inputs,
        resolve_image_options,
        sees_squares,
    )

    prompt, processor = _read_prompt(folder, options)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    photograph = np.zeros((*_PHOTOGRAPH, 3), dtype=np.uint8)
    image_options = resolve_image_options(processor.image_processor, options)
    inputs = make_inputs(processor, prompt, [photograph], torch.float32, image_options)
    n_tokens = image_token_count(inputs, image_token_of(config))
    return ImageCost(image_options, n_tokens, sees_squares(processor, prompt, image_options))


def _read_prompt(folder: str | Path, options: HubOptions) -> tuple[Any, Any]:
    """The prompt of a model of the hub, and its processor."""
    from transformers import AutoConfig

    from model.hub.inputs import load_processor
    from model.hub.prompt import write_prompt

    processor = load_processor(Path(folder), options)
    model_type = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
    return write_prompt(processor, model_type, options), processor
