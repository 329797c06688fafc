"""A store to export from, with everything that a label or a caption may hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.export.job import Export, ExportRequest, Format
from pipeline.export.selection import Selection
from pipeline.naming.thresholds import Thresholds
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_judged, run_record

RUN = "run-1"
HOSTILE = [
    'a "quoted", label',
    "it's; DROP VIEW images",
    "two\nlines",
    "\r\n",
    "emoji 😀🏳️‍🌈",
    "שלום עולם",
    "\u202eoverride",
    "</Choice><script>",
    "=HYPERLINK(1)",
    "esc \x1b[31m",
    "nul \x00",
    "\ufffe",
    "{{ $x }}",
]
IMAGES = {
    "a": [
        {
            "truth": ["dogs", "cat", "Dog"],
            "caption": 'a dog,\n"here"',
            "labels": [("Dogs", 0.5), ("tree", 0.25), ("dog", 0.1)],
        },
        {"truth": None, "labels": [("photo", 0.9), ("sky", 0.3)]},
    ],
    "b/../c": [
        {"truth": [], "caption": "☃", "labels": [(label, 0.9 - n / 20) for n, label in enumerate(HOSTILE)]},
        {"truth": ["x"], "labels": [], "status": "rejected"},
        {"truth": None, "labels": []},
    ],
}

ExportFunction = Callable[..., Export]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two shards, five images of which one is rejected; and another run that says other things of them."""
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record(RUN))
    store.create_run(run_record("run-2"))
    commit_judged(store, RUN, IMAGES)
    commit_judged(
        store, "run-2", {"a": [{"truth": None, "labels": [("sky", 0.9)]}, {"truth": None, "labels": ["dog"]}]}
    )
    return store


@pytest.fixture
def export(store: Store, tmp_path: Path) -> ExportFunction:
    """A function that exports to the folder `out`."""

    def run(
        to: Format,
        *,
        run: str | None = RUN,
        images: bool = False,
        out: str = "out",
        thresholds: Thresholds | None = None,
        vocabulary: Vocabulary | None = None,
        language: str | None = None,
        **selection: object,
    ) -> Export:
        request = ExportRequest(
            store=store.url,
            to=to,
            out=str(tmp_path / out),
            run=run,
            selection=Selection(**selection),  # type: ignore[arg-type]
            vocabulary=vocabulary or read_vocabulary(None),
            language=language,
            thresholds=thresholds,
            images=images,
        )
        exported = Export(request)
        exported.write()
        return exported

    return run
