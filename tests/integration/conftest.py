"""Labelling in this process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.fixtures.labelling import LabelFunction, label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler


@pytest.fixture
def label_instantly(tiny_model: Path) -> LabelFunction:
    """Labels a source into a store, without a recognizer's cost; settings as keywords, and the Ray to do it on."""
    return partial(label_with, tiny_model, labeler_class=InstantLabeler)


@pytest.fixture
def label(tiny_model: Path) -> LabelFunction:
    """Labels a source into a store with the tiny recognizer; settings as keywords, and the Ray to do it on."""
    return partial(label_with, tiny_model)
