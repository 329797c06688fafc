"""Bad input: every readable sample is labelled, every fault is one rejected row, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.cli import tagstream
from jobs.label import judge
from pipeline.job import LabelOutcome
from pipeline.store import Store
from pipeline.verification import verify_run
from tests.fixtures.corpus import jpeg, sample_members, shard_bytes, tar_bytes, write_tars
from tests.integration.conftest import LabelFunction, label_with, rows

TEXT_NAMED_JPG = b"<html><body>404 Not Found</body></html>"


def write_bad_shards(folder: Path) -> None:
    """One good shard, and one a kind of damage."""
    write_tars(folder, 1, 4)
    whole = shard_bytes(1, 4)
    # Cut inside the second sample's image: the first is whole. Members are a header and data in blocks of 512 bytes.
    first_sample = sum(512 + -(-len(data) // 512) * 512 for _, data in sample_members("000004", 4))
    (folder / "truncated.tar").write_bytes(whole[: first_sample + 512 + 100])
    (folder / "garbage.tar").write_bytes(b"\xde\xad\xbe\xef" * 4096)
    (folder / "empty.tar").write_bytes(b"")
    image = jpeg(50)
    members = [
        ("cut.jpg", image[: len(image) // 2]),
        ("nothing.jpg", b""),
        ("text.jpg", TEXT_NAMED_JPG),
        *sample_members("good", 51),
        ("twice.jpg", jpeg(52)),
        ("other.jpg", jpeg(53)),
        ("twice.jpg", jpeg(54)),
        ("alone.txt", b"a caption without an image"),
        ("badjson.jpg", jpeg(55)),
        ("badjson.json", b"{not json"),
    ]
    (folder / "samples.tar").write_bytes(tar_bytes(members))


@pytest.fixture(scope="module")
def bad_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_bad_shards(folder)
    return folder


@pytest.fixture(scope="module")
def bad_outcome(shared_ray: None, tiny_model: Path, bad_source: Path) -> LabelOutcome:
    return label_with(tiny_model, bad_source, bad_source.parent / "bad-store")


@pytest.fixture(scope="module")
def bad_store(bad_source: Path, bad_outcome: LabelOutcome) -> Path:
    return bad_source.parent / "bad-store"


def test_what_a_job_has_committed_of_bad_input_is_whole(bad_store: Path, bad_outcome: LabelOutcome) -> None:
    found = verify_run(Store(str(bad_store)), bad_outcome.record.run)
    assert (found.findings, found.n_images) == ([], bad_outcome.record.n_images)


def test_each_readable_sample_is_labelled_and_each_fault_is_one_row(bad_store: Path, bad_outcome: LabelOutcome) -> None:
    found = rows(bad_store, 'SELECT shard, key, status, stage, error FROM images ORDER BY shard, "index"')
    assert found == [
        *[("00000", f"{number:06d}", "labelled", None, None) for number in range(4)],
        ("empty", "", "rejected", "read", "ArchiveUnreadable"),
        ("garbage", "", "rejected", "read", "ArchiveUnreadable"),
        ("samples", "cut", "rejected", "decode", "ImageUnreadable"),
        ("samples", "nothing", "rejected", "decode", "ImageUnreadable"),
        ("samples", "text", "rejected", "decode", "ImageUnreadable"),
        ("samples", "good", "labelled", None, None),
        ("samples", "twice", "labelled", None, None),
        ("samples", "other", "labelled", None, None),
        ("samples", "twice", "rejected", "read", "DuplicateKey"),
        ("samples", "alone", "rejected", "read", "NoImage"),
        ("samples", "badjson", "labelled", "read", "SideFileUnreadable"),
        ("truncated", "000004", "labelled", None, None),
        ("truncated", "", "rejected", "read", "ArchiveDamaged"),
    ]
    assert (bad_outcome.record.n_labelled, bad_outcome.record.n_rejected) == (9, 8)
    assert rows(bad_store, "SELECT count(*) FROM rejects WHERE coalesce(message, '') = ''") == [(0,)]


def test_image_ids_are_unique_where_keys_repeat(bad_store: Path) -> None:
    assert rows(bad_store, "SELECT count(*) = count(DISTINCT image_id) FROM images") == [(True,)]
    (mismatched,) = rows(
        bad_store,
        "WITH counted AS (SELECT image_id, count(*) AS n FROM labels GROUP BY ALL) "
        "SELECT count(*) FROM images LEFT JOIN counted USING (image_id) WHERE n_labels != coalesce(n, 0)",
    )
    assert mismatched == (0,)


def test_too_many_rejects_have_an_exit_code_of_their_own(
    shared_ray: None, tiny_model: Path, bad_source: Path, tmp_path: Path
) -> None:
    options = ["--store", tmp_path / "store", "--model", tiny_model, "--max-reject-rate", 0.1]
    arguments = [str(argument) for argument in ("label", bad_source, *options)]
    result = CliRunner().invoke(tagstream, arguments, standalone_mode=False)

    assert result.return_value == 3
    assert "8 images rejected" in result.stdout


def test_rejects_within_the_limit_are_no_failure(bad_outcome: LabelOutcome) -> None:
    assert judge(bad_outcome, 1.0) == 0


def test_a_parquet_file_without_images_is_one_row(label: LabelFunction, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    pq.write_table(pa.table({"url": ["a", "b"]}), tmp_path / "source" / "no-images.parquet")
    (tmp_path / "source" / "garbage.parquet").write_bytes(b"PAR1 and nothing else")
    label(tmp_path / "source", tmp_path / "store")

    found = rows(tmp_path / "store", "SELECT shard, key, error FROM rejects ORDER BY shard")
    assert found == [("garbage", "", "ParquetUnreadable"), ("no-images", "", "ParquetUnreadable")]
    (message,) = rows(tmp_path / "store", "SELECT message FROM rejects WHERE shard = 'no-images'")
    assert "has no image column" in message[0]
