"""An export as a whole: its folder, and the copies of images in it."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from model.choices import RANKINGS
from pipeline.errors import TagstreamError
from pipeline.export import job
from pipeline.naming.thresholds import Thresholds, direction_of
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.storage.files import open_filesystem
from pipeline.store.store import Store
from schemas import content_hash
from tests.fixtures.corpus import jpeg, tar_bytes, write_tars
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import commit_judged, job_record, run_record
from tests.unit.pipeline.export.conftest import ExportFunction


@pytest.fixture
def source(tmp_path: Path, store: Store) -> Path:
    """Two tars of three images, which the run `copied` labels."""
    write_tars(tmp_path / "shards", 2, 3)
    label_source(store, "copied", str(tmp_path / "shards"), [("dog", 0.5)])
    return tmp_path / "shards"


class TestFolder:
    """It appears when all is written."""

    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_what_exists_is_not_touched(self, export: ExportFunction, tmp_path: Path, kind: str) -> None:
        out = tmp_path / "out"
        {"file": out.touch, "folder": out.mkdir, "link": lambda: out.symlink_to("nowhere")}[kind]()
        with pytest.raises(TagstreamError, match=r"out exists; expected a folder that is not there yet"):
            export("csv")

    def test_a_place_that_is_not_local_is_refused(self, store: Store) -> None:
        with pytest.raises(TagstreamError, match="expected a folder of this machine"):
            job._new_folder("s3://bucket/out", store)

    def test_a_place_in_the_store_is_refused_also_behind_a_link(
        self, export: ExportFunction, store: Store, tmp_path: Path
    ) -> None:
        (tmp_path / "link").symlink_to(f"{store.url}/labels")
        for place in (f"{store.url}/out", f"{store.url}/labels/out", "link/out"):
            with pytest.raises(TagstreamError, match=r"out lies in the store .*, which is only read"):
                export("csv", out=place)

    def test_nothing_is_left_of_an_export_that_fails(
        self, export: ExportFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(folder: Path, images: Any, origin: Any) -> None:
            (folder / "half").touch()
            next(iter(images))
            raise OSError(28, "No space left on device")

        monkeypatch.setitem(job.WRITERS, "csv", fail)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(TagstreamError, match=r"cannot write the export .*: .*No space left on device"):
            export("csv")
        assert sorted(tmp_path.iterdir()) == before

    def test_what_appears_in_its_place_meanwhile_is_not_touched(
        self, export: ExportFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write(folder: Path, images: Any, origin: Any) -> None:
            assert list(images)
            (folder / "ours").touch()
            # A folder without files could be renamed over.
            (tmp_path / "out").mkdir()

        monkeypatch.setitem(job.WRITERS, "csv", write)
        with pytest.raises(TagstreamError, match="out exists; expected a folder that is not there yet"):
            export("csv")
        assert list((tmp_path / "out").iterdir()) == []
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_folders_above_it_are_made(self, export: ExportFunction, tmp_path: Path) -> None:
        export("csv", out="x/y/out")
        assert (tmp_path / "x" / "y" / "out" / "images.csv").is_file()

    @pytest.mark.parametrize("to", list(job.WRITERS))
    def test_the_same_export_gives_the_same_bytes(self, export: ExportFunction, tmp_path: Path, to: Any) -> None:
        contents = []
        for folder in ("one", "two"):
            export(to, out=f"{folder}/out")
            files = [path for path in (tmp_path / folder).rglob("*") if path.is_file()]
            contents.append({path.name: path.read_bytes() for path in files})
        assert contents[0] == contents[1]

    def test_it_knows_what_it_wrote(self, export: ExportFunction) -> None:
        exported = export("csv", where="shard = 'a'")
        assert (exported.run, exported.n_chosen, exported.n_images, exported.n_labels) == ("run-1", 2, 2, 4)
        assert exported.notes == []

    def test_the_latest_run_is_written_where_none_is_named(self, store: Store, export: ExportFunction) -> None:
        store.run("run-2").write_job(job_record("run-2"))
        assert export("csv", run=None).run == "run-2"


class TestScores:
    """Which labels are written, by their scores."""

    def test_of_thresholds_only_the_labels_that_reach_them_are_written(
        self, export: ExportFunction, tmp_path: Path
    ) -> None:
        limits = thresholds_of("prob", common=0.5, dog=0.75, tree=0.25)
        exported = export("csv", where="shard = 'a'", thresholds=limits)
        assert written_labels(tmp_path) == ["tree", "photo"]
        assert (exported.n_images, exported.n_labels) == (2, 2)

    def test_without_thresholds_all_are_written(self, export: ExportFunction, tmp_path: Path) -> None:
        export("csv", where="shard = 'a'")
        assert written_labels(tmp_path) == ["Dogs", "tree", "photo", "sky"]

    def test_thresholds_of_another_model_are_refused(self, export: ExportFunction, tmp_path: Path) -> None:
        with pytest.raises(TagstreamError, match="the store has no such run: learn thresholds of its own"):
            export("csv", thresholds=thresholds_of("prob", model_fingerprint="another", common=0.5))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("ranking", ["ppl", "sim"])
    def test_a_run_whose_best_scores_are_the_lowest_is_exported(
        self, export: ExportFunction, tmp_path: Path, store: Store, ranking: str
    ) -> None:
        commit_ranked(store, ranking)
        export("csv", run=ranking)
        assert written_labels(tmp_path) == ["dog", "cat", "tree"]

    @pytest.mark.parametrize("ranking", ["ppl", "sim"])
    def test_of_such_a_run_the_thresholds_are_reached_from_above(
        self, export: ExportFunction, tmp_path: Path, store: Store, ranking: str
    ) -> None:
        commit_ranked(store, ranking)
        export("csv", run=ranking, thresholds=thresholds_of(ranking, common=2.0, dog=1.0))
        assert written_labels(tmp_path) == ["cat"]

    @pytest.mark.parametrize("ranking", ["ppl", "sim"])
    def test_of_such_a_run_a_lowest_score_is_refused(
        self, export: ExportFunction, tmp_path: Path, store: Store, ranking: str
    ) -> None:
        commit_ranked(store, ranking)
        with pytest.raises(TagstreamError, match=f"run {ranking} is ranked by {ranking}, .*; leave the limit out"):
            export("csv", run=ranking, min_score=1.0)
        assert not (tmp_path / "out").exists()


def thresholds_of(ranking: str, *, common: float, model_fingerprint: str = "0123", **thresholds: float) -> Thresholds:
    """Thresholds of the store's runs of a ranking: a common one, and those of names."""
    return Thresholds(
        run="run-1",
        truth="labels",
        vocabulary=read_vocabulary(None).version,
        model_fingerprint=model_fingerprint,
        ranking=ranking,
        direction=direction_of(RANKINGS[ranking]),
        target_precision=0.9,
        common=common,
        thresholds=thresholds,
    )


