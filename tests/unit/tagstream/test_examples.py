"""The examples on the page of the package run as they stand there, on a CPU."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest

from pipeline.store.store import Store
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.stored.labelled import label_source

PAGE = (ROOT / "tagstream" / "README.md").read_text()
RECOGNIZER, STORE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_images_are_labelled_by_the_demo_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(ROOT / "jobs" / "demo" / "shards" / "scenes-00000.tar") as archive:
        member = archive.next()
        assert member is not None
        file = archive.extractfile(member)
        assert file is not None
        (tmp_path / "scene.jpg").write_bytes(file.read())
    monkeypatch.chdir(tmp_path)
    exec(RECOGNIZER, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 1


def test_a_store_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_tars(tmp_path / "source", 1, 2)
    monkeypatch.chdir(tmp_path)
    label_source(Store("tags"), "r", str(tmp_path / "source"), [("dog", 0.5)])
    exec(STORE, {})
    assert "dog" in capsys.readouterr().out
