"""Jobs with vision-language models of the hub, on a real Ray."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from model.hub.recognizer import HubRecognizer
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import label_with
from tests.fixtures.recognizers.hub_folders import save_hub_folder
from tests.fixtures.stored.queries import rows


@pytest.mark.long
def test_a_resumed_job_stores_what_the_model_finds_in_each_image_alone(shared_ray: str, tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    write_tars(source, 3, 5)
    model = save_hub_folder("qwen3_vl", tmp_path / "qwen3_vl")
    stopped = label_with(model, source, store, limit=5, address=shared_ray).record
    resumed = label_with(model, source, store, address=shared_ray).record
    assert 0 < stopped.n_shards_committed < 3
    assert stopped.n_shards_committed + resumed.n_shards_committed == 3
    assert stopped.run == resumed.run

    stored: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for shard, index, label, score in rows(store, "SELECT shard, index, label, score FROM labels ORDER BY ALL"):
        stored.setdefault((shard, index), []).append((label, score))
    recognizer = HubRecognizer.from_pretrained(model)
    for shard in sorted(source.glob("*.tar")):
        with tarfile.open(shard) as tar:
            images = [tar.extractfile(member).read() for member in tar if member.name.endswith((".jpg", ".png"))]
        for index, image in enumerate(images):
            (labels,) = recognizer.label([image], top_k=5)
            expected = dict(sorted((label.text, label.score) for label in labels))
            assert dict(stored.get((shard.stem, index), [])) == pytest.approx(expected, rel=1e-3)
    assert stored
