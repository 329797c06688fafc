"""`tagstream export` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.verbs.export import _FORMATS, _NEXT, export
from pipeline.errors import TagstreamError
from pipeline.export.job import WRITERS
from pipeline.naming.thresholds import Thresholds, write_thresholds
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from tests.fixtures.corpus import write_tars
from tests.fixtures.stored.labelled import label_source


@pytest.fixture
def store(tmp_path: Path) -> str:
    write_tars(tmp_path / "shards", 2, 3)
    store = Store(str(tmp_path / "store"))
    label_source(store, "run-1", str(tmp_path / "shards"), [("dog", 0.5), ("tree", 0.25)])
    return store.url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(export, list(arguments), catch_exceptions=False)


def test_every_format_is_offered_and_says_what_to_do_next() -> None:
    assert list(WRITERS) == _FORMATS == list(_NEXT)


@pytest.mark.parametrize("to", _FORMATS)
def test_it_says_what_it_wrote_and_how_to_load_it(store: str, tmp_path: Path, to: str) -> None:
    out = str(tmp_path / "out")
    result = run(store, "--to", to, "--out", out)
    lines = result.stdout.splitlines()
    assert lines[0] == f"Exported 6 images with 12 labels of run run-1 to {out}"
    assert lines[1].startswith("next: ")
    assert out in lines[1]


def test_options_select_images_and_labels(store: str, tmp_path: Path) -> None:
    options = ["--where", "shard = '00000'", "--sample", "2", "--seed", "5", "--min-score", "0.3", "--run", "run-1"]
    result = run(store, "--to", "csv", "--out", str(tmp_path / "out"), *options)
    assert result.stdout.startswith("Exported 2 images with 2 labels of run run-1 to ")


def test_a_vocabulary_names_the_labels(store: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('deny = ["tree"]\n[aliases]\ndog = "animal"\n')
    run(store, "--to", "csv", "--out", str(tmp_path / "out"), "--vocabulary", str(tmp_path / "mine.toml"))
    lines = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert [line.split(",")[3:5] for line in lines[1:]] == [["animal", "dog"]] * 6


def test_thresholds_leave_labels_out(store: str, tmp_path: Path) -> None:
    learned = Thresholds(
        run="run-1",
        truth="labels",
        vocabulary=read_vocabulary(None).version,
        model_fingerprint="0123",
        ranking="prob",
        direction="highest",
        target_precision=0.9,
        common=0.25,
        thresholds={"dog": 0.75},
    )
    write_thresholds(tmp_path / "thresholds.toml", learned)
    options = ["--thresholds", str(tmp_path / "thresholds.toml")]
    result = run(store, "--to", "csv", "--out", str(tmp_path / "out"), *options)
    assert result.stdout.startswith("Exported 6 images with 6 labels of run run-1 to ")
    lines = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert {line.split(",")[4] for line in lines[1:]} == {"tree"}


def test_images_that_are_left_out_are_told_of_on_stderr(store: str, tmp_path: Path) -> None:
    (tmp_path / "shards" / "00001.tar").unlink()
    result = run(store, "--to", "csv", "--out", str(tmp_path / "out"), "--images")
    assert result.stdout.startswith("Exported 3 images with 6 labels")
    assert result.stderr.startswith("Note: 3 images are left out: 3 x the original is gone (")


def test_label_studio_is_told_where_its_images_are(store: str, tmp_path: Path) -> None:
    result = run(store, "--to", "label-studio", "--out", str(tmp_path / "out"), "--images")
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}\n" in result.stdout


def test_an_unknown_format_is_wrong_usage(store: str, tmp_path: Path) -> None:
    assert run(store, "--to", "yolo", "--out", str(tmp_path / "out")).exit_code == 2
    assert run(store, "--out", str(tmp_path / "out")).exit_code == 2


def test_a_store_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TagstreamError, match="there is no store at"):
        run(str(tmp_path / "nowhere"), "--to", "csv", "--out", str(tmp_path / "out"))
