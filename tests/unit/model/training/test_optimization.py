"""What learns, what decays, and the learning rate of every step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model import Recognizer
from model.training.optimization import (
    choose_trainable,
    learning_rate,
    make_optimizers,
    parameter_groups,
    train_rows_only,
)

DECAY = 0.5
SCHEDULE = {"peak": 2e-3, "warmup_steps": 10, "n_steps": 110}


class Block(nn.Module):
    """One parameter of every kind that decays or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.patches = nn.Conv2d(3, 4, 2, bias=False)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5)
        self.mask = nn.Parameter(torch.ones(4))


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block()


def values_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def group_names(module: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the parameters that decay and of those that do not."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decaying, others = parameter_groups([module], DECAY)
    assert (decaying["weight_decay"], others["weight_decay"]) == (DECAY, 0.0)
    return tuple({names[id(parameter)] for parameter in group["params"]} for group in (decaying, others))


class TestPatterns:
    """Shell patterns of parameter names choose what learns."""

    def test_the_names_of_what_learns_come_back_in_their_order(self, block: Block) -> None:
        assert choose_trainable(block, ["head.*", "embedding.weight"]) == [
            "embedding.weight",
            "head.weight",
            "head.bias",
        ]

    def test_what_no_pattern_matches_is_frozen(self, block: Block) -> None:
        choose_trainable(block, ["norm.*"])
        learning = {name for name, parameter in block.named_parameters() if parameter.requires_grad}
        assert learning == {"norm.weight", "norm.bias"}

    def test_a_later_choice_frees_what_an_earlier_one_froze(self, block: Block) -> None:
        choose_trainable(block, ["norm.*"])
        assert choose_trainable(block, ["*"]) == [name for name, _ in block.named_parameters()]

    def test_a_parameter_that_two_patterns_match_is_named_once(self, block: Block) -> None:
        assert choose_trainable(block, ["head.*", "*.weight"]).count("head.weight") == 1

    def test_upper_case_is_another_name(self, block: Block) -> None:
        with pytest.raises(ValueError, match="no parameter matches the pattern 'HEAD"):
            choose_trainable(block, ["HEAD.*"])

    def test_a_pattern_that_matches_nothing_is_named_beside_names_that_exist(self, block: Block) -> None:
        with pytest.raises(ValueError, match=r"the pattern 'decoder\.\*'; names look like mask, embedding\.weight"):
            choose_trainable(block, ["head.*", "decoder.*"])

    def test_a_refused_choice_freezes_nothing(self, block: Block) -> None:
        with pytest.raises(ValueError):
            choose_trainable(block, ["head.*", "decoder.*"])
        assert all(parameter.requires_grad for parameter in block.parameters())

    def test_patterns_reach_the_parts_of_a_recognizer(self, build_recognizer) -> None:
        recognizer: Recognizer = build_recognizer()
        chosen = choose_trainable(recognizer.module, ["projector.*", "decoder.lm_head.*"])
        assert chosen == ["projector.weight", "decoder.lm_head.weight"]


class TestRowsOnly:
    """An embedding of which some rows learn."""

    @pytest.mark.parametrize("fused", [False, True])
    def test_a_real_step_changes_these_rows_and_no_other(self, block: Block, fused: bool) -> None:
        before = block.embedding.weight.detach().clone()
        train_rows_only(block.embedding, [1, 4])
        # A decay of weights would reach the other rows too: an embedding's group must have none.
        optimizer = torch.optim.AdamW(parameter_groups([block], DECAY), lr=0.1, fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            block.embedding(torch.arange(6)).square().sum().backward()
            optimizer.step()
        changed = (block.embedding.weight != before).any(dim=1)
        assert changed.tolist() == [False, True, False, False, True, False]

    def test_these_rows_get_the_gradient_they_would_get_alone(self, block: Block) -> None:
        train_rows_only(block.embedding, [2])
        block.embedding(torch.arange(6)).square().sum().backward()
        assert torch.equal(block.embedding.weight.grad[2], 2 * block.embedding.weight.detach()[2])

    def test_an_embedding_that_was_frozen_learns_in_these_rows(self, block: Block) -> None:
        choose_trainable(block, ["head.*"])
        train_rows_only(block.embedding, [0])
        block.embedding(torch.arange(6)).sum().backward()
        assert block.embedding.weight.grad.sum(dim=1).tolist() == [4, 0, 0, 0, 0, 0]

    def test_a_row_that_is_not_there_is_an_error(self, block: Block) -> None:
        with pytest.raises(IndexError):
            train_rows_only(block.embedding, [6])


class TestGroups:
    """Which parameters AdamW pulls towards zero."""

    def test_matrices_decay_and_biases_norms_and_embeddings_do_not(self, block: Block) -> None:
        assert group_names(block) == (
            {"patches.weight", "head.weight"},
            {"embedding.weight", "norm.weight", "norm.bias", "head.bias", "mask"},
        )

    def test_what_is_frozen_is_in_neither_group(self, block: Block) -> None:
        choose_trainable(block, ["head.*"])
        assert group_names(block) == ({"head.weight"}, {"head.bias"})

    def test_every_parameter_of_a_recognizer_is_in_one_group(self, recognizer: Recognizer) -> None:
        decaying, others = group_names(recognizer.module)
        assert decaying | others == {name for name, _ in recognizer.module.named_parameters()}
        assert not decaying & others

    def test_tokens_and_positions_of_a_recognizer_do_not_decay(self, recognizer: Recognizer) -> None:
        decaying, others = group_names(recognizer.module)
        assert {name for name in others if name.endswith(("embed_tokens.weight", "position_embedding.weight"))} == {
            "decoder.model.embed_tokens.weight",
            next(name for name in others if name.endswith("position_embedding.weight")),
        }
        assert {"projector.weight", "decoder.lm_head.weight"} <= decaying

    def test_a_step_without_gradient_shrinks_the_decaying_alone(self, block: Block) -> None:
        before = values_of(block)
        optimizer = torch.optim.AdamW(parameter_groups([block], DECAY), lr=0.1)
        for parameter in block.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, value in values_of(block).items():
            factor = 1 - 0.1 * DECAY if name in ("patches.weight", "head.weight") else 1.0
            torch.testing.assert_close(value, before[name] * factor, rtol=1e-6, atol=0)


class TestOptimizers:
    """Which parameters Muon updates, and which AdamW."""

    def owners(self, module: nn.Module, name: str) -> dict[str, str]:
        """Class of the optimizer by the name of the parameter."""
        optimizers = make_optimizers([module], name, weight_decay=DECAY, betas=(0.9, 0.98), eps=1e-6)
        names = {id(parameter): key for key, parameter in module.named_parameters()}
        owned = [
            (names[id(parameter)], type(optimizer).__name__)
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        assert len(dict(owned)) == len(owned)
        return dict(owned)

    def test_adamw_has_all_parameters_unless_asked_otherwise(self, recognizer: Recognizer) -> None:
        owners = self.owners(recognizer.module, "adamw")
        assert owners == {name: "AdamW" for name, _ in recognizer.module.named_parameters()}

    def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest(self, recognizer: Recognizer) -> None:
        owners = self.owners(recognizer.module, "muon")
        assert owners.keys() == dict(recognizer.module.named_parameters()).keys()
        by_muon = {name for name, owner in owners.items() if owner == "Muon"}
        assert by_muon == {
            name for name, value in recognizer.module.named_parameters() if ".layers." in name and value.ndim == 2
        }
        for part in ("q_proj", "out_proj", "fc1", "o_proj", "gate_proj", "down_proj"):
            assert any(f".{part}.weight" in name for name in by_muon)

    def test_muon_leaves_what_is_frozen_alone(self, recognizer: Recognizer) -> None:
        choose_trainable(recognizer.module, ["projector.*"])
        try:
            assert self.owners(recognizer.module, "muon") == {"projector.weight": "AdamW"}
        finally:
            choose_trainable(recognizer.module, ["*"])

    def test_muon_alone_is_enough_where_only_hidden_matrices_learn(self, recognizer: Recognizer) -> None:
        choose_trainable(recognizer.module, ["*.q_proj.weight"])
        try:
            assert set(self.owners(recognizer.module, "muon").values()) == {"Muon"}
        finally:
            choose_trainable(recognizer.module, ["*"])


class TestSchedule:
    """The learning rate over the steps."""

    def test_the_warm_up_rises_in_equal_parts_to_the_peak(self) -> None:
        rates = [learning_rate(step, **SCHEDULE) for step in range(10)]
        assert rates == pytest.approx([2e-4 * part for part in range(1, 11)], rel=1e-12)

    def test_the_first_step_learns_already(self) -> None:
        assert learning_rate(0, **SCHEDULE) > 0

    def test_the_peak_is_reached_and_never_passed(self) -> None:
        assert max(learning_rate(step, **SCHEDULE) for step in range(111)) == SCHEDULE["peak"]

    def test_it_then_falls_along_half_a_cosine_to_zero(self) -> None:
        rates = [learning_rate(step, **SCHEDULE) for step in range(10, 111)]
        expected = [1e-3 * (1 + math.cos(math.pi * part / 100)) for part in range(101)]
        assert rates == pytest.approx(expected, abs=1e-15)
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(0, abs=1e-15)

    def test_behind_the_last_step_it_stays_zero(self) -> None:
        assert learning_rate(500, **SCHEDULE) == pytest.approx(0, abs=1e-15)

    def test_without_a_warm_up_it_begins_at_the_peak(self) -> None:
        assert learning_rate(0, peak=0.5, warmup_steps=0, n_steps=10) == 0.5

    def test_a_run_no_longer_than_its_warm_up_ends_at_the_peak(self) -> None:
        assert [learning_rate(step, peak=1.0, warmup_steps=2, n_steps=2) for step in range(2)] == [0.5, 1.0]
