"""`tagstream sample` and what it says comes next."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.sample import sample
from pipeline.store.store import Store
from tests.fixtures.stored.reported import RUN, make_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, {"a": [{"labels": ["dog", "cat"]}] * 3})


def run(store: Store, *arguments: str) -> Result:
    return CliRunner().invoke(sample, [store.url, "--n", "1000", *arguments])


def test_a_page_is_written_and_the_way_back_is_said(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "review.html"
    result = run(store, "--to", "page", "--out", str(out))
    assert (result.exit_code, out.is_file()) == (0, True)
    drew, held, then, command = result.stdout.splitlines()
    assert drew.startswith(f"Drew 3 of 3 labelled images of run {RUN}, sample random-")
    assert held == f"3 images with 6 labels are in {out}"
    assert then == f"next: open {out} in a browser, decide, and save the file, then"
    assert command.endswith(f"review import {store.url} review.json --from page --run {RUN}")


def test_a_page_that_is_there_is_not_replaced(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "review.html"
    out.touch()
    result = run(store, "--to", "page", "--out", str(out))
    assert str(result.exception) == f"{out} exists; give another name"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "page", "--out", "review.png"], "expected a name in .html"),
        (["--to", "page", "--out", "r.html", "--no-images"], "a page has pictures"),
    ],
)
def test_what_is_no_page_is_refused(store: Store, arguments: list[str], reason: str) -> None:
    result = run(store, *arguments)
    assert result.exit_code == 2
    assert reason in result.output
