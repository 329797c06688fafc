"""The training objective: labels as rows of one sequence that do not see one another.

"Object recognition as next token prediction" (Yue et al., CVPR 2024), section 3.2. An image's labels follow its prompt
in one sequence; the mask lets a label's tokens see image, prompt and themselves. Two forms exist:

- restarting (`pack_restarting`), the default: every label starts anew at the position behind the prompt and its first
  token is predicted from the answer token, exactly as labels are sampled.
- published (`pack_published`), as in the public code: positions go on along the list, a label's delimiter predicts the
  first token of the next, and the prompt's own tokens count in the loss.

Shape suffixes: B images, N image tokens that the decoder reads, P patches, T text tokens (prompt and labels, padded),
L = N + T, D decoder width, M predicted tokens of all images, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from model.nxtp.modeling import RecognizerModel

PROMPT_TEXT = "The objects in the image are"
PARAPHRASES = (
    PROMPT_TEXT,
    "The items in the image are",
    "The things in the image are",
    "The elements in the image are",
    "The objects in the picture are",
    "The items in the picture are",
    "The objects present in the image are",
    "The items present in the image are",
    "The objects shown in the image are",
    "The things shown in the picture are",
)
_PROMPT = 0
# Neither prompt nor a label that is seen: such rows see the prefix alone, and nothing sees them.
_UNSEEN = -1


@dataclass(frozen=True, slots=True)
class PackedLabels:
    """The labels of a batch as token sequences behind the image tokens.

    token_ids_BT, position_ids_BT: what the decoder reads, int64. segment_BT: 0 for the prompt, 1, 2, ... for labels, -1
    for padding. image_M, row_M, target_M: text token `row` of `image` predicts token id `target`.
    """

    token_ids_BT: Tensor
    position_ids_BT: Tensor
    segment_BT: Tensor
    image_M: Tensor
    row_M: Tensor
    target_M: Tensor

    @property
    def n_targets(self) -> int:
        return len(self.target_M)

    def to(self, device: torch.device | str) -> PackedLabels:
        tensors = (self.token_ids_BT, self.position_ids_BT, self.segment_BT, self.image_M, self.row_M, self.target_M)
        return PackedLabels(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    def with_corrupted_labels(self, share: float, vocab_size: int, generator: torch.Generator) -> PackedLabels:
        """A share of the label tokens that the decoder reads replaced by random ones; what it predicts stays."""
        draws_BT = torch.rand(self.token_ids_BT.shape, generator=generator).to(self.token_ids_BT.device)
        random_BT = torch.randint(vocab_size, self.token_ids_BT.shape, generator=generator)
        is_hit_BT = (draws_BT < share) & (self.segment_BT > _PROMPT)
        random_BT = random_BT.to(self.token_ids_BT.device)
        return replace(self, token_ids_BT=torch.where(is_hit_BT, random_BT, self.token_ids_BT))


@dataclass(slots=True)
class _Sequence:
    """One image's text tokens while they are laid out."""

    token_ids: list[int]
    positions: list[int]
    segments: list[int]
    predictions: list[tuple[int, int]]


def pack_restarting(
    prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[Sequence[int]]], delimiter_id: int, n_image_tokens: int
) -> PackedLabels:
    """Packs labels so that each restarts at the answer position; loss on label tokens and their delimiters only.

    Args:
        prompts: for each image the token ids of its prompt, the answer token last.
        labels: for each image its labels, each as token ids without the delimiter.
        delimiter_id: closes every label.
        n_image_tokens: N, where the text's positions begin.
    """
    sequences = []
    for prompt, of_image in zip(prompts, labels, strict=True):
        answer = len(prompt) - 1
        sequence = _prompt_sequence(prompt, n_image_tokens)
        for number, label in enumerate(of_image, start=1):
            first_row = len(sequence.token_ids)
            sequence.token_ids += label
            sequence.positions += range(n_image_tokens + len(prompt), n_image_tokens + len(prompt) + len(label))
            sequence.segments += [number] * len(label)
            rows = [answer, *range(first_row, first_row + len(label))]
            sequence.predictions += zip(rows, [*label, delimiter_id], strict=True)
        sequences.append(sequence)
    return _padded(sequences)


