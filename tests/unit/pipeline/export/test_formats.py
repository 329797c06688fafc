"""Exports, read back: as plain files always, with each tool's own library where it is installed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from pipeline.store.store import Store
from schemas import image_id
from tests.unit.pipeline.export.conftest import HOSTILE, RUN, ExportFunction

N_IMAGES = 4
FIRST_ID = image_id("a", "0")


def read_json(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no json")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def named(labels: list[str]) -> list[str]:
    """Names of labels in the built-in vocabulary."""
    from pipeline.naming.vocabulary import read_vocabulary

    return [name for label in labels if (name := read_vocabulary(None).name_of(label))]


class TestCoco:
    """Annotations without boxes, in COCO's files."""

    @pytest.fixture
    def files(self, export: ExportFunction, tmp_path: Path) -> dict[str, Any]:
        export("coco")
        folder = tmp_path / "out" / "annotations"
        assert sorted(path.name for path in folder.iterdir()) == ["labels_predictions.json", "labels_truth.json"]
        return {name: read_json(folder / f"labels_{name}.json") for name in ("predictions", "truth")}

    def test_an_annotation_has_category_score_raw_label_and_rank(self, files: dict[str, Any]) -> None:
        predictions = files["predictions"]
        assert set(predictions) == {"info", "licenses", "images", "annotations", "categories"}
        categories = {category["name"]: category["id"] for category in predictions["categories"]}
        assert predictions["annotations"][:2] == [
            {
                "id": 1,
                "image_id": 1,
                "category_id": categories["dog"],
                "score": 0.5,
                "attributes": {"label": "Dogs", "rank": 1},
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": categories["tree"],
                "score": 0.25,
                "attributes": {"label": "tree", "rank": 2},
            },
        ]

    def test_truth_has_the_images_with_a_truth_under_the_same_numbers(self, files: dict[str, Any]) -> None:
        truth, predictions = files["truth"], files["predictions"]
        assert [image["id"] for image in truth["images"]] == [1, 3]
        assert truth["images"] == [image for image in predictions["images"] if image["id"] in (1, 3)]
        assert truth["categories"] == predictions["categories"]
        names = {category["id"]: category["name"] for category in truth["categories"]}
        assert [(a["image_id"], names[a["category_id"]]) for a in truth["annotations"]] == [(1, "dog"), (1, "cat")]

    def test_every_image_says_where_it_comes_from(self, files: dict[str, Any]) -> None:
        first, second = files["predictions"]["images"][:2]
        assert first == {
            "id": 1,
            "file_name": "/data/shards/a#0",
            "shard": "a",
            "key": "0",
            "caption": 'a dog,\n"here"',
        }
        assert "caption" not in second

    def test_without_any_truth_there_is_no_file_of_it(self, export: ExportFunction, tmp_path: Path) -> None:
        export("coco", run="run-2")
        assert [path.name for path in (tmp_path / "out" / "annotations").iterdir()] == ["labels_predictions.json"]

    def test_pycocotools_reads_it(self, export: ExportFunction, tmp_path: Path) -> None:
        coco = pytest.importorskip("pycocotools.coco")
        export("coco")
        found = coco.COCO(str(tmp_path / "out" / "annotations" / "labels_predictions.json"))
        assert len(found.imgs) == N_IMAGES
        (dog,) = found.getCatIds(catNms=["dog"])
        assert found.getImgIds(catIds=[dog]) == [1]
        assert [a["score"] for a in found.loadAnns(found.getAnnIds(imgIds=[1]))] == [0.5, 0.25]


