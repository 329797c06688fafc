"""Samples and reviews by way of the tools' own libraries, where they are installed.

They are no part of the extra `dev`. Label Studio's SDK goes beside it, with two dozen packages more: `pip install
label-studio-sdk`. FiftyOne does not, since it needs another version of graphql-core than moto: it is run by the
interpreter that TAGSTREAM_FIFTYONE_PYTHON names, of an environment of its own that has a `mongod`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.reviews.drawing import Draw
from pipeline.reviews.files import ReviewTool
from pipeline.reviews.job import SampleRequest, import_reviews, sample_for_review
from pipeline.store.store import Store
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import write_tars
from tests.fixtures.stored.labelled import label_source

LABELS = [("dogs", 0.5), ("tree", 0.25), ("owl", 0.125)]
SCRIPT = ROOT / "tests" / "fixtures" / "processes" / "fiftyone_review.py"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run of six images, each of which is labelled dogs, tree, owl."""
    write_tars(tmp_path / "source", 2, 3)
    store = Store(str(tmp_path / "store"))
    label_source(store, "r", str(tmp_path / "source"), LABELS)
    return store


def sampled(store: Store, folder: Path, to: ReviewTool) -> Path:
    draw, vocabulary = Draw(by="random", n=1000), read_vocabulary(None)
    sample_for_review(
        SampleRequest(store=store.url, run="r", draw=draw, to=to, out=str(folder / to), vocabulary=vocabulary)
    )
    return folder / to


def verdicts(store: Store) -> list[tuple[Any, ...]]:
    """What was said, with the number of images of which it was."""
    query = "SELECT label, verdict, reviewer, count(*) FROM reviews GROUP BY ALL ORDER BY ALL"
    return open_store(store.url).sql(query).fetchall()


def test_label_studio_takes_the_tasks_and_its_annotations_come_back(store: Store, tmp_path: Path) -> None:
    library = pytest.importorskip("label_studio_sdk.label_interface")
    objects = pytest.importorskip("label_studio_sdk.label_interface.objects")
    folder = sampled(store, tmp_path, "label-studio")
    interface = library.LabelInterface((folder / "config.xml").read_text("utf-8"))
    interface.validate()
    control, missing = interface.get_control("labels"), interface.get_control("missing")
    exported = []
    for task in json.loads((folder / "tasks.json").read_text("utf-8")):
        assert all(interface.validate_prediction(prediction) for prediction in task["predictions"])
        assert all(interface.validate_annotation(annotation) for annotation in task["annotations"])
        assert {"dog", "tree", "owl"} <= set(control.labels)
        results = [control.label(["dog", "sky"])._dict(), missing.label(["red fox"])._dict()]
        chosen = objects.AnnotationValue(completed_by=7, result=results)
        whole = objects.TaskValue(data=task["data"], predictions=task["predictions"], annotations=[chosen])
        assert interface.validate_annotation(chosen.model_dump())
        exported.append(whole.model_dump(mode="json"))
    (tmp_path / "export.json").write_text(json.dumps(exported))
    import_reviews(store.url, "r", str(tmp_path / "export.json"), "label-studio", "someone")
    assert verdicts(store) == [
        ("dog", "yes", "7", 6),
        ("owl", "no", "7", 6),
        ("red fox", "added", "7", 6),
        ("sky", "added", "7", 6),
        ("tree", "no", "7", 6),
    ]


def test_fiftyone_opens_the_sample_and_its_export_comes_back(store: Store, tmp_path: Path) -> None:
    interpreter = os.environ.get("TAGSTREAM_FIFTYONE_PYTHON")
    if interpreter is None:
        pytest.skip("TAGSTREAM_FIFTYONE_PYTHON names no interpreter that has FiftyOne")
    folder = sampled(store, tmp_path, "fiftyone")
    # Its database lies in the test's folder, and it tells nobody.
    own = {"FIFTYONE_DATABASE_DIR": str(tmp_path / "database"), "FIFTYONE_DO_NOT_TRACK": "1", "PYTHONPATH": ""}
    command = [interpreter, str(SCRIPT), str(folder), str(tmp_path / "back")]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, **own})
    import_reviews(store.url, "r", str(tmp_path / "back"), "fiftyone", "ada")
    assert verdicts(store) == [
        ("dog", "yes", "ada", 6),
        ("owl", "unsure", "ada", 6),
        ("sky", "added", "ada", 6),
        ("tree", "no", "ada", 6),
    ]
