"""Labelling end to end, on a real Ray and without: what is committed, and what a second job does."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.actor.labeler import LabelerConfig
from pipeline.cluster.nodes import local_node
from pipeline.cluster.pool import plan_pool
from pipeline.dataflow.actor_pool import find_batch_size
from pipeline.errors import ClusterError, ModelError, SourceError, StoreError, TagstreamError
from pipeline.labelling.request import LabelOutcome
from pipeline.settings.labelling import LabelSettings
from schemas import IMAGES, LABELS
from tests.fixtures.corpus import shard_bytes, write_tars
from tests.fixtures.labelling import LabelFunction, label_with
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.stored.queries import read_table, rows


@dataclass(frozen=True, slots=True)
class Labelled:
    """A source and the store that one job made of it; tests that write work on a copy of the store."""

    source: Path
    store: Path
    outcome: LabelOutcome
    n_images: int

    def copy_store(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.store, folder / "store"))


@pytest.fixture(scope="module")
def labelled(shared_ray: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """Three shards of eleven images, labelled on a Ray."""
    folder = tmp_path_factory.mktemp("labelled")
    write_tars(folder / "source", 3, 11)
    outcome = label_with(tiny_model, folder / "source", folder / "store", address=shared_ray)
    return Labelled(folder / "source", folder / "store", outcome, 33)


def test_real_photographs_are_labelled_with_their_captions_and_truth(
    label_instantly: LabelFunction, coco_mini: Path, tmp_path: Path
) -> None:
    outcome = label_instantly(coco_mini, tmp_path / "store", top_k=10)

    assert (outcome.record.n_shards_committed, outcome.record.n_images, outcome.record.n_rejected) == (4, 80, 0)
    images = read_table(tmp_path / "store", "images").to_pylist()
    assert [image["shard"] for image in images[::20]] == [f"train-{shard:05d}" for shard in range(4)]
    assert all(image["status"] == "labelled" and image["n_labels"] > 0 for image in images)
    assert images[0]["caption"].startswith("a family is sitting down at a table")
    assert "cake" in images[0]["truth"]


def test_ranks_have_no_gaps_and_scores_descend(labelled: Labelled) -> None:
    per_image = rows(
        labelled.store,
        "SELECT list(rank ORDER BY rank), list(score ORDER BY rank), any_value(n_labels) "
        "FROM labels JOIN images USING (run, image_id) GROUP BY image_id",
    )
    assert len(per_image) == labelled.n_images
    for ranks, scores, n_labels in per_image:
        assert ranks == list(range(1, n_labels + 1))
        assert scores == sorted(scores, reverse=True)


def test_every_file_has_the_schema_and_names_what_it_was_made_from(labelled: Labelled) -> None:
    run = labelled.outcome.record.run
    for name, schema in {"images": IMAGES, "labels": LABELS}.items():
        stored = pq.read_schema(labelled.store / name / f"run={run}" / "00000.parquet")
        assert stored.equals(schema, check_metadata=False)
        size = (labelled.source / "00000.tar").stat().st_size
        assert stored.metadata[b"tagstream.source_size"] == str(size).encode()
        assert run.endswith(stored.metadata[b"tagstream.fingerprint"].decode())


def test_a_store_that_was_made_on_ray_and_one_that_was_made_without_are_equal_but_for_the_commits_names(
    label: LabelFunction, labelled: Labelled, tmp_path: Path
) -> None:
    label(labelled.source, tmp_path / "store")

    files = [path.relative_to(tmp_path / "store") for path in tmp_path.glob("store/*/run=*/*")]
    assert len(files) == 6
    for name in files:
        without, on_ray = (pq.read_table(store / name) for store in (tmp_path / "store", labelled.store))
        assert without.equals(on_ray)
        assert {name for name, value in without.schema.metadata.items() if on_ray.schema.metadata[name] != value} == {
            b"tagstream.commit"
        }


def test_the_same_command_again_finds_nothing_to_do(
    label_instantly: LabelFunction, labelled: Labelled, tmp_path: Path
) -> None:
    store = labelled.copy_store(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    second = label_instantly(labelled.source, store)

    assert (second.record.n_shards_committed, second.record.n_shards_done_before) == (0, 3)
    assert second.record.run == labelled.outcome.record.run
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")} == files


def test_only_a_new_shard_is_labelled(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 2, 4)
    label_instantly(tmp_path / "source", tmp_path / "store")
    write_tars(tmp_path / "source", 1, 4, first=2)
    second = label_instantly(tmp_path / "source", tmp_path / "store")

    assert (second.record.n_shards_committed, second.record.n_images) == (1, 4)
    assert rows(tmp_path / "store", "SELECT count(*), count(DISTINCT image_id) FROM images") == [(12, 12)]


def test_a_limit_stops_at_the_end_of_a_shard_and_the_rest_follows(
    shared_ray: str, label_instantly: LabelFunction, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", 4, 6)
    limited = label_instantly(tmp_path / "source", tmp_path / "store", address=shared_ray, limit=7)
    rest = label_instantly(tmp_path / "source", tmp_path / "store")

    assert (limited.record.n_shards_committed, limited.record.n_images) == (2, 12)
    assert (rest.record.n_shards_committed, rest.record.n_images) == (2, 12)


def test_a_changed_shard_is_refused_kept_or_relabelled_as_asked(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 2, 4)
    label_instantly(tmp_path / "source", tmp_path / "store")
    (tmp_path / "source" / "00001.tar").write_bytes(shard_bytes(9, 5))
    with pytest.raises(SourceError, match="1 shards changed after they were committed"):
        label_instantly(tmp_path / "source", tmp_path / "store", changed="fail")
    kept = label_instantly(tmp_path / "source", tmp_path / "store", changed="keep")
    n_kept = rows(tmp_path / "store", "SELECT count(*) FROM images")
    renewed = label_instantly(tmp_path / "source", tmp_path / "store", changed="relabel")

    assert [job.record.n_shards_changed for job in (kept, renewed)] == [1, 1]
    assert [job.record.n_shards_committed for job in (kept, renewed)] == [0, 1]
    assert all("1 shards changed" in job.notes[0] for job in (kept, renewed))
    assert (n_kept, rows(tmp_path / "store", "SELECT count(*) FROM images")) == ([(8,)], [(9,)])
    (stored,) = rows(tmp_path / "store", "SELECT (SELECT sum(n_labels) FROM images) = (SELECT count(*) FROM labels)")
    assert stored == (True,)


def test_a_copied_store_and_source_are_not_taken_for_changed(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 1, 4)
    long_ago = time.time() - 7 * 86400
    os.utime(tmp_path / "source" / "00000.tar", (long_ago, long_ago))
    label_instantly(tmp_path / "source", tmp_path / "store")
    shutil.move(tmp_path / "source", tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "source")
    again = label_instantly(tmp_path / "source", tmp_path / "store")

    assert (again.record.n_shards_changed, again.record.n_shards_committed) == (0, 0)


def test_another_setting_makes_another_run_beside_the_first(
    label_instantly: LabelFunction, labelled: Labelled, tmp_path: Path
) -> None:
    store = labelled.copy_store(tmp_path)
    label_instantly(labelled.source, store, top_k=3)

    per_run = rows(store, "SELECT count(*), max(n_labels) FROM images GROUP BY run ORDER BY 2")
    assert [n_images for n_images, _ in per_run] == [labelled.n_images] * 2
    assert per_run[0][1] <= 3 < per_run[1][1]


def test_a_named_run_refuses_another_fingerprint(label_instantly: LabelFunction, labelled: Labelled) -> None:
    with pytest.raises(StoreError, match=r"made with other settings \(top_k 5 -> 3\)"):
        label_instantly(labelled.source, labelled.store, run=labelled.outcome.record.run, top_k=3)


def test_a_run_refuses_another_source_whose_shards_have_the_same_names(
    label_instantly: LabelFunction, labelled: Labelled, tmp_path: Path
) -> None:
    write_tars(tmp_path / "other", 1, 2)
    with pytest.raises(StoreError, match="a --run name of its own"):
        label_instantly(tmp_path / "other", labelled.store)


def test_a_store_that_cannot_be_written_is_one_sentence(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 1, 2)
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"cannot .* the store"):
        label_instantly(tmp_path / "source", tmp_path / "store")


def test_an_unknown_model_is_one_sentence(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 1, 2)
    with pytest.raises(ModelError, match="there is no model"):
        label_instantly(tmp_path / "source", tmp_path / "store", model=tmp_path / "nothing")


def test_a_model_that_breaks_in_the_worker_stops_the_job_with_the_reason_that_it_has_without_one(
    shared_ray: str, label: LabelFunction, tiny_model: Path, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", 1, 2)
    shutil.copytree(tiny_model, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\x00" * 64)
    reasons = []
    for address in (None, shared_ray):
        with pytest.raises(TagstreamError, match=r"(?i)safetensors|header") as caught:
            label(tmp_path / "source", tmp_path / "store", model=tmp_path / "broken", address=address)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_a_job_leaves_a_record_with_its_split_of_time(labelled: Labelled) -> None:
    (job,) = rows(labelled.store, "SELECT outcome, n_images, seconds_by_stage, images_per_s FROM jobs")

    assert job[:2] == ("done", labelled.n_images)
    assert set(job[2]) == {"read", "decode", "infer", "write"}
    assert all(seconds > 0 for seconds in job[2].values())


class SearchedLabeler(InstantLabeler):
    """Finds a size without a GPU, or that there is none."""

    def find_batch_size(self, gpu_share: float) -> int:
        if self.config.top_k == 1:
            raise ClusterError("the model and one image do not fit")
        return 7


# Each search has a process of its own.
@pytest.mark.long
def test_a_search_for_the_batch_size_is_a_task_of_ray_and_its_error_a_sentence(shared_ray: str) -> None:
    settings = LabelSettings(top_k=5)
    pool = plan_pool([local_node()], settings)
    config = LabelerConfig.of("none", settings, dtype="float32", device="cpu", n_threads=1)
    assert find_batch_size(pool, config, SearchedLabeler, timeout_s=120) == 7
    with pytest.raises(ClusterError, match=r"^the model and one image do not fit$"):
        find_batch_size(pool, replace(config, top_k=1), SearchedLabeler, timeout_s=120)
    with pytest.raises(ClusterError, match=r"within the 0\.1 s of no_progress_timeout_s; perhaps other jobs"):
        find_batch_size(replace(pool, cpus_per_actor=1000), config, SearchedLabeler, timeout_s=0.1)