class TestFiftyOne:
    """Samples with ground truth beside predictions."""

    @pytest.fixture
    def samples(self, export: ExportFunction, tmp_path: Path) -> list[dict[str, Any]]:
        export("fiftyone")
        assert "version" not in read_json(tmp_path / "out" / "metadata.json")
        samples: list[dict[str, Any]] = read_json(tmp_path / "out" / "samples.json")["samples"]
        return samples

    def test_predictions_are_classifications_with_a_confidence(self, samples: list[dict[str, Any]]) -> None:
        assert samples[0]["predictions"] == {
            "_cls": "Classifications",
            "classifications": [
                {"_cls": "Classification", "label": "dog", "confidence": 0.5, "raw_label": "Dogs", "rank": 1},
                {"_cls": "Classification", "label": "tree", "confidence": 0.25, "raw_label": "tree", "rank": 2},
            ],
        }

    def test_ground_truth_is_there_where_it_was_given(self, samples: list[dict[str, Any]]) -> None:
        labels = [
            [label["label"] for label in sample["ground_truth"]["classifications"]]
            if "ground_truth" in sample
            else None
            for sample in samples
        ]
        assert labels == [["dog", "cat"], None, [], None]

    def test_ids_are_text(self, samples: list[dict[str, Any]]) -> None:
        assert samples[0]["image_id"] == str(FIRST_ID)

    def test_fiftyone_reads_it(self, export: ExportFunction, tmp_path: Path) -> None:
        importers = pytest.importorskip("fiftyone.utils.data.importers")
        export("fiftyone")
        # As Dataset.from_dir does, up to its database.
        reader = importers._handle_legacy_formats(importers.FiftyOneDatasetImporter(str(tmp_path / "out")))
        with reader:
            samples = list(reader)
        assert [sample.media_type for sample in samples] == ["image"] * N_IMAGES
        assert [(c.label, c.confidence) for c in samples[0].predictions.classifications] == [
            ("dog", 0.5),
            ("tree", 0.25),
        ]
        assert [c.raw_label for c in samples[2].predictions.classifications][:2] == HOSTILE[:2]


class TestLabelStudio:
    """Tasks with predictions, and their configuration."""

    @pytest.fixture
    def tasks(self, export: ExportFunction, tmp_path: Path) -> list[dict[str, Any]]:
        export("label-studio")
        tasks: list[dict[str, Any]] = read_json(tmp_path / "out" / "tasks.json")
        return tasks

    def test_labels_are_a_prediction_of_the_run_and_truth_is_an_annotation(self, tasks: list[dict[str, Any]]) -> None:
        number = f"{FIRST_ID % 2**64:016x}"
        place = {"from_name": "labels", "to_name": "image", "type": "choices"}
        first = tasks[0]
        assert first["predictions"] == [
            {
                "model_version": RUN,
                "score": 0.5,
                "result": [{"id": f"{number}-predicted", **place, "value": {"choices": ["dog", "tree"]}}],
            }
        ]
        assert first["annotations"] == [
            {
                "ground_truth": True,
                "result": [{"id": f"{number}-given", **place, "value": {"choices": ["dog", "cat"]}}],
            }
        ]
        assert first["data"]["labels"][0] == {"name": "dog", "label": "Dogs", "score": 0.5, "rank": 1}

    def test_an_image_without_labels_or_truth_has_no_prediction_or_annotation(
        self, tasks: list[dict[str, Any]]
    ) -> None:
        assert set(tasks[1]) == {"data", "predictions"}
        assert tasks[2]["annotations"] == [{"ground_truth": True, "result": []}]
        assert set(tasks[3]) == {"data"}

    def test_the_configuration_has_every_choice(self, tasks: list[dict[str, Any]], tmp_path: Path) -> None:
        config = ElementTree.parse(tmp_path / "out" / "config.xml")
        choices = {choice.get("value") for choice in config.iter("Choice")}
        used = {
            name
            for task in tasks
            for kind in ("predictions", "annotations")
            for given in task.get(kind, ())
            for result in given["result"]
            for name in result["value"]["choices"]
        }
        assert choices == used
        assert "</choice><script>" in choices

    def test_a_score_that_is_no_probability_stays_in_the_data(self, tmp_path: Path) -> None:
        from pipeline.export.image import ExportedImage, Origin
        from pipeline.export.label_studio import write_label_studio

        image = ExportedImage(
            image_id=1,
            shard="s",
            index=0,
            key="k",
            width=1,
            height=1,
            n_bytes=1,
            caption=None,
            labels=[{"name": "dog", "label": "dog", "score": 12.5, "rank": 1}],
            truth=None,
            original="x",
        )
        write_label_studio(tmp_path, [image], Origin(run=RUN, vocabulary="v", folder="out"))
        (task,) = read_json(tmp_path / "tasks.json")
        assert "score" not in task["predictions"][0]
        assert task["data"]["labels"][0]["score"] == 12.5

    def test_label_studio_accepts_it(self, tasks: list[dict[str, Any]], tmp_path: Path) -> None:
        interface = pytest.importorskip("label_studio_sdk.label_interface")
        config = interface.LabelInterface((tmp_path / "out" / "config.xml").read_text("utf-8"))
        config.validate()
        for task in tasks:
            assert config.validate_task({"data": task["data"]})
            assert all(not config.validate_prediction(p, return_errors=True) for p in task.get("predictions", ()))
            assert all(config.validate_annotation(annotation) for annotation in task.get("annotations", ()))


