"""The published form of the objective against recordings of the public implementation, where these are present."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.importing.reference import recognizer_from_reference
from model.training.objective import attention_mask, decode_packed, label_log_probs, pack_published
from tests.fixtures.recognizers.goldens import GOLDENS, StandInTokenizer

FORMS = ("no_trailing_delim", "trailing_delim")
# float32 in another order of operations.
LOG_PROBS_ABS = 1e-4
GRADIENT_REL = 1e-4

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"no recordings of the public implementation in {GOLDENS}")


@pytest.fixture(scope="module", params=FORMS)
def training(request):
    """One recorded step: its arrays and results, and the same step done by this model."""
    arrays = np.load(GOLDENS / f"train_seed1_{request.param}.npz")
    record = json.loads((GOLDENS / f"train_seed1_{request.param}.json").read_text())
    weights = np.load(GOLDENS / "seed1.npz")
    sizes = json.loads((GOLDENS / "seed1.json").read_text())["config"]
    recognizer = recognizer_from_reference(
        {name[2:]: torch.from_numpy(weights[name]).float() for name in weights if name.startswith("w/")},
        tokenizer=StandInTokenizer({}),
        prompt_ids=weights["prompt_ids"].tolist(),
        delimiter_id=29892,
        n_vision_heads=sizes["vh"],
        n_decoder_heads=sizes["heads"],
        rms_norm_eps=sizes["eps"],
        image_size=sizes["image"],
    )
    module, config = recognizer.module, recognizer.config
    labels = [
        [[int(word[1:]) for word in label.split()] for label in caption.split(",") if label]
        for caption in record["captions"]
    ]
    packed = pack_published(
        [config.prompt_ids] * len(labels),
        labels,
        config.delimiter_id,
        config.n_image_tokens,
        close_last=request.param == "trailing_delim",
    )
    image_embeds = module.encode_images(torch.from_numpy(weights["pixel_values"]).float())
    image_embeds.retain_grad()
    log_probs = label_log_probs(module, decode_packed(module, image_embeds, packed), packed)
    loss = -log_probs.mean()
    loss.backward()
    return SimpleNamespace(
        arrays=arrays,
        record=record,
        module=module,
        packed=packed,
        loss=loss.item(),
        log_probs=log_probs.detach(),
        image_embeds=image_embeds,
    )


def test_the_mask_equals_the_recorded(training):
    mask_BLL = attention_mask(training.packed.segment_BT, training.record["n_image_tokens"])[:, 0].numpy()
    n_tokens = mask_BLL.shape[1]
    assert np.array_equal(mask_BLL, training.arrays["mask"][:, :n_tokens, :n_tokens])


def test_every_token_that_counts_has_the_recorded_log_probability(training):
    assert training.packed.n_targets == training.record["n_target_tokens"]
    columns = training.record["n_image_tokens"] + training.packed.row_M.numpy()
    expected = training.arrays["target_logprob"][training.packed.image_M.numpy(), columns]
    assert training.log_probs.numpy() == pytest.approx(expected, abs=LOG_PROBS_ABS)


def test_the_loss_equals_the_recorded(training):
    assert training.loss == pytest.approx(training.record["loss"], rel=1e-5)


def test_gradient_norms_equal_the_recorded(training):
    decoder = training.module.decoder
    parameters = {
        "vision_encoder.proj.weight": training.module.projector.weight,
        "language_decoder.layers.0.attention.wq.weight": decoder.model.layers[0].self_attn.q_proj.weight,
        "language_decoder.output.weight": decoder.lm_head.weight,
        "language_decoder.tok_embeddings.weight": decoder.model.embed_tokens.weight,
    }
    norms = {name: parameter.grad.norm().item() for name, parameter in parameters.items()}
    assert norms == pytest.approx(training.record["grad_norms"], rel=GRADIENT_REL)
    image_token = decoder.model.embed_tokens.weight.grad[32000].norm().item()
    assert image_token == pytest.approx(training.record["grad_norm_tok_embeddings_row_32000"], rel=GRADIENT_REL)
    of_images = training.image_embeds.grad.norm().item()
    assert of_images == pytest.approx(training.record["grad_norm_image_embeds"], rel=GRADIENT_REL)
