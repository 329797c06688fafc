"""Planning and then labelling, on a real Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import TagstreamError
from pipeline.forecast.job import ForecastJob, ForecastRequest
from pipeline.labelling.job import LabelJob
from pipeline.labelling.request import LabelRequest
from pipeline.settings.labelling import LabelSettings
from pipeline.store.store import Store
from tests.fixtures.corpus import shard_bytes
from tests.fixtures.recognizers.instant_labeler import InstantLabeler


@pytest.mark.long
def test_what_was_planned_is_kept_beside_what_it_took(shared_ray: str, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for shard, n_images in enumerate([40, 80, 20, 60]):
        (tmp_path / "source" / f"{shard}.tar").write_bytes(shard_bytes(shard, n_images))
    request = LabelRequest(
        source=str(tmp_path / "source"),
        store=str(tmp_path / "store"),
        model=str(tiny_model),
        settings=LabelSettings(top_k=5, batch_size=8),
        labeler_class=InstantLabeler,
        address=shared_ray,
    )
    made = ForecastJob(ForecastRequest(label=request, n_images=100)).run()
    assert (made.n_sampled, made.n_shards_sampled) == (95, 4)
    assert not (tmp_path / "store").exists()

    record = LabelJob(replace(request, predict=made.seconds_of)).run().record
    assert record.predicted_s == pytest.approx(made.seconds.value, abs=0.001)
    assert made.n_images.low <= record.n_images <= made.n_images.high
    assert made.n_images.value == pytest.approx(200, rel=0.05)
    store = Store(request.store)
    written = [*store.run(record.run).list_images().values(), *store.run(record.run).list_labels().values()]
    assert made.output_bytes.value == pytest.approx(sum(file["size"] for file in written), rel=0.25)

    other = replace(request, settings=LabelSettings(top_k=4), predict=made.seconds_of)
    with pytest.raises(TagstreamError, match=r"the prediction is for .*; run `tagstream plan` for it"):
        LabelJob(other).run()
    again = LabelJob(replace(request, predict=made.seconds_of)).run().record
    assert again.n_shards_committed == 0
