"""One-shot sampling without any cache, the cost of the public code: what the fast path is compared with.

The encoder runs once. Every step runs image, prompt and label tokens of all branches, ended or not, through the stock
`LlamaForCausalLM` again, until the last branch has ended.

Shape suffixes: B images, N image tokens, S prefix tokens, L tokens of a sequence, R rows (branches of all images),
T tokens of a branch so far, D decoder width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model import RecognizerModel

TokenIds = list[list[int]]


def recompute_branches(
    module: RecognizerModel, pixel_values_BCHW: Tensor, top_k: int, max_label_tokens: int, n_rows_at_once: int = 16
) -> TokenIds:
    """Token ids of every branch, image by image, each up to its delimiter or to `max_label_tokens`."""
    image_BND = module.encode_images(pixel_values_BCHW)
    prompt_PD = module.get_input_embeddings()(torch.tensor(module.config.prompt_ids, device=image_BND.device))
    prefix_BSD = torch.cat((image_BND, prompt_PD.expand(len(image_BND), -1, -1)), dim=1)
    first_logits_BV = last_logits(module, prefix_BSD)
    ids_RT = first_logits_BV.float().softmax(dim=-1).topk(top_k).indices.view(-1, 1)
    image_R = torch.arange(len(image_BND), device=ids_RT.device).repeat_interleave(top_k)
    delimiter_id = module.config.delimiter_id
    for _ in range(max_label_tokens):
        if (ids_RT == delimiter_id).any(dim=1).all():
            break
        next_ids = [
            last_logits(module, with_tokens(module, prefix_BSD[rows], ids_RT[chunk])).argmax(dim=-1)
            for chunk, rows in zip(
                torch.arange(len(ids_RT), device=ids_RT.device).split(n_rows_at_once),
                image_R.split(n_rows_at_once),
                strict=True,
            )
        ]
        ids_RT = torch.cat((ids_RT, torch.cat(next_ids)[:, None]), dim=1)
    return [closed_branch(ids, delimiter_id, max_label_tokens) for ids in ids_RT.tolist()]


def with_tokens(module: RecognizerModel, prefix_RSD: Tensor, ids_RT: Tensor) -> Tensor:
    return torch.cat((prefix_RSD, module.get_input_embeddings()(ids_RT)), dim=1)


def last_logits(module: RecognizerModel, embeds_RLD: Tensor) -> Tensor:
    """Logits behind the last position: image tokens see one another, text is causal."""
    n_image, n_tokens = module.config.n_image_tokens, embeds_RLD.shape[1]
    may_attend_LL = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=embeds_RLD.device).tril()
    may_attend_LL[:n_image, :n_image] = True
    mask_LL = torch.zeros_like(may_attend_LL, dtype=embeds_RLD.dtype)
    mask_LL.masked_fill_(~may_attend_LL, torch.finfo(embeds_RLD.dtype).min)
    output = module.decoder(
        inputs_embeds=embeds_RLD,
        attention_mask=mask_LL.expand(len(embeds_RLD), 1, -1, -1),
        use_cache=False,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


def closed_branch(ids: list[int], delimiter_id: int, max_label_tokens: int) -> list[int]:
    if delimiter_id in ids:
        return ids[: ids.index(delimiter_id) + 1]
    return ids[:max_label_tokens]
