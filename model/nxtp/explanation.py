"""What the model looked at: the decoder's attention to the image tokens, label by label.

The labels are those of `Recognizer.label`. Their attention is computed anew: each label's tokens are fed over the keys
and values of the same prefix, through the same modules, with the softmax written out in float32.

Shape suffixes: B images (one here), V views of an image, S prefix tokens (image and prompt), N image tokens that the
decoder reads, A all patches of a view, P patches a side (A = P * P), T tokens fed at once, X tokens that are attended
to, L blocks, H query heads, K key/value heads, E head width, D decoder width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from model.notebook import explanation_html
from model.nxtp.decoder import PrefixCache, PrefixPlaces, finish_block, prefix_mask, project
from model.nxtp.modeling import RecognizerModel
from model.nxtp.token_merging import MergedTokens
from model.ranking import Label

_MAX_VIEW_PIXELS = 448


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedLabel:
    """A label, and where its tokens looked.

    maps: attention of the label's tokens (the delimiter is written but never read, so it has none) to the patches, the
    mean over the tokens; float32 [layers, heads, patches_h, patches_w]. Each sums to the share of its head's attention
    that goes to the image, at most 1; the rest goes to the prompt and to the label itself.
    rollout: what of each patch reaches the label's tokens through all blocks, "attention rollout" (Abnar & Zuidema,
    2020): mean over heads, half residual, mean over the tokens; float32 [patches_h, patches_w].
    """

    label: Label
    maps: Tensor = field(repr=False)
    rollout: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class SeenView:
    """What the model saw of a photograph, and where it looked before any label.

    image: upright, at most 448 px wide and high.
    box: where that lies in the upright photograph: left, top, right, bottom, pixels.
    answer_maps: attention at the answer position, the end of the prompt, from which the first token of every label is
    read; [layers, heads, patches_h, patches_w]. answer_rollout: the rollout to there, [patches_h, patches_w].
    """

    image: Image.Image
    box: tuple[float, float, float, float]
    answer_maps: Tensor = field(repr=False)
    answer_rollout: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The labels of an image with what each looked at.

    labels: best first, those of `Recognizer.label`. The maps of each are of the view that it is of, `label.view`.
    views: what the model saw: one view, or several squares from the left or top.
    photograph: the whole, upright, at most 448 px wide and high.
    ranking: what the labels' scores are.

    `view`, `box`, `answer_maps` and `answer_rollout` are those of the first view.
    """

    labels: list[ExplainedLabel]
    views: list[SeenView]
    photograph: Image.Image = field(repr=False)
    ranking: str

    @property
    def view(self) -> Image.Image:
        return self.views[0].image

    @property
    def box(self) -> tuple[float, float, float, float]:
        return self.views[0].box

    @property
    def answer_maps(self) -> Tensor:
        return self.views[0].answer_maps

    @property
    def answer_rollout(self) -> Tensor:
        return self.views[0].answer_rollout

    def _repr_html_(self) -> str:
        labels = [(explained.label, explained.rollout) for explained in self.labels]
        return explanation_html([(seen.image, seen.answer_rollout) for seen in self.views], labels)


@dataclass(frozen=True, slots=True)
class _Prefix:
    """What a prefix leaves: keys and values, the answer position's attention, and the rollouts.

    rollouts_SN: in front of each block, and behind the last.
    merged: which patches an image token stands for, where image tokens were merged.
    """

    cache: PrefixCache
    answer_maps_LHN: Tensor
    rollouts_SN: list[Tensor]
    merged: MergedTokens | None

    def patch_maps(self, maps: Tensor) -> Tensor:
        """Maps over image tokens as maps over patches, [..., N] -> [..., P, P], in the CPU's memory.

        What a merged token gets is spread evenly over its patches.
        """
        if self.merged is not None:
            maps = (maps / self.merged.sizes_BN[0])[..., self.merged.token_BP[0]]
        side = round(maps.shape[-1] ** 0.5)
        return maps.reshape(*maps.shape[:-1], side, side).cpu()


# Not inference_mode: what comes out of that cannot be changed in place by those who get it.
@torch.no_grad()
def explain_labels(
    module: RecognizerModel,
    image_embeds_VAD: Tensor,
    labels: Sequence[Label],
    upright: Image.Image,
    boxes: Sequence[tuple[float, float, float, float]],
    ranking: str,
    image_tokens: int = 0,
) -> Explanation:
    """Looks up what each label of an image attended to.

    Args:
        image_embeds_VAD: tokens of the image's views as the encoder gives them, from which the labels were sampled.
        labels: best first, as ranked by `ranking`.
        upright: the photograph, turned as its EXIF data say.
        boxes: where the views lie in it.
        image_tokens: how many tokens the image's were merged into; 0 is all.
    """
    prefixes = [_attend_from_prefix(module, embeds_AD[None], image_tokens) for embeds_AD in image_embeds_VAD]
    views = [
        SeenView(
            _cut(upright, box),
            box,
            answer_maps=prefix.patch_maps(prefix.answer_maps_LHN),
            answer_rollout=prefix.patch_maps(prefix.rollouts_SN[-1][-1]),
        )
        for prefix, box in zip(prefixes, boxes, strict=True)
    ]
    photograph = upright.copy()
    photograph.thumbnail((_MAX_VIEW_PIXELS, _MAX_VIEW_PIXELS))
    explained = [_explain_label(module, prefixes[label.view], label) for label in labels]
    return Explanation(explained, views, photograph, ranking)


