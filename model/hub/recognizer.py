"""`HubRecognizer`: any vision-language model of the Hugging Face hub as a recognizer, by one-shot sampling.

Shape suffixes: B images, N names, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from model.branches import BranchDecoder
from model.choices import check_hub_choice, check_hub_image_tokens, find_ranking
from model.dtypes import find_dtype
from model.ending import Ending
from model.hub.branches import share_prefixes
from model.hub.inputs import image_token_count, image_token_of, load_processor, make_inputs, resolve_image_options
from model.hub.label_tokens import LabelTokens, fold_label
from model.hub.options import HubOptions
from model.hub.prefill import prefill
from model.hub.prompt import write_prompt
from model.hub.self_check import choose_branches
from model.hub.view import WholeImages
from model.images.image_input import ImageInput, read_images
from model.listed_names import ListedNames, no_scores, score_names
from model.notebook import LabelLists, Labels
from model.part_clock import PartClock
from model.ranking import Label, RankedLabels, Spelling, rank_branches, score_branches
from model.sampling import SampledBatch, sample_branches
from model.transfers import to_device

# The logits of so many branches are held at once: 512 MiB with a vocabulary of 128,000.
_MAX_SCORED_BRANCHES = 1024
_CHECKED_SIZES = ((96, 64), (64, 128))


class HubRecognizer:
    """A vision-language model with its processor and its prompt, ready to label images.

    A `model.tagger.Tagger`.

    Attributes: `model`, `processor`, `options`, `image_options` (of every call of the image processor), `prompt`,
    `preprocessor` (what decodes images), `branch_choice` (how branches are decoded, and what the check at load saw).
    """

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
        self.preprocessor = WholeImages(max_view_pixels=options.max_view_pixels)
        text_config = model.config.get_text_config(decoder=True)
        tokenizer = processor.tokenizer
        self._tokens = LabelTokens(
            tokenizer, options, _eos_ids(model, tokenizer), text_config.vocab_size, self.prompt.separator == " "
        )
        self._spelling = Spelling(self._tokens.spell, fold_label)
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
            dtype: float32, bfloat16, float16, or stored: the one the weights are stored in. Default float32 on a CPU,
                else stored.

        Raises ValueError, ImportError or NotImplementedError, each with a sentence, where it cannot be a recognizer.
        """
        options = options or HubOptions()
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        processor = load_processor(Path(folder), options)
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=find_dtype(dtype, torch.device(device)),
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

    @property
    def why_copied(self) -> str | None:
        """Why each branch has a copy of its image's tokens; None where the check at load found sharing exact."""
        return self.branch_choice.why_copied

    def prepare(self, views: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """What the model takes for these views, in the CPU's memory.

        Args:
            views: pictures, uint8 [H, W, 3], as `preprocessor.view` gives them.
        """
        if not len(views):
            return {}
        return make_inputs(self.processor, self.prompt, views, self.dtype, self.image_options)

    def n_image_tokens(self, view: np.ndarray) -> int:
        """Tokens that this view costs in front of every label."""
        return image_token_count(self.prepare([view]), image_token_of(self.model.config))

    def label(
        self, images: Sequence[ImageInput], top_k: int = 20, ranking: str = "prob", **options: Any
    ) -> list[list[Label]]:
        """Labels of each image, best first.

        Args:
            images: paths, encoded bytes or PIL images, in any mixture.
            top_k: branches decoded an image, 1 to 200.
            ranking: prob, ppl or none (model.ranking).
            options: `max_label_tokens`, and `keep_unfinished` to return branches that never closed behind the others.

        Raises ImageDecodeError where bytes are no readable image.
        """
        keep_unfinished = options.pop("keep_unfinished", False)
        find_ranking(ranking)
        sampled = self.sample(
            self.prepare([self.preprocessor.view(image) for image in read_images(images)]), top_k, **options
        )
        return self.rank(sampled, ranking, keep_unfinished=keep_unfinished)

    @torch.inference_mode()
    def sample(
        self,
        prepared: Mapping[str, Tensor],
        top_k: int,
        *,
        sampling: str = "one_shot",
        max_label_tokens: int = 16,
        image_tokens: int = 0,
        names: Sequence[ListedNames] = (),
        clock: PartClock | None = None,
    ) -> SampledBatch:
        """Token ids and probabilities of each image's branches, not yet ranked.

        Args:
            prepared: what `prepare` made.
            image_tokens: 0; another number is refused.
            names: lists of `list_names` to score over the same prefix.
            clock: gets a mark behind prefill, which encodes the images, too, and behind branches.
        """
        check_hub_choice("sampling", sampling)
        check_hub_image_tokens(image_tokens)
        if not prepared:
            return SampledBatch([], torch.empty(0, 0, 0), no_scores(names))
        decoder = self._prefill(prepared, clock)
        branches = sample_branches(decoder, self._ending, top_k, max_label_tokens, self._opens_V)
        if clock:
            clock.mark("branches")
        n_images = len(branches.n_tokens_BK)
        return SampledBatch(branches, torch.empty(n_images, 0, 0), self._score_names(decoder, names, clock))

    @torch.inference_mode()
    def score_prepared(
        self,
        prepared: Mapping[str, Tensor],
        names: Sequence[ListedNames],
        *,
        image_tokens: int = 0,
        clock: PartClock | None = None,
    ) -> tuple[Tensor, ...]:
        """Log probability of every name of each list, float32 [B, N] in the CPU's memory; no labels are sampled.

        Args:
            prepared: what `prepare` made.
            names: lists of `list_names`.
            image_tokens: 0; another number is refused.
        """
        check_hub_image_tokens(image_tokens)
        return self._score_names(self._prefill(prepared, clock), names, clock) if prepared else no_scores(names)

    def list_names(self, spellings: Sequence[Sequence[str]], batch_size: int = 1) -> ListedNames:
        """A list of names, ready to be scored by `sample` and `score_prepared`.

        Args:
            spellings: of each name; the probabilities of a name's spellings are summed, with and without a capital.
            batch_size: images that are scored at once, at most. So many branches are open that they fit into memory.

        Raises ValueError where a spelling cannot be a label.
        """
        ids = [[ids for spelling in of_name for ids in self._written(spelling)] for of_name in spellings]
        return ListedNames.of(ids, max(1, _MAX_SCORED_BRANCHES // max(1, batch_size)), self.device)

    def score(self, images: Sequence[ImageInput], names: Sequence[str]) -> Tensor:
        """Log probability that the model writes each of these names for each image, float32 [images, names].

        Raises ImageDecodeError where bytes are no readable image, ValueError where a name cannot be a label.
        """
        prepared = self.prepare([self.preprocessor.view(image) for image in read_images(images)])
        (scores,) = self.score_prepared(prepared, [self.list_names([[name] for name in names], len(images))])
        return scores

    def rank(self, sampled: SampledBatch, ranking: str = "prob", *, keep_unfinished: bool = False) -> list[list[Label]]:
        """Turns sampled branches into each image's labels, best first; spellings of one label are one.

        Args:
            ranking: prob, ppl or none.
        """
        images = self.rank_batch(sampled, ranking).to_lists(keep_unfinished)
        return LabelLists(Labels(labels, ranking) for labels in images)

    def rank_batch(self, sampled: SampledBatch, ranking: str = "prob") -> RankedLabels:
        """As `rank`, as columns: what a job needs, and many times faster."""
        check_hub_choice("ranking", ranking)
        by, branches = find_ranking(ranking), sampled.flat()
        return rank_branches(branches, score_branches(branches, by), self._spelling, by)

    def _prefill(self, prepared: Mapping[str, Tensor], clock: PartClock | None) -> BranchDecoder:
        prefix = prefill(self.model, self._to_device(prepared))
        if clock:
            clock.mark("prefill")
        return self.branch_choice.make(self.model, prefix)

    def _score_names(
        self, decoder: BranchDecoder, names: Sequence[ListedNames], clock: PartClock | None
    ) -> tuple[Tensor, ...]:
        scores = tuple(score_names(decoder, of_list, self._ending).cpu() for of_list in names)
        if names and clock:
            clock.mark("names")
        return scores

    def _written(self, spelling: str) -> list[list[int]]:
        """Token ids of a spelling, and of it with a capital where the model can write that: models write both."""
        tokenizer = self.processor.tokenizer
        ids = [self.prompt.label_ids(tokenizer, spelling)]
        with contextlib.suppress(ValueError):
            ids.append(self.prompt.label_ids(tokenizer, spelling[:1].upper() + spelling[1:]))
        return ids

    def _to_device(self, prepared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        moved: dict[str, Tensor] = to_device(prepared, self.device)
        return moved


def _eos_ids(model: PreTrainedModel, tokenizer: Any) -> Iterable[int]:
    """Tokens that end the model's turn."""
    of_model = model.generation_config.eos_token_id if model.generation_config else None
    listed = of_model if isinstance(of_model, list) else [of_model]
    return {token_id for token_id in (*listed, tokenizer.eos_token_id) if token_id is not None}


def _checked_view(width: int, height: int) -> np.ndarray:
    """A picture of this size with all kinds of brightness, the same every time."""
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
