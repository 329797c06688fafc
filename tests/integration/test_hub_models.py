"""Jobs with vision-language models of the hub."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from model.hub.recognizer import HubRecognizer
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import LabelSettings
from schemas import JobRecord
from tests.fixtures.corpus import write_tars
from tests.fixtures.processes.commands import running, wait_until
from tests.fixtures.recognizers.hub_folders import ARCHITECTURES, save_hub_folder
from tests.fixtures.servers.two_nodes import two_nodes
from tests.fixtures.stored.queries import rows

N_SHARDS, N_SAMPLES = 30, 8


def images_of(source: Path) -> dict[tuple[str, int], bytes]:
    """Encoded images of tars, by shard and index."""
    found: dict[tuple[str, int], bytes] = {}
    for shard in sorted(source.glob("*.tar")):
        with tarfile.open(shard) as tar:
            images = [tar.extractfile(member).read() for member in tar if member.name.endswith((".jpg", ".png"))]
        found |= {(shard.stem, index): image for index, image in enumerate(images)}
    return found


def stored_labels(store: Path | str, view: str) -> dict[tuple[str, int], dict[str, float]]:
    """Scores of each image's labels in a view, by shard and index."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for shard, index, label, score in rows(store, f"SELECT shard, index, label, score FROM {view}"):
        found.setdefault((shard, index), {})[label] = score
    return found


def label_with_names(model: Path, folder: Path, names: list[str], **settings: Any) -> JobRecord:
    """Labels `source` of a folder into its `store`, and scores these names."""
    request = LabelRequest(
        source=str(folder / "source"),
        store=str(folder / "store"),
        model=str(model),
        settings=LabelSettings(**{"top_k": 5, "batch_size": 4, **settings}),
        lists=(NameList(title="names", names={name: (name,) for name in names}, top=0),),
    )
    return LabelJob(request).run().record


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_resumed_job_stores_what_the_model_finds_in_each_image_alone(tmp_path: Path, architecture: str) -> None:
    write_tars(tmp_path / "source", 3, 5)
    model, names = save_hub_folder(architecture, tmp_path / architecture), ["dog", "red car", "boat"]
    stopped = label_with_names(model, tmp_path, names, limit=5)
    resumed = label_with_names(model, tmp_path, names)
    assert 0 < stopped.n_shards_committed < 3
    assert stopped.n_shards_committed + resumed.n_shards_committed == 3
    assert stopped.run == resumed.run

    recognizer = HubRecognizer.from_pretrained(model)
    labelled, listed = stored_labels(tmp_path / "store", "labels"), stored_labels(tmp_path / "store", "listed_labels")
    for place, image in images_of(tmp_path / "source").items():
        (labels,) = recognizer.label([image], top_k=5)
        # Random weights may end no label: then there is none.
        assert labelled.get(place, {}) == pytest.approx({label.text: label.score for label in labels}, rel=1e-3)
        (scores,) = recognizer.score([image], names).exp().tolist()
        assert listed[place] == pytest.approx(dict(zip(names, scores, strict=True)), rel=1e-3)


@pytest.mark.long
def test_two_actors_killed_and_run_again_with_all_data_on_s3_store_what_the_model_finds(
    s3: str, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", N_SHARDS, N_SAMPLES)
    model = save_hub_folder("qwen3_vl", tmp_path / "qwen3_vl")
    remote = f"{s3}/{tmp_path.name}"
    filesystem, path = fsspec.core.url_to_fs(remote, use_listings_cache=False)
    filesystem.put(f"{tmp_path / 'source'}/", f"{path}/source/", recursive=True)

    def count_commits() -> int:
        # A shard's labels are written first: its images are its commit.
        return len(filesystem.find(f"{path}/store/images"))

    with two_nodes({"num_cpus": 2}, {"num_cpus": 2}) as (address, _):
        options = ["--model", model, "--actors", 2, "--batch-size", 4, "--top-k", 5, "--address", address]
        command = [
            sys.executable,
            "-m",
            "jobs.cli",
            "label",
            f"{remote}/source",
            "--store",
            f"{remote}/store",
            *options,
        ]
        with running(command, os.environ) as process:
            wait_until(lambda: count_commits() > 0, process, timeout_s=300)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        n_committed = count_commits()
        with running(command, os.environ) as again:
            output, errors = again.communicate(timeout=300)

    assert again.returncode == 0, errors
    assert 0 < n_committed < N_SHARDS
    assert f"in {N_SHARDS - n_committed} shards" in output
    recognizer, labelled = HubRecognizer.from_pretrained(model), stored_labels(f"{remote}/store", "labels")
    places = images_of(tmp_path / "source")
    found = recognizer.label(list(places.values()), top_k=5)
    for place, labels in zip(places, found, strict=True):
        assert labelled.get(place, {}) == pytest.approx({label.text: label.score for label in labels}, rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("n_names", [100, 5000])
def test_lists_of_any_length_get_the_scores_that_the_model_gives_each_image_alone(tmp_path: Path, n_names: int) -> None:
    write_tars(tmp_path / "source", 1, 5)
    model = save_hub_folder("qwen3_vl", tmp_path / "qwen3_vl")
    words = ("dog", "cat", "red", "car", "traffic", "light", "sofa", "hot", "air", "balloon", "cup", "tree", "boat")
    phrases = [" ".join(chosen) for n_words in (1, 2, 3, 4) for chosen in itertools.permutations(words, n_words)]
    names = phrases[:n_names]
    label_with_names(model, tmp_path, names)

    recognizer, listed = HubRecognizer.from_pretrained(model), stored_labels(tmp_path / "store", "listed_labels")
    for place, image in images_of(tmp_path / "source").items():
        (scores,) = recognizer.score([image], names).exp().tolist()
        assert listed[place] == pytest.approx(dict(zip(names, scores, strict=True)), rel=1e-3)
