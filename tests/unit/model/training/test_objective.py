"""The training objective against slow oracles that score every label alone."""

from __future__ import annotations

import pytest
import torch

from model.training.objective import PARAPHRASES, attention_mask, decode_packed, label_log_probs, pack_restarting

LABELS = [[[20, 21], [22], [23, 24, 25]], [[30]], [[40, 41], [42, 43]]]
LOG_PROBS_ABS = 1e-4


def pack(recognizer, labels=LABELS, prompts=None):
    config = recognizer.config
    prompts = prompts or [config.prompt_ids] * len(labels)
    return pack_restarting(prompts, labels, config.delimiter_id, config.n_image_tokens)


@torch.no_grad()
def log_probs_of(recognizer, pixels, packed, image_tokens=0):
    module = recognizer.module
    hidden_BLD = decode_packed(module, module.encode_images(pixels), packed, image_tokens)
    return label_log_probs(module, hidden_BLD, packed)


@torch.no_grad()
def log_prob_alone(recognizer, pixels_1CHW, label):
    """Log probability of a label with its delimiter, by one plain pass of the decoder an image and label."""
    module, config = recognizer.module, recognizer.config
    ids = torch.tensor([[0] * config.n_image_tokens + config.prompt_ids + label])
    logits = module(ids, image_embeds=module.encode_images(pixels_1CHW)).logits[0].float().log_softmax(-1)
    targets = [*label, config.delimiter_id]
    return sum(logits[config.n_prefix_tokens - 1 + place, target].item() for place, target in enumerate(targets))


def test_a_packed_label_scores_as_it_does_alone(recognizer, make_pixels):
    pixels, packed = make_pixels(3), pack(recognizer)
    log_probs = log_probs_of(recognizer, pixels, packed).tolist()
    for image, labels in enumerate(LABELS):
        for label in labels:
            n_tokens = len(label) + 1
            packed_score, log_probs = sum(log_probs[:n_tokens]), log_probs[n_tokens:]
            assert packed_score == pytest.approx(
                log_prob_alone(recognizer, pixels[image : image + 1], label), abs=LOG_PROBS_ABS
            )


@pytest.mark.parametrize("image_tokens", [0, 3])
def test_sampled_labels_have_the_probabilities_that_training_sees(recognizer, make_pixels, image_tokens):
    pixels = make_pixels(2)
    branches = recognizer.sample(pixels, 5, image_tokens=image_tokens).branches.to_lists()
    finished = [[branch for branch in image if branch[2] and len(branch[0]) > 1] for image in branches]
    assert all(finished)
    packed = pack(recognizer, [[list(ids[:-1]) for ids, _, _ in image] for image in finished])
    expected = [prob for image in finished for _, probs, _ in image for prob in probs]
    seen = log_probs_of(recognizer, pixels, packed, image_tokens).exp().tolist()
    assert seen == pytest.approx(expected, abs=1e-5)


def test_the_order_of_labels_does_not_change_the_loss(recognizer, make_pixels):
    pixels = make_pixels(3)
    loss = log_probs_of(recognizer, pixels, pack(recognizer)).sum().item()
    reversed_labels = [labels[::-1] for labels in LABELS]
    reversed_loss = log_probs_of(recognizer, pixels, pack(recognizer, reversed_labels)).sum().item()
    assert reversed_loss == pytest.approx(loss, rel=1e-5)


def test_prompts_of_other_lengths_do_not_disturb_one_another(recognizer, make_pixels):
    pixels, longer = make_pixels(3), [*recognizer.config.prompt_ids[:-1], 12, recognizer.config.prompt_ids[-1]]
    mixed = pack(recognizer, prompts=[longer, recognizer.config.prompt_ids, longer])
    plain = pack(recognizer)
    of_second = mixed.image_M == 1
    assert log_probs_of(recognizer, pixels, mixed)[of_second].tolist() == pytest.approx(
        log_probs_of(recognizer, pixels, plain)[plain.image_M == 1].tolist(), abs=LOG_PROBS_ABS
    )


def test_every_label_and_its_delimiter_is_predicted_once(recognizer):
    packed = pack(recognizer)
    delimiter = recognizer.config.delimiter_id
    expected = [token for labels in LABELS for label in labels for token in [*label, delimiter]]
    assert packed.target_M.tolist() == expected


def test_an_image_without_labels_adds_nothing_to_the_loss(recognizer, make_pixels):
    packed = pack(recognizer, [[], [[20]], []])
    assert packed.image_M.tolist() == [1, 1]
    assert log_probs_of(recognizer, make_pixels(3), packed).isfinite().all()


def test_no_row_of_the_mask_is_empty(recognizer):
    mask = attention_mask(pack(recognizer).segment_BT, recognizer.config.n_image_tokens)
    assert mask.any(dim=-1).all()


def test_label_corruption_leaves_prompt_and_targets_alone(recognizer):
    packed = pack(recognizer)
    generator = torch.Generator().manual_seed(0)
    corrupted = packed.with_corrupted_labels(1.0, recognizer.config.text_config.vocab_size, generator)
    is_prompt = packed.segment_BT <= 0
    assert torch.equal(corrupted.token_ids_BT[is_prompt], packed.token_ids_BT[is_prompt])
    assert not torch.equal(corrupted.token_ids_BT, packed.token_ids_BT)
    assert torch.equal(corrupted.target_M, packed.target_M)


def test_label_corruption_hits_about_the_share_asked_for(recognizer):
    packed = pack(recognizer, [[[20] * 10] * 40])
    generator = torch.Generator().manual_seed(0)
    corrupted = packed.with_corrupted_labels(0.25, recognizer.config.text_config.vocab_size, generator)
    n_changed = (corrupted.token_ids_BT != packed.token_ids_BT).sum().item()
    # 400 draws at 0.25: 100 with a standard deviation of 8.7; a few draw the token that stood there.
    assert 70 < n_changed < 130


def test_paraphrases_are_ten_and_differ():
    assert len(set(PARAPHRASES)) == 10
    assert all(text.endswith(" are") for text in PARAPHRASES)
