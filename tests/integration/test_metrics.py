"""What a job shows to Prometheus while it runs."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.actor.labeler import Labeler
from pipeline.metrics import JOB_TAGS, METRICS, NEAR_DUPLICATES, REUSED
from schemas import JobRecord
from tests.fixtures.corpus import jpeg, tar_bytes
from tests.fixtures.labelling import label_with

# Ray shows metrics every few seconds.
pytestmark = pytest.mark.long
# A rate, and with it what is left, is shown after two seconds of results.
_SECONDS_A_BATCH = 0.6
# Of 20 to 22 samples, in batches of 8.
_N_SHARDS, _N_BATCHES = 6, 18
_BATCH_STAGES = ("read", "decode", "encode", "prefill", "branches")
_ZERO_AT_THE_END = ("shards_open", "commit_queue_shards", "eta_seconds")
# A record's seconds are rounded.
_ROUNDED_S = 0.002


class SlowLabeler(Labeler):
    """Works long enough for what it shows of its device to be seen."""

    def _sample(self, *arguments: Any) -> Any:
        time.sleep(_SECONDS_A_BATCH)
        return super()._sample(*arguments)


@dataclass(frozen=True, slots=True)
class Scraped:
    """The last values that were shown of one job, by metric and tags; and all values of each metric."""

    record: JobRecord
    last: dict[str, dict[frozenset[tuple[str, str]], float]]
    seen: dict[str, list[float]] = field(default_factory=dict)

    def by(self, name: str, *tags: str) -> dict[tuple[str, ...], float]:
        return {tuple(dict(labels)[tag] for tag in tags): value for labels, value in self.last[name].items()}


@pytest.fixture(scope="module")
def scraped(shared_ray: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    """A job over six shards with two kinds of rejects among them, watched as Prometheus does."""
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "source").mkdir()
    for shard in range(_N_SHARDS):
        members = [(f"{number}.jpg", jpeg(number)) for number in range(20)]
        faults = [("broken.jpg", b"no image"), ("lost.txt", b"a caption without its image")]
        (folder / "source" / f"{shard}.tar").write_bytes(tar_bytes(members + faults[: max(0, 2 - shard)]))
    with _watched() as samples:
        outcome = label_with(
            tiny_model, folder / "source", folder / "store", labeler_class=SlowLabeler, address=shared_ray
        )
        return _wait_for_the_last(samples, outcome.record)


@contextmanager
def _watched() -> Iterator[list[Any]]:
    """All that the node shows of tagstream while the context lasts, twice a second."""
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    samples: list[Any] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            with urllib.request.urlopen(url, timeout=120) as answer:
                lines = [line for line in answer.read().decode().splitlines(keepends=True) if "tagstream_" in line]
            for family in text_string_to_metric_families("".join(lines)):
                samples.extend(family.samples)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


def _scraped_of(samples: list[Any], record: JobRecord) -> Scraped:
    last: dict[str, dict[frozenset[tuple[str, str]], float]] = defaultdict(dict)
    seen: dict[str, list[float]] = defaultdict(list)
    for sample in list(samples):
        if sample.labels.get("started") == record.started:
            last[sample.name][frozenset(sample.labels.items())] = sample.value
            seen[sample.name].append(sample.value)
    return Scraped(record, last, seen)


def _wait_for_the_last(samples: list[Any], record: JobRecord) -> Scraped:
    """Waits until everything is counted and nothing is open; Ray hands metrics on every few seconds, one by one."""
    deadline = time.monotonic() + 120
    while not _is_last(scraped := _scraped_of(samples, record)):
        assert time.monotonic() < deadline, f"the last values of the job were not shown in time: {scraped.last}"
        time.sleep(0.1)
    return scraped


def _is_last(scraped: Scraped) -> bool:
    """Whether the last values are those of the job's end: it counts a shard's commit after all else of the shard."""
    record, n_stages = scraped.record, len(_BATCH_STAGES)
    commit_s = scraped.by("ray_tagstream_stage_seconds_total", "stage").get(("commit",), 0.0)
    return (
        sum(scraped.last["ray_tagstream_images_total"].values()) == record.n_images
        and sum(scraped.last["ray_tagstream_rejects_total"].values()) == record.n_rejected
        and sum(scraped.last["ray_tagstream_batch_seconds_count"].values()) == n_stages * _N_BATCHES + _N_SHARDS
        and commit_s == pytest.approx(record.seconds_by_stage["write"], abs=_ROUNDED_S)
        and all(scraped.seen[f"ray_tagstream_{name}"][-1:] == [0] for name in _ZERO_AT_THE_END)
    )


def test_every_metric_is_shown_with_its_tags(scraped: Scraped) -> None:
    for metric in METRICS:
        name = f"ray_{metric.name}" + ("_count" if metric.kind == "histogram" else "")
        # Ray shows a counter once it counts, and each image of this job's run has labels of its own.
        assert bool(scraped.last[name]) == (metric not in (REUSED, NEAR_DUPLICATES)), name
        for labels in scraped.last[name]:
            assert {*JOB_TAGS, *metric.tags} <= dict(labels).keys()
            assert dict(labels)["run"] == scraped.record.run


def test_the_counts_are_those_of_the_jobs_record(scraped: Scraped) -> None:
    record = scraped.record
    assert sum(scraped.last["ray_tagstream_images_total"].values()) == record.n_images == 123
    rejects = scraped.by("ray_tagstream_rejects_total", "stage", "error")
    assert rejects == {("decode", "ImageUnreadable"): 2, ("read", "NoImage"): 1}
    assert sum(rejects.values()) == record.n_rejected


def test_the_seconds_of_the_stages_are_those_of_the_jobs_record(scraped: Scraped) -> None:
    n_batches = scraped.by("ray_tagstream_batch_seconds_count", "stage")
    assert n_batches == {(stage,): _N_BATCHES for stage in _BATCH_STAGES} | {("commit",): _N_SHARDS}
    seconds = scraped.by("ray_tagstream_stage_seconds_total", "stage")
    for stage, of_record in (("read", "read"), ("decode", "decode"), ("commit", "write")):
        assert seconds[stage,] == pytest.approx(scraped.record.seconds_by_stage[of_record], abs=_ROUNDED_S)
    parts_s = sum(seconds[part,] for part in ("encode", "prefill", "branches"))
    assert 0 < parts_s <= scraped.record.seconds_by_stage["infer"] + _ROUNDED_S


def test_the_gauges_say_where_the_job_is(scraped: Scraped) -> None:
    assert set(scraped.seen["ray_tagstream_shards_open"]) <= set(range(7))
    for name in _ZERO_AT_THE_END:
        assert scraped.seen[f"ray_tagstream_{name}"][-1] == 0
    busy = scraped.seen["ray_tagstream_device_busy_ratio"]
    assert all(0 <= share <= 1 for share in busy)
    # Most of its time it sleeps at its work, less of it where the machine is busy.
    assert max(busy) > 0.2
    assert min(scraped.seen["ray_tagstream_device_memory_bytes"]) > 50 << 20
