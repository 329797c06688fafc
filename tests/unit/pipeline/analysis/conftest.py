"""Stores whose labels and truths are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.analysis.recall import RunAnalysis, analyse_run
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import Vocabulary
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record

RUN = "run-1"
Image = Mapping[str, Any]
AnalyseFunction = Callable[..., RunAnalysis]


@pytest.fixture
def analyse(tmp_path: Path) -> AnalyseFunction:
    """A function that commits images to a store of their own and analyses them; a sequence is one shard."""

    def build(
        images: Sequence[Image] | Mapping[str, Sequence[Image]],
        *,
        truth: Any = "labels",
        vocabulary: Vocabulary | None = None,
        ranking: str = "prob",
    ) -> RunAnalysis:
        store = Store(str(tmp_path / "store"))
        store.create_run(run_record(RUN, labelling={"top_k": 20, "ranking": ranking}))
        commit_judged(store, RUN, images if isinstance(images, Mapping) else {"a": images})
        return analyse_run(open_store(store.url, vocabulary), RUN, truth)

    return build
