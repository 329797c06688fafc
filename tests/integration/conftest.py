"""Labelling in this process, and reading back what was stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.catalog.connection import run_query
from pipeline.catalog.views import open_store
from pipeline.dataflow.labeler import Labeler
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.settings.labelling import LabelSettings
from tests.fixtures.instant_labeler import InstantLabeler

LabelFunction = Callable[..., LabelOutcome]
_ORDERED = {"images": 'shard, "index"', "labels": 'shard, "index", rank'}


@pytest.fixture
def label(shared_ray: None, tiny_model: Path) -> LabelFunction:
    """Labels a source into a store, without a recognizer's cost; settings as keywords."""
    return partial(label_with, tiny_model, labeler_class=InstantLabeler)


@pytest.fixture
def recognize(shared_ray: None, tiny_model: Path) -> LabelFunction:
    """Labels a source into a store with the tiny recognizer; settings as keywords."""
    return partial(label_with, tiny_model)


def label_with(
    tiny_model: Path,
    source: Any,
    store: Any,
    *,
    run: str | None = None,
    model: Any = None,
    labeler_class: type[Labeler] = Labeler,
    **settings: Any,
) -> LabelOutcome:
    """One labelling job in this process."""
    request = LabelRequest(
        source=str(source),
        store=str(store),
        model=str(model or tiny_model),
        run=run,
        settings=LabelSettings(**{"top_k": 5, "batch_size": 8, **settings}),
        labeler_class=labeler_class,
    )
    return LabelJob(request).run()


def read_table(store: Any, name: str) -> pa.Table:
    """A whole table of the store in its natural order."""
    query = f"SELECT * FROM {name} ORDER BY run, {_ORDERED[name]}"
    table: pa.Table = open_store(str(store)).sql(query).to_arrow_table()
    return table


def rows(store: Any, query: str) -> list[tuple[Any, ...]]:
    """Rows of a query over the store."""
    fetched: list[tuple[Any, ...]] = run_query(open_store(str(store)), query).fetchall()
    return fetched
