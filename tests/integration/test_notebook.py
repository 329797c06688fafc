"""The notebook, run as a user would run it, and what it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from pipeline.catalog import open_store
from pipeline.catalog.notebook import connection_html, relation_html
from pipeline.store.store import Store
from tests.fixtures.checkout import ROOT
from tests.fixtures.stored.labelled import label_source

NOTEBOOK = ROOT / "tests" / "notebooks" / "first-look.ipynb"
SCENES = str(ROOT / "jobs" / "demo" / "shards")
HOSTILE = "<script>alert(1)</script>"
QUERY = 'store.sql("SELECT label, count(*) AS images FROM labels GROUP BY label ORDER BY images DESC, label LIMIT 10")'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebook runs: with a store as `tagstream demo` makes it, one of whose labels is hostile."""
    folder = tmp_path_factory.mktemp("notebook")
    label_source(Store(str(folder / "demo-store")), "demo", SCENES, [("heart", 0.5), (HOSTILE, 0.25)])
    return folder


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[str, dict[str, Any]]:
    """What the notebook's cells show at last, by their last line: data by MIME type."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # A busy machine takes long to start the kernel, and to import torch in it.
    NotebookClient(notebook, timeout=300, startup_timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    return {cell.source.splitlines()[-1]: cell.outputs[-1].get("data", {}) for cell in cells}


def html_of(shown: dict[str, dict[str, Any]], line: str) -> str:
    return str(shown[line]["text/html"])


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.long
def test_the_recognizer_tells_what_it_is(shown: dict[str, dict[str, Any]]) -> None:
    html = html_of(shown, "recognizer")
    assert "demo" in html
    assert "The objects in the image are" in html


@pytest.mark.long
def test_labels_are_shown_with_bars(shown: dict[str, dict[str, Any]]) -> None:
    html = html_of(shown, "labels")
    assert "<bdi>ambulance</bdi>" in html
    assert html.count("<table") == 3
    assert "width:37.7%" in html


@pytest.mark.long
def test_labels_are_a_list_where_no_html_is_shown(shown: dict[str, dict[str, Any]]) -> None:
    assert str(shown["labels"]["text/plain"]).startswith("[[Label(text='ambulance'")


@pytest.mark.long
def test_an_explanation_is_shown_as_pictures(shown: dict[str, dict[str, Any]]) -> None:
    html = html_of(shown, "explanation")
    assert html.count('<img src="data:image/jpeg;base64,') == 7
    assert "ladybug" in html


@pytest.mark.long
def test_a_store_is_shown_by_its_runs_and_tables(shown: dict[str, dict[str, Any]]) -> None:
    html = html_of(shown, "store")
    assert "<td>demo</td>" in html
    assert "<td>rejects</td>" in html
    assert "stored_labels" not in html


@pytest.mark.long
def test_a_relation_is_shown_as_a_frame(shown: dict[str, dict[str, Any]]) -> None:
    html = html_of(shown, QUERY)
    assert "<th>images</th>" in html
    assert "<td>heart</td>" in html
    assert "<p>2 rows</p>" in html


@pytest.mark.long
def test_hostile_labels_of_a_store_are_harmless(shown: dict[str, dict[str, Any]]) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html_of(shown, QUERY)
    assert not any("<script" in str(data.get("text/html", "")) for data in shown.values())


def test_long_texts_of_a_relation_are_cut() -> None:
    import duckdb

    html = relation_html(duckdb.connect().sql("SELECT repeat('x', 10000) || '<script>' AS caption"))
    assert 200 < html.count("x") < 300
    assert "<script" not in html


def test_of_many_rows_the_first_are_shown(folder: Path) -> None:
    html = relation_html(open_store(str(folder / "demo-store")).sql("SELECT key FROM images ORDER BY key"))
    assert html.count("<tr>") == 20
    assert "scene-0000019" in html
    assert "scene-0000020" not in html
    assert "there are more" in html


def test_showing_a_connection_leaves_the_rows_of_its_query(folder: Path) -> None:
    connection = open_store(str(folder / "demo-store"))
    connection.execute("SELECT unnest(range(3))")
    assert "rejects" in connection_html(connection)
    assert connection.fetchall() == [(0,), (1,), (2,)]


def test_a_connection_that_is_no_stores_is_shown_by_its_tables() -> None:
    import duckdb

    connection = duckdb.connect()
    assert "<td>" not in connection_html(connection)
    connection.execute('CREATE TABLE "<b>" (x INT, y INT)')
    assert "<td>&lt;b&gt;</td>\n      <td>x, y</td>" in connection_html(connection)
    connection.execute("CREATE TABLE runs (x INT); CREATE TABLE jobs (x INT)")
    assert "<td>runs</td>\n      <td>x</td>" in connection_html(connection)


def test_outside_of_a_notebook_opening_a_store_loads_no_ipython(folder: Path) -> None:
    program = (
        "import sys; from pipeline.catalog import open_store; open_store(sys.argv[1]); print('IPython' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(folder / "demo-store")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"
