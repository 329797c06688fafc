"""Bad input: every readable sample is labelled, every fault is one rejected row, nothing is lost."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.cli import tagstream
from jobs.verbs.label import judge
from model.images.resampling import load_torch
from pipeline.actor.labeler import LabelerConfig
from pipeline.labelling.request import LabelOutcome
from pipeline.store.store import Store
from pipeline.upkeep.verification import verify_run
from schemas import LABELLED
from tests.fixtures.bad.corpus import KINDS, QUICK_KINDS, write_corpus
from tests.fixtures.bad.kind import MAX_IMAGE_PIXELS, MAX_SAMPLE_BYTES, Kind, Row
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import label_with
from tests.fixtures.processes.instant_command import do_without_recognizer
from tests.fixtures.recognizers.instant_labeler import InstantLabeler
from tests.fixtures.stored.queries import read_table, rows

# Ample for what is huge but fine, on a machine that does other things besides; one picture takes two minutes.
MAX_SAMPLE_S = 30.0


class ReadyLabeler(InstantLabeler):
    """Has loaded torch before it decodes, as labelers with a model have; on a busy machine that takes seconds."""

    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        load_torch()
        return InstantLabeler.load_recognizer(config)


@pytest.fixture(scope="module", params=[QUICK_KINDS, pytest.param(KINDS, marks=pytest.mark.long)], ids=["quick", "all"])
def kinds(request: pytest.FixtureRequest) -> list[Kind]:
    found: list[Kind] = request.param
    return found


@pytest.fixture(scope="module")
def folder(kinds: list[Kind], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def expected(kinds: list[Kind], folder: Path) -> dict[str, list[Row]]:
    """The rows that each shard of the corpus must become."""
    return write_corpus(folder / "source", kinds)


SETTINGS: dict[str, Any] = {
    "labeler_class": ReadyLabeler,
    "top_k": 1,
    "batch_size": 64,
    "max_sample_bytes": MAX_SAMPLE_BYTES,
    "max_image_pixels": MAX_IMAGE_PIXELS,
    "max_sample_s": MAX_SAMPLE_S,
}


@pytest.fixture(scope="module")
def bad_outcome(
    kinds: list[Kind], request: pytest.FixtureRequest, tiny_model: Path, folder: Path, expected: dict[str, list[Row]]
) -> LabelOutcome:
    """The corpus labelled by one job; where it is whole, on a Ray."""
    address = request.getfixturevalue("shared_ray") if kinds is KINDS else None
    return label_with(tiny_model, folder / "source", folder / "store", address=address, **SETTINGS)


@pytest.fixture(scope="module")
def bad_store(bad_outcome: LabelOutcome, folder: Path) -> Path:
    return folder / "store"


def test_each_readable_sample_is_labelled_and_each_fault_is_one_row(
    bad_store: Path, expected: dict[str, list[Row]]
) -> None:
    found = defaultdict(list)
    for shard, *row in rows(bad_store, 'SELECT shard, key, status, stage, error FROM images ORDER BY shard, "index"'):
        found[shard].append(Row(*row))
    assert set(found) == set(expected)
    assert {shard: of_shard for shard, of_shard in found.items() if of_shard != expected[shard]} == {}


def test_decoded_in_the_read_tasks_it_becomes_the_same_rows(
    bad_store: Path, folder: Path, tiny_model: Path, shared_ray: str
) -> None:
    asked = {**SETTINGS, "address": shared_ray, "decode_in": "read"}
    outcome = label_with(tiny_model, folder / "source", folder / "read", **asked)
    assert outcome.record.workers["decode_in"] == "read"
    # What Pillow says of decompression bombs depends on what its process allowed before.
    images = [read_table(store, "images").drop_columns(["message"]) for store in (folder / "read", bad_store)]
    assert images[0].equals(images[1])
    assert read_table(folder / "read", "labels").equals(read_table(bad_store, "labels"))


def test_what_goes_in_comes_out_labelled_or_rejected(bad_outcome: LabelOutcome, expected: dict[str, list[Row]]) -> None:
    record = bad_outcome.record
    statuses = [row.status for of_shard in expected.values() for row in of_shard]
    n_labelled = statuses.count(LABELLED)
    counts = (record.n_images, record.n_labelled, record.n_rejected)
    assert counts == (len(statuses), n_labelled, len(statuses) - n_labelled)
    assert record.n_shards_committed == len(expected)


def test_every_reject_says_why(bad_store: Path, bad_outcome: LabelOutcome) -> None:
    query = "SELECT count(*), count(*) FILTER (coalesce(message, '') = '' OR stage IS NULL) FROM rejects"
    assert rows(bad_store, query) == [(bad_outcome.record.n_rejected, 0)]


def test_labels_belong_to_labelled_images_and_are_as_many_as_those_say(bad_store: Path) -> None:
    (mismatched,) = rows(
        bad_store,
        "WITH counted AS (SELECT run, image_id, count(*) AS n FROM labels GROUP BY ALL) "
        "SELECT count(*) FROM images FULL JOIN counted USING (run, image_id) "
        "WHERE n_labels IS DISTINCT FROM coalesce(n, 0) OR (status != 'labelled' AND n > 0)",
    )
    assert mismatched == (0,)
    assert rows(bad_store, "SELECT count(*) FROM images WHERE status = 'labelled' AND n_labels = 0") == [(0,)]


def test_what_a_job_has_committed_of_bad_input_is_whole(bad_store: Path, bad_outcome: LabelOutcome) -> None:
    found = verify_run(Store(str(bad_store)).run(bad_outcome.record.run))
    assert (found.findings, found.n_images) == ([], bad_outcome.record.n_images)


def test_image_ids_are_unique_where_keys_repeat(bad_store: Path) -> None:
    assert rows(bad_store, "SELECT count(*) = count(DISTINCT image_id) FROM images") == [(True,)]


def test_too_many_rejects_have_an_exit_code_of_their_own(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_without_recognizer(monkeypatch)
    write_tars(tmp_path / "source", 1, 4)
    (tmp_path / "source" / "garbage.tar").write_bytes(b"\xde\xad\xbe\xef" * 4096)
    options = ["--store", tmp_path / "store", "--model", tiny_model, "--max-reject-rate", 0.1]
    arguments = [str(argument) for argument in ("label", tmp_path / "source", *options)]
    result = CliRunner().invoke(tagstream, arguments, standalone_mode=False)

    assert result.return_value == 3
    assert "1 image rejected" in result.stdout


def test_rejects_within_the_limit_are_no_failure(bad_outcome: LabelOutcome) -> None:
    assert judge(bad_outcome, 1.0) == []