def pack_published(
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[Sequence[int]]],
    delimiter_id: int,
    n_image_tokens: int,
    *,
    close_last: bool = True,
) -> PackedLabels:
    """Packs labels as the public code does: one list, every token predicts the next.

    Args:
        prompts, labels, delimiter_id, n_image_tokens: as in `pack_restarting`.
        close_last: whether the last label gets its delimiter. The public code gives it none, and then lets the label's
            tokens see the prefix only, not even themselves.
    """
    sequences = []
    for prompt, of_image in zip(prompts, labels, strict=True):
        sequence = _prompt_sequence(prompt, n_image_tokens)
        for number, label in enumerate(of_image, start=1):
            is_closed = close_last or number < len(of_image)
            tokens = [*label, delimiter_id] if is_closed else list(label)
            sequence.token_ids += tokens
            sequence.segments += [number if is_closed else _UNSEEN] * len(tokens)
        n_tokens = len(sequence.token_ids)
        sequence.positions = list(range(n_image_tokens, n_image_tokens + n_tokens))
        sequence.predictions = list(enumerate(sequence.token_ids[1:]))
        sequences.append(sequence)
    return _padded(sequences)


def attention_mask(segment_BT: Tensor, n_image_tokens: int) -> Tensor:
    """Boolean [B, 1, L, L], True where row may attend to column.

    Image tokens see one another; the prompt is causal; a label's tokens see image, prompt and, causally, themselves.
    """
    n_images, n_text = segment_BT.shape
    mask_BLL = torch.zeros(
        n_images, n_image_tokens + n_text, n_image_tokens + n_text, dtype=torch.bool, device=segment_BT.device
    )
    mask_BLL[:, :, :n_image_tokens] = True
    row_BT1, column_B1T = segment_BT[:, :, None], segment_BT[:, None, :]
    is_same_BTT = (column_B1T == row_BT1) & (row_BT1 != _UNSEEN)
    is_before_TT = torch.ones(n_text, n_text, dtype=torch.bool, device=segment_BT.device).tril()
    mask_BLL[:, n_image_tokens:, n_image_tokens:] = is_before_TT & ((column_B1T == _PROMPT) | is_same_BTT)
    return mask_BLL[:, None]


def decode_packed(
    model: RecognizerModel, image_embeds_BPD: Tensor, packed: PackedLabels, image_tokens: int = 0
) -> Tensor:
    """The decoder's normalised hidden states of image and text, [B, L, D].

    Args:
        image_tokens: how many tokens the image tokens are merged into; 0 keeps all as they are.
    """
    merged = model.merge_image_tokens(image_embeds_BPD, image_tokens)
    image_BND = merged.embeds_BND if merged else image_embeds_BPD
    n_images, n_image_tokens = image_BND.shape[:2]
    text_BTD = model.get_input_embeddings()(packed.token_ids_BT).to(image_BND.dtype)
    positions_BN = torch.arange(n_image_tokens, device=text_BTD.device).expand(n_images, -1)
    mask_B1LL = attention_mask(packed.segment_BT, n_image_tokens)
    if merged:
        positions_BN = merged.positions_BN
        bias_BL = F.pad(merged.sizes_BN.log(), (0, text_BTD.shape[1])).to(image_BND.dtype)
        mask_B1LL = bias_BL[:, None, None].masked_fill(~mask_B1LL, -torch.inf)
    return model.decoder.model(
        inputs_embeds=torch.cat((image_BND, text_BTD), dim=1),
        attention_mask=mask_B1LL,
        position_ids=torch.cat((positions_BN, packed.position_ids_BT), dim=1),
        use_cache=False,
    ).last_hidden_state


def label_log_probs(model: RecognizerModel, hidden_BLD: Tensor, packed: PackedLabels) -> Tensor:
    """Log probabilities of the target tokens, float32 [M]."""
    n_image_tokens = hidden_BLD.shape[1] - packed.token_ids_BT.shape[1]
    logits_MV = model.token_logits(hidden_BLD[packed.image_M, n_image_tokens + packed.row_M])
    return -F.cross_entropy(logits_MV, packed.target_M, reduction="none")


def _prompt_sequence(prompt: Sequence[int], n_image_tokens: int) -> _Sequence:
    positions = list(range(n_image_tokens, n_image_tokens + len(prompt)))
    return _Sequence(list(prompt), positions, [_PROMPT] * len(prompt), [])


def _padded(sequences: list[_Sequence]) -> PackedLabels:
    n_text = max((len(sequence.token_ids) for sequence in sequences), default=0)

    def column(name: str, padding: int) -> Tensor:
        rows = [getattr(sequence, name) for sequence in sequences]
        padded = [row + [padding] * (n_text - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).reshape(len(sequences), n_text)

    predictions = [
        (image, row, target) for image, sequence in enumerate(sequences) for row, target in sequence.predictions
    ]
    image_M, row_M, target_M = torch.tensor(predictions, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return PackedLabels(
        column("token_ids", 0), column("positions", 0), column("segments", _UNSEEN), image_M, row_M, target_M
    )