def attend_blocks(
    decoder: LlamaForCausalLM,
    embeds_BTD: Tensor,
    may_attend_TX: Tensor,
    past: PrefixCache | None,
    places: PrefixPlaces | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Passes tokens of one image through the decoder; of each block its attention and all keys and values.

    Args:
        may_attend_TX: boolean, True where row may attend to column; the columns of `past` come first.
        past: keys and values of the tokens before them, if any.
        places: where these tokens stand, if they are a prefix whose image tokens are merged.

    Yields: attention float32 [H, T, X], keys and values [1, K, X, E].
    """
    first = 0 if past is None else past.next_position
    positions_1T = torch.arange(first, first + embeds_BTD.shape[1], device=embeds_BTD.device)[None]
    rotary = decoder.model.rotary_emb(embeds_BTD, positions_1T if places is None else places.positions_BS)
    mask_TX = _score_mask(may_attend_TX, places if past is None else past.places)
    hidden_BTD = embeds_BTD
    for block, layer in enumerate(decoder.model.layers):
        query_BHTE, key_BKXE, value_BKXE = project(layer, hidden_BTD, rotary)
        if past is not None:
            key_BKXE = torch.cat((past.keys[block], key_BKXE), dim=2)
            value_BKXE = torch.cat((past.values[block], value_BKXE), dim=2)
        n_groups = query_BHTE.shape[1] // key_BKXE.shape[1]
        key_BHXE = key_BKXE.repeat_interleave(n_groups, dim=1)
        scores_BHTX = query_BHTE.float() @ key_BHXE.float().transpose(2, 3) * layer.self_attn.scaling
        weights_BHTX = (scores_BHTX + mask_TX).softmax(dim=-1)
        yield weights_BHTX[0], key_BKXE, value_BKXE
        attended_BHTE = weights_BHTX.to(hidden_BTD.dtype) @ value_BKXE.repeat_interleave(n_groups, dim=1)
        hidden_BTD = finish_block(layer, hidden_BTD, attended_BHTE.transpose(1, 2).flatten(2))


def _attend_from_prefix(model: RecognizerModel, image_embeds_BAD: Tensor, image_tokens: int) -> _Prefix:
    merged = model.merge_image_tokens(image_embeds_BAD, image_tokens)
    read_BND = merged.embeds_BND if merged else image_embeds_BAD
    embeds_BSD = torch.cat((read_BND, _embed(model, model.config.prompt_ids)), dim=1)
    places = merged.places(len(model.config.prompt_ids)) if merged else None
    n_image, n_prefix = read_BND.shape[1], embeds_BSD.shape[1]
    may_attend_SS = prefix_mask(n_image, n_prefix, embeds_BSD.device)
    rollouts_SN = [torch.eye(n_prefix, n_image, device=embeds_BSD.device)]
    cache, answer_maps_HN = PrefixCache([], [], places), []
    for weights_HSS, key_BKSE, value_BKSE in attend_blocks(model.decoder, embeds_BSD, may_attend_SS, None, places):
        cache.keys.append(key_BKSE)
        cache.values.append(value_BKSE)
        answer_maps_HN.append(weights_HSS[:, -1, :n_image])
        rollouts_SN.append(_roll_out(weights_HSS, rollouts_SN[-1], rollouts_SN[-1]))
    return _Prefix(cache, torch.stack(answer_maps_HN), rollouts_SN, merged)


def _explain_label(model: RecognizerModel, prefix: _Prefix, label: Label) -> ExplainedLabel:
    embeds_BTD = _embed(model, label.token_ids[:-1])
    n_tokens, n_prefix = embeds_BTD.shape[1], prefix.cache.n_tokens
    n_image = prefix.answer_maps_LHN.shape[2]
    may_attend_TX = torch.ones(n_tokens, n_prefix + n_tokens, dtype=torch.bool, device=embeds_BTD.device)
    may_attend_TX = may_attend_TX.tril(diagonal=n_prefix)
    maps_HN = []
    rollout_TN = torch.zeros(n_tokens, n_image, device=embeds_BTD.device)
    blocks = attend_blocks(model.decoder, embeds_BTD, may_attend_TX, prefix.cache)
    for (weights_HTX, _, _), rollout_SN in zip(blocks, prefix.rollouts_SN[:-1], strict=True):
        maps_HN.append(weights_HTX[:, :, :n_image].mean(dim=1))
        rollout_TN = _roll_out(weights_HTX, torch.cat((rollout_SN, rollout_TN)), rollout_TN)
    return ExplainedLabel(label, prefix.patch_maps(torch.stack(maps_HN)), prefix.patch_maps(rollout_TN.mean(dim=0)))


def _roll_out(weights_HTX: Tensor, rollout_XN: Tensor, rollout_TN: Tensor) -> Tensor:
    """One block further: half of what was attended to, half of what the residual carries on."""
    return (weights_HTX.mean(dim=0) @ rollout_XN + rollout_TN) / 2


def _embed(model: RecognizerModel, token_ids: tuple[int, ...] | list[int]) -> Tensor:
    ids_1T = torch.tensor([list(token_ids)], device=model.device)
    return model.get_input_embeddings()(ids_1T).to(model.dtype)


def _score_mask(may_attend_TX: Tensor, prefix: PrefixPlaces | None) -> Tensor:
    """What is added to the scores: minus infinity where a row may not attend, and the bias of the prefix's columns."""
    mask_TX = torch.zeros_like(may_attend_TX, dtype=torch.float32).masked_fill(~may_attend_TX, -torch.inf)
    if prefix is None:
        return mask_TX
    return mask_TX + F.pad(prefix.bias_BS[0], (0, may_attend_TX.shape[1] - prefix.bias_BS.shape[1]))


def _cut(upright: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    side = max(1, min(_MAX_VIEW_PIXELS, round(min(box[2] - box[0], box[3] - box[1]))))
    return upright.resize((side, side), Image.Resampling.BICUBIC, box=box)
