"""`tagstream demo` in stores as people name and use them; that it labels is shown end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs import demo as demo_module
from jobs.verbs.demo import demo
from pipeline.labelling.request import LabelOutcome
from tests.fixtures.stored.reported import OTHER, RUN, make_store
from tests.fixtures.stored.tables import job_record

MINE = {"a": [{"labels": ["dog"], "truth": ["dog"]}]}
OTHERS = {"a": [{"labels": ["cat"], "truth": ["dog"]}]}


def run(monkeypatch: pytest.MonkeyPatch, store: str) -> Result:
    """The demo, whose run the store holds already."""
    monkeypatch.setattr(demo_module, "run_job", lambda job: LabelOutcome(job_record(RUN), []))
    return CliRunner().invoke(demo, ["--store", store], catch_exceptions=False)


def test_a_stores_name_may_end_with_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, MINE)
    result = run(monkeypatch, f"{store.url}/")
    assert f"MB; open {store.url}.html\n" in result.output
    assert (tmp_path / "store.html").is_file()


def test_in_a_store_with_other_runs_it_shows_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, MINE, other=OTHERS)
    output = run(monkeypatch, store.url).output
    assert f"recall_at(1) WHERE run = '{RUN}'" in output
    assert "dog" in output
    assert "cat" not in output
    assert OTHER not in output