def commit_ranked(store: Store, ranking: str) -> None:
    """Adds a run of one image whose best score is the lowest."""
    store.create_run(run_record(ranking, labelling={"ranking": ranking}))
    commit_judged(store, ranking, {"a": [{"truth": None, "labels": [("dog", 1.5), ("cat", 2.0), ("tree", 2.5)]}]})


def written_labels(folder: Path) -> list[str]:
    """The labels of the folder's export, in order."""
    with (folder / "out" / "labels.csv").open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


class TestImages:
    """--images."""

    @pytest.mark.parametrize("to", ["coco", "fiftyone", "label-studio", "csv"])
    def test_copies_lie_in_data(self, export: ExportFunction, tmp_path: Path, source: Path, to: Any) -> None:
        export(to, run="copied", images=True)
        copies = sorted((tmp_path / "out" / "data").iterdir())
        expected = {content_hash(jpeg(number)) for number in range(6)}
        assert {content_hash(path.read_bytes()) for path in copies} == expected
        assert all(re.fullmatch(r"\d{6}-[0-9a-f]{16}\.jpg", path.name) for path in copies)

    def test_the_files_name_their_copies(self, export: ExportFunction, tmp_path: Path, source: Path) -> None:
        import json

        for to in ("coco", "fiftyone", "label-studio", "csv"):
            export(to, run="copied", images=True, out=to)
        names = sorted(path.name for path in (tmp_path / "csv" / "data").iterdir())
        images = json.loads((tmp_path / "coco" / "annotations" / "labels_predictions.json").read_text())["images"]
        assert sorted(image["file_name"] for image in images) == names
        samples = json.loads((tmp_path / "fiftyone" / "samples.json").read_text())["samples"]
        assert sorted(sample["filepath"] for sample in samples) == [f"data/{name}" for name in names]
        tasks = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
        served = "/data/local-files/?d=label-studio/data/"
        assert sorted(task["data"]["image"] for task in tasks) == [f"{served}{name}" for name in names]
        with (tmp_path / "csv" / "images.csv").open(newline="") as file:
            assert sorted(row["file"] for row in csv.DictReader(file)) == [f"data/{name}" for name in names]

    def test_a_hugging_face_dataset_holds_them(self, export: ExportFunction, tmp_path: Path, source: Path) -> None:
        export("hf", run="copied", images=True)
        (path,) = (tmp_path / "out" / "data").iterdir()
        images = pq.read_table(path).column("image").to_pylist()
        assert [content_hash(image["bytes"]) for image in images] == [content_hash(jpeg(n)) for n in range(6)]
        assert images[0]["path"].startswith("000000-")

    def test_source_and_store_may_lie_on_an_object_store(self, tmp_path: Path, s3: str, source: Path) -> None:
        filesystem, root = open_filesystem(f"{s3}/export/shards")
        for path in source.iterdir():
            filesystem.pipe_file(f"{root}/{path.name}", path.read_bytes())
        label_source(Store(f"{s3}/export/store"), "remote", f"{s3}/export/shards", [("dog", 0.5)])
        request = job.ExportRequest(
            store=f"{s3}/export/store",
            to="csv",
            out=str(tmp_path / "out"),
            vocabulary=read_vocabulary(None),
            images=True,
        )
        exported = job.Export(request)
        exported.write()
        assert (exported.n_images, exported.n_labels) == (6, 6)
        copies = {content_hash(path.read_bytes()) for path in (tmp_path / "out" / "data").iterdir()}
        assert copies == {content_hash(jpeg(number)) for number in range(6)}

    def test_datasets_decodes_them(self, export: ExportFunction, tmp_path: Path, source: Path) -> None:
        datasets = pytest.importorskip("datasets")
        export("hf", run="copied", images=True)
        train = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
        assert train[0]["image"].size == (96, 72)
        assert train[0]["labels"] == [{"name": "dog", "label": "dog", "score": 0.5, "rank": 1}]

    def test_images_whose_original_is_gone_are_left_out_with_a_note(
        self, export: ExportFunction, tmp_path: Path, source: Path
    ) -> None:
        (source / "00000.tar").unlink()
        exported = export("csv", run="copied", images=True)
        assert (exported.n_chosen, exported.n_images) == (6, 3)
        places = ", ".join(f"{source}/00000#00000{number}" for number in range(3))
        assert exported.notes == [f"3 images are left out: 3 x the original is gone ({places})"]

    def test_of_many_that_are_left_out_the_first_five_are_named(
        self, export: ExportFunction, tmp_path: Path, store: Store
    ) -> None:
        write_tars(tmp_path / "larger", 2, 6)
        label_source(store, "larger", str(tmp_path / "larger"), [("dog", 0.5)])
        (tmp_path / "larger" / "00001.tar").unlink()
        places = ", ".join(f"{tmp_path}/larger/00001#{number:06}" for number in range(6, 11))
        notes = export("csv", run="larger", images=True).notes
        assert notes == [f"6 images are left out: 6 x the original is gone ({places}, ...)"]

    def test_where_all_originals_are_gone_there_is_no_export(
        self, export: ExportFunction, tmp_path: Path, source: Path
    ) -> None:
        for path in source.iterdir():
            path.unlink()
        with pytest.raises(TagstreamError, match=r"none of the 6 images could be copied: .* 6 x the original is gone"):
            export("csv", run="copied", images=True)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("images", [False, True])
    @pytest.mark.parametrize("to", job.WRITERS)
    def test_no_key_leads_out_of_the_folder_in_any_format(
        self, export: ExportFunction, tmp_path: Path, store: Store, to: str, images: bool
    ) -> None:
        (tmp_path / "odd").mkdir()
        members = [(f"{key}.jpg", jpeg(1)) for key in ("../../x", "data/../../../x", str(tmp_path / "x"), "C:\\x")]
        (tmp_path / "odd" / "0.tar").write_bytes(tar_bytes(members))
        label_source(store, "odd", str(tmp_path / "odd"), [("dog", 0.5)])
        # So far below that the keys lead to folders of this test, where nobody else makes anything.
        out = tmp_path / "far" / "below" / "out"
        out.parent.mkdir(parents=True)
        before = set(tmp_path.rglob("*"))
        assert export(to, run="odd", images=images, out="far/below/out").n_images == len(members)
        made = set(tmp_path.rglob("*")) - before
        assert made
        assert all(path.is_relative_to(out) for path in made)

    def test_names_of_copies_stay_in_the_folder_whatever_the_keys(
        self, export: ExportFunction, tmp_path: Path, store: Store
    ) -> None:
        keys = ["../../up", "/abs", "a/./b", "A/x", "a/X", "ü" * 90, "sp ace", "new\nline", "con"]
        (tmp_path / "odd").mkdir()
        members = [(f"{key}.jpg", jpeg(number)) for number, key in enumerate(keys)]
        (tmp_path / "odd" / "0.tar").write_bytes(tar_bytes(members))
        label_source(store, "odd", str(tmp_path / "odd"), [("dog", 0.5)])
        before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
        exported = export("csv", run="odd", images=True)
        assert exported.n_images == len(keys)
        names = [path.name.lower() for path in (tmp_path / "out" / "data").iterdir()]
        assert len(set(names)) == len(keys)
        assert all(re.fullmatch(r"[a-z0-9-]+\.jpg", name) for name in names)
        assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
