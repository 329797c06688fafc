"""`Recognizer`: images in, ranked labels out. The one class that serving, training and evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from model.choices import SAMPLINGS, check_merging, check_view_tokens, find_ranking
from model.dtypes import find_dtype
from model.ending import Ending
from model.folder import PREPROCESSOR_FILE, resolve_folder
from model.images.image_input import ImageInput, read_image, read_images
from model.images.preprocessing import ImagePreprocessor
from model.images.resampling import box_in
from model.images.views import CENTRE, count_tokens, cut_batches, most_squares, share_branches
from model.joined_views import join_views
from model.listed_names import ListedNames, no_scores, score_names, score_views
from model.notebook import LabelLists, Labels, recognizer_html
from model.nxtp.branches import NxtpBranches, sample_one_shot
from model.nxtp.configuration import RecognizerConfig
from model.nxtp.explanation import Explanation, explain_labels
from model.nxtp.list_decoding import decode_lists
from model.nxtp.modeling import Prefix, RecognizerModel
from model.nxtp.name_tokens import NameTokens, Tokenizer
from model.nxtp.similarity import branch_distances
from model.part_clock import PartClock
from model.ranking import Label, RankedLabels, Spelling, rank_branches, score_branches
from model.sampling import SampledBatch, check_top_k
from model.transfers import to_device

# The logits of so many branches are held at once: 512 MiB with a vocabulary of 32,000.
_MAX_SCORED_BRANCHES = 4096


class Recognizer:
    """A recognizer model with its preprocessing and its tokenizer, ready to label images.

    Attributes: `module` (the `RecognizerModel`), `preprocessor`, `tokenizer`.
    """

    def __init__(self, module: RecognizerModel, preprocessor: ImagePreprocessor, tokenizer: Tokenizer) -> None:
        image_size = module.config.vision_config.image_size
        if preprocessor.image_size != image_size:
            raise ValueError(
                f"the preprocessor crops to {preprocessor.image_size} px, the encoder takes {image_size} px"
            )
        self.module = module.eval()
        self.preprocessor = preprocessor
        self.tokenizer = tokenizer
        self._spelling = Spelling(self._spell)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> Self:
        """Loads a recognizer's folder (safetensors and json; nothing is unpickled), or one from the Hugging Face hub.

        Args:
            path: a local folder, `org/name` or `org/name@revision` of the hub, or `demo`: the model that comes along.
            device: default the first GPU where there is one, else the CPU.
            dtype: float32, bfloat16, float16, or `stored` for the dtype the weights are stored in; default float32 on a
                CPU, which is slow at the others, else `stored`.
        """
        folder = resolve_folder(path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        module, report = RecognizerModel.from_pretrained(
            folder, dtype=find_dtype(dtype, torch.device(device)), use_safetensors=True, output_loading_info=True
        )
        wrong = sorted([*report["missing_keys"], *report["unexpected_keys"]])
        if wrong:
            raise ValueError(f"the weights in {folder} do not fit its config.json; missing or left over: {wrong[:5]}")
        return cls(
            cast(RecognizerModel, module).to(device),
            ImagePreprocessor.from_pretrained(folder),
            # Otherwise transformers asks on the terminal whether to run code that comes with a tokenizer.
            AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        )

    def save_pretrained(self, path: str | Path) -> None:
        """Writes the folder that `from_pretrained` reads: configuration, safetensors, preprocessing, tokenizer."""
        if not hasattr(self.tokenizer, "save_pretrained"):
            raise TypeError(f"{type(self.tokenizer).__name__} has no save_pretrained; use a transformers tokenizer")
        Path(path).mkdir(parents=True, exist_ok=True)
        self.module.save_pretrained(path)
        self.preprocessor.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        for weights in Path(path).glob("*.safetensors"):
            # safetensors lets none but their owner read the weights; workers may be other users.
            weights.chmod((Path(path) / PREPROCESSOR_FILE).stat().st_mode)

    @property
    def config(self) -> RecognizerConfig:
        return self.module.config

    @property
    def device(self) -> torch.device:
        return self.module.device

    @property
    def why_copied(self) -> None:
        """Its branches always share their image's tokens."""

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    def label(
        self,
        images: Sequence[ImageInput],
        top_k: int = 20,
        ranking: str = "prob",
        *,
        views: str | int = CENTRE,
        view_tokens: int = 0,
        image_tokens: int = 0,
        keep_unfinished: bool = False,
        **options: Any,
    ) -> list[list[Label]]:
        """Labels of each image, best first.

        Args:
            images: paths, encoded bytes (JPEG, PNG, WebP, GIF, BMP, TIFF) or PIL images, in any mixture.
            top_k, ranking, image_tokens, keep_unfinished, options: as in `label_pixels`. An image's views share its
                branches.
            views: "centre" labels the centre of each image, "whole" up to four squares that cover it, a number at most
                so many. Their labels are joined by `model.joined_views`.
            view_tokens: `image_tokens` of the views of images that have several, and of no others.

        Raises ImageDecodeError where a file or bytes are no readable image, TypeError for what is none of these.
        """
        # Before the device is kept busy for a ranking that there is none of.
        by, most = find_ranking(ranking), most_squares(views)
        check_view_tokens(view_tokens, image_tokens, most)
        seen = [self.preprocessor.views(image, most) for image in read_images(images)]
        n_views = [len(squares) for squares in seen]
        # Without images there is one batch all the same: what is asked for is checked.
        places = cut_batches(n_views, max(1, sum(n_views))) or [[]]
        ranked = []
        for of_batch in places:
            n_alike = n_views[of_batch[0][0]] if of_batch else 1
            squares = self.prepare([seen[image][view] for image, view in of_batch])
            n_tokens = count_tokens(n_alike, image_tokens, view_tokens)
            sampled = self.sample(squares, share_branches(top_k, n_alike), image_tokens=n_tokens, **options)
            ranked.append(self.rank_batch(sampled, ranking))
        joined = join_views(ranked, places, len(seen), by, top_k)
        return LabelLists(Labels(labels, ranking) for labels in joined.to_lists(keep_unfinished))

    def label_pixels(
        self,
        pixel_values: Tensor,
        top_k: int = 20,
        ranking: str = "prob",
        *,
        sampling: str = "one_shot",
        max_label_tokens: int | None = None,
        image_tokens: int = 0,
        keep_unfinished: bool = False,
    ) -> list[list[Label]]:
        """Labels of a batch of preprocessed images, best first.

        Args:
            pixel_values: normalised floats [B, 3, H, W].
            top_k: branches decoded an image, 1 to 200. Fewer labels come back where branches are empty, spell the same
                label or do not finish.
            ranking: "prob", "ppl", "sim" or "none" (model.ranking).
            sampling: "one_shot", or the paper's baselines "greedy" and "beam", which write one list of top_k labels.
            max_label_tokens: longest label in tokens, its delimiter not counted; default the model's setting (16). The
                lists of the baselines may have top_k times as many together.
            image_tokens: how many tokens the decoder reads of an image; the model's image tokens are merged into them
                (model.nxtp.token_merging). 0 is all of them. One-shot sampling alone takes another number.
            keep_unfinished: also return branches that never closed, behind the others, with `finished=False`.
        """
        # Before the device is kept busy for a ranking that there is none of.
        find_ranking(ranking)
        sampled = self.sample(
            pixel_values, top_k, sampling=sampling, max_label_tokens=max_label_tokens, image_tokens=image_tokens
        )
        return self.rank(sampled, ranking, keep_unfinished=keep_unfinished)

    @torch.inference_mode()
    def sample(
        self,
        pixel_values: Tensor,
        top_k: int,
        *,
        sampling: str = "one_shot",
        max_label_tokens: int | None = None,
        image_tokens: int = 0,
        names: Sequence[ListedNames] = (),
        clock: PartClock | None = None,
    ) -> SampledBatch:
        """The device's half of `label_pixels`: token ids and probabilities of each image's branches, not yet ranked.

        A caller that labels batch after batch ranks one while the device samples the next.

        Args:
            names: lists of `list_names` to score over the same prefix.
            clock: gets a mark behind each part: encode, prefill (where image tokens are merged, that too), branches,
                and where names are scored, names. The baselines' lists are one part with their prefill, branches.
        """
        mark = clock.mark if clock else _mark_nothing
        check_top_k(top_k, self.config.text_config.vocab_size)
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling is {sampling!r}; expected one of {', '.join(SAMPLINGS)}")
        max_label_tokens = self.config.max_label_tokens if max_label_tokens is None else max_label_tokens
        if max_label_tokens < 1:
            raise ValueError(f"max_label_tokens is {max_label_tokens}; expected 1 or more")
        if self.config.n_kept_tokens(image_tokens) < self.config.n_image_tokens:
            check_merging(image_tokens, sampling)
        pixel_values = pixel_values.to(self.device, self.dtype)
        if len(pixel_values) == 0:
            return SampledBatch([], pixel_values, no_scores(names))
        if sampling == "one_shot":
            image_embeds = self.module.encode_images(pixel_values)
            mark("encode")
            prefix = self.module.prefill_image_tokens(image_embeds, image_tokens)
            mark("prefill")
            branches = sample_one_shot(self.module, prefix, top_k, max_label_tokens)
            mark("branches")
            return SampledBatch(branches, image_embeds, self._score_names(prefix, names, mark))
        image_embeds = self.module.encode_images(pixel_values)
        mark("encode")
        lists = decode_lists(self.module, image_embeds, cast(Any, sampling), top_k, max_label_tokens)
        mark("branches")
        prefix = self.module.prefill_image_tokens(image_embeds) if names else None
        return SampledBatch(lists, image_embeds, self._score_names(prefix, names, mark))

    def list_names(self, spellings: Sequence[Sequence[str]], batch_size: int = 1) -> ListedNames:
        """A list of names, ready to be scored by `sample` and `score_prepared`.

        Args:
            spellings: of each name, as the model would write it; the probabilities of a name's spellings are summed.
            batch_size: images that are scored at once, at most. So many branches are open that they fit into memory.

        Raises ValueError where a spelling cannot be a label.
        """
        tokens = NameTokens(self.tokenizer, self.config.delimiter_id)
        ids = [[tokens.ids(spelling) for spelling in of_name] for of_name in spellings]
        return ListedNames.of(ids, max(1, _MAX_SCORED_BRANCHES // max(1, batch_size)), self.device)

    @torch.inference_mode()
    def score_prepared(
        self,
        pixel_values: Tensor,
        names: Sequence[ListedNames],
        *,
        image_tokens: int = 0,
        clock: PartClock | None = None,
    ) -> tuple[Tensor, ...]:
        """Log probability of every name of each list, float32 [B, names] in the CPU's memory; no labels are sampled.

        Args:
            pixel_values: normalised floats [B, 3, H, W].
            names: lists of `list_names`.
            image_tokens: as in `label_pixels`.
            clock: gets a mark behind each part: encode, prefill, names.
        """
        mark = clock.mark if clock else _mark_nothing
        if len(pixel_values) == 0:
            return no_scores(names)
        image_embeds = self.module.encode_images(pixel_values.to(self.device, self.dtype))
        mark("encode")
        prefix = self.module.prefill_image_tokens(image_embeds, image_tokens)
        mark("prefill")
        return self._score_names(prefix, names, mark)

    def _score_names(
        self, prefix: Prefix | None, names: Sequence[ListedNames], mark: Callable[[str], None]
    ) -> tuple[Tensor, ...]:
        if prefix is None or not names:
            return ()
        ending = Ending([self.config.delimiter_id], self.device)
        scores = tuple(score_names(NxtpBranches(self.module, prefix), of_list, ending).cpu() for of_list in names)
        mark("names")
        return scores

    def rank(self, sampled: SampledBatch, ranking: str = "prob", *, keep_unfinished: bool = False) -> list[list[Label]]:
        """Turns sampled branches into each image's labels, best first; `ranking` and the rest as in `label_pixels`."""
        images = self.rank_batch(sampled, ranking).to_lists(keep_unfinished)
        return LabelLists(Labels(labels, ranking) for labels in images)

    def rank_batch(self, sampled: SampledBatch, ranking: str = "prob") -> RankedLabels:
        """As `rank`, as columns: what a job needs, and many times faster."""
        by, branches = find_ranking(ranking), sampled.flat()
        if by.compares_with_image:
            with torch.inference_mode():
                embedding_VD = self.module.get_input_embeddings().weight
                scores_M = branch_distances(branches, sampled.image_embeds_BND, embedding_VD)
        else:
            scores_M = score_branches(branches, by)
        return rank_branches(branches, scores_M, self._spelling, by)

    def _spell(self, token_ids: tuple[int, ...]) -> str:
        """The label that these tokens spell, without its delimiter."""
        body = token_ids[:-1] if token_ids[-1] == self.config.delimiter_id else token_ids
        return self.tokenizer.decode(list(body)).strip() if body else ""

    @torch.inference_mode()
    def score(
        self,
        images: Sequence[ImageInput],
        names: Sequence[str],
        *,
        views: str | int = CENTRE,
        view_tokens: int = 0,
        image_tokens: int = 0,
    ) -> Tensor:
        """Log probability that the model writes each of these names for each image, float32 [images, names].

        It is that of the name's tokens and of the delimiter behind them. The ranking "prob" gives the same probability
        to a label that one branch alone spells.

        Args:
            images: as in `label`.
            names: labels of your own list, each spelled as the model would write it.
            views, view_tokens: as in `label`. A name scores what it scores in the view that scores it best.
            image_tokens: as in `label_pixels`.

        Raises ImageDecodeError where bytes are no readable image, ValueError where a name cannot be a label.
        """
        most = most_squares(views)
        check_view_tokens(view_tokens, image_tokens, most)
        seen = [self.preprocessor.views(image, most) for image in read_images(images)]
        listed = self.list_names([[name] for name in names], sum(map(len, seen)))
        return torch.from_numpy(score_views(self, seen, listed, image_tokens, view_tokens))

    def explain(
        self,
        image: ImageInput,
        top_k: int = 10,
        ranking: str = "prob",
        *,
        max_label_tokens: int | None = None,
        image_tokens: int = 0,
        views: str | int = CENTRE,
        view_tokens: int = 0,
    ) -> Explanation:
        """The labels that `label` gives this image (by one-shot sampling), and which patches each one looked at.

        Args:
            image: a path, encoded bytes or a PIL image.
            top_k, ranking, max_label_tokens, image_tokens: as in `label_pixels`. The attention that a merged token gets
                is spread evenly over its patches.
            views, view_tokens: as in `label`.

        Raises ImageDecodeError where bytes are no readable image.
        """
        by, most = find_ranking(ranking), most_squares(views)
        check_view_tokens(view_tokens, image_tokens, most)
        image = read_image(image)
        upright, squares = self.preprocessor.open_upright(image), self.preprocessor.views(image, most)
        n_tokens = count_tokens(len(squares), image_tokens, view_tokens)
        sampled = self.sample(
            self.prepare(squares),
            share_branches(top_k, len(squares)),
            max_label_tokens=max_label_tokens,
            image_tokens=n_tokens,
        )
        places = [[(0, view) for view in range(len(squares))]]
        (labels,) = join_views([self.rank_batch(sampled, ranking)], places, 1, by, top_k).to_lists()
        boxes = [box_in(frame, upright.size) for frame in self.preprocessor.frames(*upright.size, most)]
        return explain_labels(self.module, sampled.image_embeds_BND, labels, upright, boxes, ranking, n_tokens)

    def facts(self) -> dict[str, str]:
        """What this recognizer is, for people: model, prompt, image, encoder, decoder, vocabulary, parameters."""
        config = self.config
        vision, text = config.vision_config, config.text_config
        n_parameters = sum(part.numel() for part in self.module.parameters())
        return {
            "model": PurePath(self.module.name_or_path).name or "made from scratch",
            "prompt": self.tokenizer.decode(list(config.prompt_ids)),
            "image": f"{vision.image_size} px, {config.n_image_tokens:,} patches of {vision.patch_size} px",
            "encoder": _blocks(vision),
            "decoder": _blocks(text),
            "vocabulary": f"{text.vocab_size:,} tokens",
            "parameters": f"{n_parameters:,} in {str(self.dtype).removeprefix('torch.')} on {self.device}",
        }

    def _repr_html_(self) -> str:
        return recognizer_html(self.facts())

    def prepare(self, crops: Sequence[np.ndarray]) -> Tensor:
        """Views of `preprocessor.view`, uint8 [H, W, 3] each, as the pixel values [B, 3, H, W] that `sample` takes."""
        size = self.preprocessor.image_size
        stacked = np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8)
        return self.preprocessor.normalise(to_device(torch.from_numpy(stacked), self.device), self.dtype)

    @torch.inference_mode()
    def first_logits(self, pixel_values: Tensor) -> Tensor:
        """Logits of the first label token, float32 [B, vocabulary]."""
        prefix = self.module.prefill(pixel_values.to(self.device, self.dtype))
        return self.module.token_logits(prefix.answer_BD)


def _blocks(config: Any) -> str:
    return f"{config.num_hidden_layers} blocks, {config.num_attention_heads} heads, {config.hidden_size} wide"


def _mark_nothing(part: str) -> None:
    pass
