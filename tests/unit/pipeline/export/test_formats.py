"""Exports, read back: as plain files always, with each tool's own library where it is installed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from pipeline.export.coco import write_coco
from pipeline.export.csv_tables import write_csv
from pipeline.export.image import ExportedImage, ExportedLabel, Origin
from pipeline.export.label_studio import write_label_studio
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
                "iscrowd": 0,
                "area": 0,
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": categories["tree"],
                "score": 0.25,
                "attributes": {"label": "tree", "rank": 2},
                "iscrowd": 0,
                "area": 0,
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
        assert len(found.getAnnIds(imgIds=[1], areaRng=[-1, 1e9], iscrowd=False)) == 2


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


def made_image(**changed: Any) -> ExportedImage:
    """An image without labels or truth, made by hand."""
    values: dict[str, Any] = {
        "image_id": 1,
        "shard": "s",
        "index": 0,
        "key": "k",
        "width": 4,
        "height": 3,
        "n_bytes": 2,
        "caption": None,
        "labels": [],
        "truth": None,
        "original": "s#k",
    }
    return ExportedImage(**{**values, **changed})


def made_labels(*names: str, score: float | None = 0.5) -> list[ExportedLabel]:
    return [{"name": name, "label": name, "score": score, "rank": rank} for rank, name in enumerate(names, start=1)]


ORIGIN = Origin(run=RUN, vocabulary="v1", folder="out")


class TestCocoOfImagesMadeByHand:
    """Numbers, and what is left out."""

    def written(self, folder: Path, *images: ExportedImage, name: str = "predictions") -> dict[str, Any]:
        write_coco(folder, images, ORIGIN)
        written: dict[str, Any] = read_json(folder / "annotations" / f"labels_{name}.json")
        return written

    def test_images_annotations_and_categories_count_from_1(self, tmp_path: Path) -> None:
        images = [made_image(labels=made_labels("dog", "cat")), made_image(key="l", labels=made_labels("cat", "fox"))]
        written = self.written(tmp_path, *images)
        assert [image["id"] for image in written["images"]] == [1, 2]
        assert [(each["id"], each["image_id"], each["category_id"]) for each in written["annotations"]] == [
            (1, 1, 1),
            (2, 1, 2),
            (3, 2, 2),
            (4, 2, 3),
        ]
        assert written["categories"] == [
            {"id": number, "name": name, "supercategory": ""} for number, name in enumerate(["dog", "cat", "fox"], 1)
        ]

    def test_the_area_of_an_annotation_is_that_of_the_image(self, tmp_path: Path) -> None:
        written = self.written(tmp_path, made_image(labels=made_labels("dog"), width=30, height=20))
        assert [(each["area"], each["iscrowd"]) for each in written["annotations"]] == [(600, 0)]

    def test_categories_that_only_truth_has_follow_those_of_the_images_before(self, tmp_path: Path) -> None:
        images = [
            made_image(labels=made_labels("dog"), truth=[{"name": "ant", "label": "ants"}]),
            made_image(key="l", labels=made_labels("cat")),
        ]
        truth = self.written(tmp_path, *images, name="truth")
        assert [(category["id"], category["name"]) for category in truth["categories"]] == [
            (1, "dog"),
            (2, "ant"),
            (3, "cat"),
        ]
        assert [(a["id"], a["image_id"], a["category_id"]) for a in truth["annotations"]] == [(1, 1, 2)]

    def test_a_label_without_a_score_has_no_score(self, tmp_path: Path) -> None:
        written = self.written(tmp_path, made_image(labels=made_labels("dog", score=None)))
        assert "score" not in written["annotations"][0]

    def test_a_score_of_0_is_a_score(self, tmp_path: Path) -> None:
        written = self.written(tmp_path, made_image(labels=made_labels("dog", score=0.0)))
        assert written["annotations"][0]["score"] == 0

    def test_a_copied_image_is_named_by_its_copy(self, tmp_path: Path) -> None:
        written = self.written(tmp_path, made_image(file="k.jpg"))
        assert written["images"] == [{"id": 1, "file_name": "k.jpg", "width": 4, "height": 3, "shard": "s", "key": "k"}]

    def test_the_file_says_which_run_and_vocabulary_it_is_of(self, tmp_path: Path) -> None:
        written = self.written(tmp_path, made_image())
        assert written["info"] == {"description": f"labels of run {RUN} by tagstream, vocabulary v1"}
        assert [written[name] for name in ("licenses", "annotations", "categories")] == [[], [], []]


class TestLabelStudioOfImagesMadeByHand:
    """Addresses, ids, choices and scores."""

    def task(self, folder: Path, origin: Origin = ORIGIN, **changed: Any) -> dict[str, Any]:
        write_label_studio(folder, [made_image(**changed)], origin)
        (task,) = read_json(folder / "tasks.json")
        return dict(task)

    @pytest.mark.parametrize("name", ["k.jpg", "a b.jpg", "a&d=b#c?.jpg", "50%25.jpg", "größe+☃.jpg", "x/y.jpg"])
    def test_the_address_of_a_copy_is_read_back_as_its_place(self, tmp_path: Path, name: str) -> None:
        origin = Origin(run=RUN, vocabulary="v1", folder="my & out")
        address = urlsplit(self.task(tmp_path, origin, file=name)["data"]["image"])
        assert (address.path, address.fragment) == ("/data/local-files/", "")
        assert parse_qs(address.query) == {"d": [f"my & out/data/{name}"]}

    def test_an_image_that_was_not_copied_has_the_address_of_its_original(self, tmp_path: Path) -> None:
        assert self.task(tmp_path, original="s3://corpus/a b.jpg")["data"]["image"] == "s3://corpus/a b.jpg"

    @pytest.mark.parametrize("number", [2**63 - 1, -(2**63), -1, 0])
    def test_a_64_bit_id_keeps_its_digits(self, tmp_path: Path, number: int) -> None:
        task = self.task(tmp_path, image_id=number, labels=made_labels("dog"))
        assert task["data"]["image_id"] == str(number)
        (result,) = task["predictions"][0]["result"]
        written, kind = result["id"].split("-")
        assert (len(written), kind) == (16, "predicted")
        assert int(written, 16).to_bytes(8) == number.to_bytes(8, signed=True)

    def test_names_that_are_one_in_the_configuration_are_one_choice(self, tmp_path: Path) -> None:
        task = self.task(tmp_path, labels=made_labels("a\x00", "b", "a\x01"), truth=[])
        (result,) = task["predictions"][0]["result"]
        assert result["value"] == {"choices": ["a\ufffd", "b"]}
        config = ElementTree.parse(tmp_path / "config.xml")
        assert [choice.get("value") for choice in config.iter("Choice")] == ["a\ufffd", "b"]

    @pytest.mark.parametrize("name", ["\x08", "\x0b", "\x1f", "\ufffe", "\uffff"])
    def test_what_xml_cannot_hold_is_replaced(self, tmp_path: Path, name: str) -> None:
        self.task(tmp_path, labels=made_labels(f"a{name}z"))
        config = ElementTree.parse(tmp_path / "config.xml")
        assert [choice.get("value") for choice in config.iter("Choice")] == ["a\ufffdz"]

    @pytest.mark.parametrize(
        "name", ["\t", "\n", "\r", "\x7f", "\ue000", "\ufffd", "\U00010000", "\U0010ffff", "'\"<&"]
    )
    def test_what_xml_can_hold_is_kept(self, tmp_path: Path, name: str) -> None:
        self.task(tmp_path, labels=made_labels(f"a{name}z"))
        config = ElementTree.parse(tmp_path / "config.xml")
        assert [choice.get("value") for choice in config.iter("Choice")] == [f"a{name}z"]

    def test_the_configuration_has_the_choices_in_order_those_of_truth_among_them(self, tmp_path: Path) -> None:
        self.task(tmp_path, labels=made_labels("dog", "bee"), truth=[{"name": "cat", "label": "cats"}])
        config = ElementTree.parse(tmp_path / "config.xml")
        assert [choice.get("value") for choice in config.iter("Choice")] == ["bee", "cat", "dog"]

    @pytest.mark.parametrize(
        ("score", "told"), [(0.0, {"score": 0.0}), (1.0, {"score": 1.0}), (1.001, {}), (-0.001, {}), (None, {})]
    )
    def test_a_prediction_has_the_score_of_its_best_label_from_0_to_1(
        self, tmp_path: Path, score: float | None, told: dict[str, float]
    ) -> None:
        labels = [*made_labels("dog", score=score), *made_labels("cat", score=0.25)]
        (prediction,) = self.task(tmp_path, labels=labels)["predictions"]
        assert {name: value for name, value in prediction.items() if name == "score"} == told


class TestCsvOfImagesMadeByHand:
    """Bytes of the tables."""

    def test_lines_end_as_rfc_4180_has_it_and_line_breaks_within_texts_stay(self, tmp_path: Path) -> None:
        write_csv(tmp_path, [made_image(caption='two\nlines, "so"', file="k.jpg")], ORIGIN)
        assert (tmp_path / "images.csv").read_bytes() == (
            b'image_id,shard,index,key,file,width,height,caption\r\n1,s,0,k,data/k.jpg,4,3,"two\nlines, ""so"""\r\n'
        )

    def test_tables_without_rows_have_their_header(self, tmp_path: Path) -> None:
        write_csv(tmp_path, [made_image()], ORIGIN)
        assert (tmp_path / "labels.csv").read_bytes() == b"image_id,key,rank,name,label,score\r\n"
        assert (tmp_path / "truth.csv").read_bytes() == b"image_id,key,name,label\r\n"

    def test_a_label_without_a_score_has_an_empty_field(self, tmp_path: Path) -> None:
        write_csv(tmp_path, [made_image(labels=made_labels("dog", score=None))], ORIGIN)
        assert (tmp_path / "labels.csv").read_bytes().splitlines()[1:] == [b"1,k,1,dog,dog,"]