class TestHuggingFace:
    """Parquet that `load_dataset` takes."""

    def test_a_row_has_labels_and_truth(self, export: ExportFunction, tmp_path: Path) -> None:
        export("hf")
        rows = pq.read_table(tmp_path / "out" / "data" / "train-00000.parquet").to_pylist()
        assert len(rows) == N_IMAGES
        assert rows[0] == {
            "image_id": FIRST_ID,
            "shard": "a",
            "index": 0,
            "key": "0",
            "original": "/data/shards/a#0",
            "width": None,
            "height": None,
            "caption": 'a dog,\n"here"',
            "labels": [
                {"name": "dog", "label": "Dogs", "score": 0.5, "rank": 1},
                {"name": "tree", "label": "tree", "score": 0.25, "rank": 2},
            ],
            "truth": ["dog", "cat"],
        }
        assert [row["truth"] for row in rows] == [["dog", "cat"], None, [], None]

    def test_a_large_export_has_several_files(
        self, export: ExportFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.export.hugging_face._FILE_BYTES", 1)
        monkeypatch.setattr("pipeline.export.hugging_face._ROWS_AT_ONCE", 1)
        export("hf")
        files = sorted((tmp_path / "out" / "data").iterdir())
        assert [file.name for file in files] == [f"train-{number:05d}.parquet" for number in range(N_IMAGES)]
        assert [pq.read_table(file).num_rows for file in files] == [1] * N_IMAGES

    def test_datasets_loads_it(self, export: ExportFunction, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        export("hf")
        train = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
        assert len(train) == N_IMAGES
        assert [label["label"] for label in train[2]["labels"]][:2] == HOSTILE[:2]


class TestCsv:
    """Tables for everything else."""

    def read(self, path: Path) -> list[dict[str, str]]:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def test_tables_of_images_labels_and_truth(self, export: ExportFunction, tmp_path: Path) -> None:
        export("csv")
        images, labels, truth = (self.read(tmp_path / "out" / f"{name}.csv") for name in ("images", "labels", "truth"))
        assert [row["file"] for row in images] == [
            "/data/shards/a#0",
            "/data/shards/a#1",
            "/data/shards/b/../c#0",
            "/data/shards/b/../c#2",
        ]
        assert images[0]["caption"] == 'a dog,\n"here"'
        assert labels[0] == {
            "image_id": str(FIRST_ID),
            "key": "0",
            "rank": "1",
            "name": "dog",
            "label": "Dogs",
            "score": "0.5",
        }
        assert [(row["name"], row["label"]) for row in truth] == [("dog", "dogs"), ("cat", "cat")]

    def test_every_label_comes_back_as_it_was(self, export: ExportFunction, tmp_path: Path) -> None:
        export("csv", where="shard <> 'a'")
        labels = [row["label"] for row in self.read(tmp_path / "out" / "labels.csv")]
        assert labels == [label for label in HOSTILE if named([label])]
        assert len(labels) > 10


class TestHostileLabels:
    """Every format keeps them."""

    def test_json_formats_keep_them(self, export: ExportFunction, tmp_path: Path, store: Store) -> None:
        expected = [label for label in HOSTILE if named([label])]
        for to in ("coco", "fiftyone", "label-studio"):
            export(to, where="n_labels > 5", out=to)
        annotations = read_json(tmp_path / "coco" / "annotations" / "labels_predictions.json")["annotations"]
        assert [annotation["attributes"]["label"] for annotation in annotations] == expected
        (sample,) = read_json(tmp_path / "fiftyone" / "samples.json")["samples"]
        assert [label["raw_label"] for label in sample["predictions"]["classifications"]] == expected
        (task,) = read_json(tmp_path / "label-studio" / "tasks.json")
        assert [label["label"] for label in task["data"]["labels"]] == expected
