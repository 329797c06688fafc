"""Branches that copy their prefix: the same as decoding each alone, and as sharing it."""

from __future__ import annotations

import pytest
import torch

from model.ending import Ending
from model.hub.branches import HubBranches, share_prefixes
from model.hub.copied_branches import CopiedBranches
from model.hub.prefill import prefill
from model.label_trie import ListedLabels
from model.sampling import sample_branches
from model.scoring import score_labels
from tests.fixtures.recognizers.tiny_vlms import ARCHITECTURES, build_vlm, merge
from tests.unit.model.hub.slow_branches import assert_same_branches, slow_branches
from tests.unit.model.hub.test_branches import CLOSING, LABELS, MAX_LABEL_TOKENS, TOP_K, cases, pictures


@pytest.mark.parametrize("architecture", cases(ARCHITECTURES))
@torch.inference_mode()
def test_branches_equal_decoding_each_alone_without_a_cache(architecture):
    vlm = build_vlm(architecture)
    images = pictures(vlm)
    expected = [slow_branches(vlm, image, CLOSING, TOP_K, MAX_LABEL_TOKENS) for image in images]
    decoder = CopiedBranches(vlm.model, prefill(vlm.model, merge(images)))
    assert_same_branches(sample_branches(decoder, Ending(sorted(CLOSING)), TOP_K, MAX_LABEL_TOKENS), expected)


@torch.inference_mode()
def test_a_list_is_scored_as_over_shared_prefixes():
    vlm = build_vlm("llava")
    share_prefixes(vlm.model)
    prefix = prefill(vlm.model, merge(pictures(vlm)))
    ending, labels = Ending(sorted(CLOSING)), ListedLabels(LABELS)
    shared = score_labels(HubBranches(vlm.model, prefix), labels, ending)
    copied = score_labels(CopiedBranches(vlm.model, prefix), labels, ending)
    assert torch.allclose(copied, shared, rtol=3e-5, atol=1e-5)
