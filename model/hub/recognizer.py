"""`HubRecognizer`: any vision-language model of the Hugging Face hub as a recognizer, by one-shot sampling.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from model.choices import DTYPES, find_ranking
from model.ending import Ending
from model.hub.branches import share_prefixes
from model.hub.inputs import image_token_count, load_processor, make_inputs, resolve_image_options
from model.hub.label_tokens import LabelTokens, fold_label
from model.hub.options import HubOptions
from model.hub.prefill import prefill
from model.hub.prompt import write_prompt
from model.hub.self_check import choose_branches
from model.hub.view import WholeImages
from model.notebook import LabelLists, Labels
from model.part_clock import PartClock
from model.ranking import Label, make_label, rank
from model.sampling import Branches, SampledBatch, sample_branches

_CHECKED_SIZES = ((96, 64), (64, 128))


class HubRecognizer:
    """A vision-language model with its processor and its prompt, ready to label images.

    Attributes: `model`, `processor`, `options`, `image_options` (of every call of the image processor), `prompt`,
    `views` (what decodes images), `branch_choice` (how branches are decoded, and what the check at load saw).
    """

    rankings = frozenset({"prob", "ppl", "none"})
    """Rankings that it has; `sim` compares with image tokens in the space of words, which these models do not share."""
    samplings = frozenset({"one_shot"})

    def __init__(self, model: PreTrainedModel, processor: Any, options: HubOptions) -> None:
        """
        Args:
            model: in the dtype and on the device that it labels with.

        Raises NotImplementedError where the model cannot decode branches, ValueError where it cannot be prompted.
        """
        share_prefixes(model)
        self.model, self.processor, self.options = model.eval(), processor, options
        self.image_options = resolve_image_options(processor.image_processor, options)
        self.prompt = write_prompt(processor, model.config.model_type, options)
        self.views = WholeImages(max_view_pixels=options.max_view_pixels)
        text_config = model.config.get_text_config(decoder=True)
        tokenizer = processor.tokenizer
        self._tokens = LabelTokens(
            tokenizer, options, _eos_ids(model, tokenizer), text_config.vocab_size, self.prompt.separator == " "
        )
        self._ending = Ending(self._tokens.closing_ids, model.device)
        opens_V = self._tokens.opens_V
        self._opens_V = None if opens_V is None else opens_V.to(model.device)
        examples = [_checked_view(width, height) for width, height in _CHECKED_SIZES]
        self.branch_choice = choose_branches(
            model, [self._to_device(self.prepare([view])) for view in examples], self._to_device(self.prepare(examples))
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        options: HubOptions | None = None,
    ) -> Self:
        """Loads a model's folder (safetensors and json; nothing is unpickled and no code is run).

        Args:
            device: default the first GPU where there is one, else the CPU.
            dtype: float32, bfloat16 or float16; default the dtype the weights are stored in.

        Raises ValueError, ImportError or NotImplementedError, each with a sentence, where it cannot be a recognizer.
        """
        options = options or HubOptions()
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        processor = load_processor(Path(folder), options)
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=_as_dtype(dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise ValueError(f"the weights in {folder} do not fit its config.json; missing: {missing[:5]}")
        return cls(model.to(device), processor, options)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def prepare(self, views: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """What the model takes for these views, in the CPU's memory.

        Args:
            views: pictures, uint8 [H, W, 3], as `views.view` gives them.
        """
        if not len(views):
            return {}
        return make_inputs(self.processor, self.prompt, views, self.dtype, self.image_options)

    def n_image_tokens(self, view: np.ndarray) -> int:
        """Tokens that this view costs in front of every label."""
        config = self.model.config
        image_token_id = getattr(config, "image_token_id", None) or config.image_token_index
        return image_token_count(self.prepare([view]), image_token_id)

    def label(
        self, images: Sequence[Image.Image | bytes], top_k: int = 20, ranking: str = "prob", **options: Any
    ) -> list[list[Label]]:
        """Labels of each image, best first.

        Args:
            images: PIL images or encoded bytes.
            top_k: branches decoded an image, 1 to 200.
            ranking: prob, ppl or none (model.ranking).
            options: `max_label_tokens`, and `keep_unfinished` to return branches that never closed behind the others.

        Raises ImageDecodeError where bytes are no readable image.
        """
        keep_unfinished = options.pop("keep_unfinished", False)
        find_ranking(ranking)
        sampled = self.sample(self.prepare([self.views.view(image) for image in images]), top_k, **options)
        return self.rank(sampled, ranking, keep_unfinished=keep_unfinished)

    @torch.inference_mode()
    def sample(
        self,
        prepared: Mapping[str, Tensor],
        top_k: int,
        *,
        sampling: str = "one_shot",
        max_label_tokens: int = 16,
        clock: PartClock | None = None,
    ) -> SampledBatch:
        """Token ids and probabilities of each image's branches, not yet ranked.

        Args:
            prepared: what `prepare` made.
            clock: gets a mark behind prefill, which encodes the images, too, and behind branches.
        """
        if sampling not in self.samplings:
            raise ValueError(f"sampling is {sampling!r}; a model of the hub has {', '.join(sorted(self.samplings))}")
        if not prepared:
            return SampledBatch([], torch.empty(0, 0, 0))
        prefix = prefill(self.model, self._to_device(prepared))
        if clock:
            clock.mark("prefill")
        decoder = self.branch_choice.make(self.model, prefix)
        branches = sample_branches(decoder, self._ending, top_k, max_label_tokens, self._opens_V).cpu()
        if clock:
            clock.mark("branches")
        return SampledBatch(branches, torch.empty(len(branches.n_tokens_BK), 0, 0))

    def rank(self, sampled: SampledBatch, ranking: str = "prob", *, keep_unfinished: bool = False) -> list[list[Label]]:
        """Turns sampled branches into each image's labels, best first; spellings of one label are one.

        Args:
            ranking: prob, ppl or none.
        """
        if ranking not in self.rankings:
            raise ValueError(f"ranking is {ranking!r}; a model of the hub has {', '.join(sorted(self.rankings))}")
        by = find_ranking(ranking)
        listed = sampled.branches.to_lists() if isinstance(sampled.branches, Branches) else sampled.branches
        images = [[make_label(*branch, self._tokens.spell, by) for branch in branches] for branches in listed]
        return LabelLists(Labels(rank(labels, by, keep_unfinished, fold_label), ranking) for labels in images)

    def _to_device(self, prepared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device, non_blocking=True) for name, value in prepared.items()}


def _eos_ids(model: PreTrainedModel, tokenizer: Any) -> Iterable[int]:
    """Tokens that end the model's turn."""
    of_model = model.generation_config.eos_token_id if model.generation_config else None
    listed = of_model if isinstance(of_model, list) else [of_model]
    return {token_id for token_id in (*listed, tokenizer.eos_token_id) if token_id is not None}


def _checked_view(width: int, height: int) -> np.ndarray:
    """A picture of this size with all kinds of brightness, the same every time."""
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _as_dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    if dtype is None:
        return "auto"
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    resolved: torch.dtype = getattr(torch, dtype)
    return resolved
