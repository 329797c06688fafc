"""`tagstream explain`: what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from jobs.cli import tagstream
from model.fingerprint import fingerprint_folder
from pipeline.errors import TagstreamError
from pipeline.store.store import Store
from tests.fixtures.corpus import jpeg, write_tars
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import run_record


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tagstream, ["explain", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photo.jpg").write_bytes(jpeg(1))
    return tmp_path / "photo.jpg"


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path) -> str:
    source = tmp_path / "shards"
    write_tars(source, 1, 2)
    store = Store(str(tmp_path / "store"))
    made = {"source": str(source), "source_root": str(source), "labelling": {"top_k": 3, "ranking": "none"}}
    of_model = {"model": str(tiny_model), "model_fingerprint": fingerprint_folder(tiny_model)}
    store.create_run(run_record("r", **made, **of_model))
    label_source(store, "r", str(source))
    return store.url


def test_a_photograph_becomes_a_page(photo: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = run(photo, "--model", tiny_model, "--out", tmp_path / "photo.HTML")
    assert result.exit_code == 0
    assert result.output.endswith(f"Written: {tmp_path / 'photo.HTML'}\n")
    assert (tmp_path / "photo.HTML").read_text().startswith("<!doctype html>")


def test_a_photograph_becomes_a_picture(photo: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert run(photo, "--model", tiny_model, "--top-k", 2, "--out", tmp_path / "photo.png").exit_code == 0
    assert Image.open(tmp_path / "photo.png").format == "PNG"


def test_an_image_of_a_store_is_labelled_as_its_run_was(store: str, tmp_path: Path) -> None:
    result = run("000001", "--store", store, "--out", tmp_path / "out.html")
    assert result.exit_code == 0
    assert 0 < len(result.output.splitlines()) - 3 <= 3
    assert "ranked by" in (tmp_path / "out.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["photo.jpg", "--model", "demo", "--out", "photo.jpg"],
            "--out is photo.jpg; expected a name in .html or .png",
        ),
        (["photo.jpg", "--out", "photo.png"], "there is no --model; a file needs one"),
        (["photo.jpg", "--model", "demo", "--run", "r", "--out", "photo.png"], "--run goes with --store STORE"),
        (["photo.jpg", "--model", "demo"], "Missing option '--out'"),
        (["photo.jpg", "--model", "demo", "--out", "a.png", "--top-k", "0"], "0 is not in the range 1 to 200"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_file_that_exists_is_kept_unless_it_may_be_replaced(photo: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_text("mine")
    with pytest.raises(TagstreamError, match="exists; give another name, or --overwrite"):
        run(photo, "--model", tiny_model, "--out", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_text() == "mine"
    assert run(photo, "--model", tiny_model, "--out", tmp_path / "out.png", "--overwrite").exit_code == 0
    assert Image.open(tmp_path / "out.png").format == "PNG"


def test_nothing_is_written_into_the_store(store: str) -> None:
    with pytest.raises(TagstreamError, match="which is only read"):
        run("000001", "--store", store, "--out", f"{store}/out.html")


def test_nothing_is_left_of_what_fails(photo: Path, tmp_path: Path, tiny_model: Path) -> None:
    photo.write_bytes(b"no image")
    with pytest.raises(TagstreamError, match="is no image that can be labelled"):
        run(photo, "--model", tiny_model, "--out", tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
