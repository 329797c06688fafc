"""The table of models that are known."""

from __future__ import annotations

import pytest

from model.fetching.hub_name import HubName
from model.fetching.known_models import KnownModel, known_models, similar_names
from tests.fixtures.recognizers.tiny_vlms import ARCHITECTURES


def rank(model: KnownModel) -> tuple[int, int, int]:
    """Where a model stands in the table: first what anybody may use at once."""
    by_gate = {False: 0, None: 1, True: 2}[model.gated]
    return (["yes", "conditions", "no"].index(model.commercial), by_gate, model.parameters or 0)


def test_what_anybody_may_use_at_once_comes_first_and_small_models_before_large_ones() -> None:
    models = known_models()
    assert models == sorted(models, key=rank)


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.name)
def test_every_model_has_a_name_of_the_hub_and_an_architecture_that_the_tests_of_branches_cover(
    model: KnownModel,
) -> None:
    name = HubName.parse(model.name)
    assert name is not None
    assert name.revision is None
    assert model.architecture in ARCHITECTURES


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("Qwen/Qwen3-VL-2B-Instrct", "Qwen/Qwen3-VL-2B-Instruct"),
        ("qwen3-vl-8b-instruct", "Qwen/Qwen3-VL-8B-Instruct"),
        ("smolvlm", "HuggingFaceTB/SmolVLM-256M-Instruct"),
        ("gemma-4", "google/gemma-4-E2B-it"),
        ("smolvlm-256m", "HuggingFaceTB/SmolVLM-256M-Instruct"),
        ("someone/gemma-3-4b", "google/gemma-3-4b-it"),
    ],
)
def test_a_misspelt_or_shortened_name_leads_to_the_nearest_one(given: str, nearest: str) -> None:
    assert similar_names(given)[0] == nearest


def test_a_name_that_is_like_none_leads_nowhere() -> None:
    assert similar_names("models/nxtp") == []
