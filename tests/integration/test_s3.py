"""Source, store and model on an S3 server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from jobs.cli import tagstream
from tests.fixtures.corpus import write_tars
from tests.fixtures.labelling import LabelFunction
from tests.fixtures.stored.queries import read_table, rows

UploadFunction = Callable[[Path, str], str]


@pytest.fixture
def upload(s3: str, tmp_path: Path) -> UploadFunction:
    """Puts a local folder under the bucket and returns its URL; every test has a prefix of its own."""

    def put(folder: Path, name: str) -> str:
        url = f"{s3}/{tmp_path.name}/{name}"
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
        filesystem.put(f"{folder}/", f"{path}/", recursive=True)
        return url

    return put


@pytest.mark.long
def test_a_source_and_a_store_on_s3_give_the_tables_of_local_ones(
    shared_ray: str,
    label_instantly: LabelFunction,
    upload: UploadFunction,
    s3: str,
    tmp_path: Path,
) -> None:
    write_tars(tmp_path / "source", 3, 5)
    source, store = upload(tmp_path / "source", "source"), f"{s3}/{tmp_path.name}/store"
    remote = label_instantly(source, store, address=shared_ray)
    label_instantly(tmp_path / "source", tmp_path / "store")

    assert remote.record.n_images == 15
    for table in ("images", "labels"):
        assert read_table(store, table).equals(read_table(tmp_path / "store", table))


@pytest.mark.long
def test_a_second_job_on_s3_labels_only_what_is_new_or_changed(
    label_instantly: LabelFunction,
    upload: UploadFunction,
    s3: str,
    tmp_path: Path,
) -> None:
    write_tars(tmp_path / "source", 2, 3)
    source, store = upload(tmp_path / "source", "source"), f"{s3}/{tmp_path.name}/store"
    label_instantly(source, store)
    write_tars(tmp_path / "source", 1, 4)
    write_tars(tmp_path / "source", 1, 3, first=2)
    upload(tmp_path / "source", "source")
    second = label_instantly(source, store, changed="relabel")

    assert (second.record.n_shards_changed, second.record.n_shards_committed) == (1, 2)
    assert rows(store, "SELECT shard, count(*) FROM images GROUP BY ALL ORDER BY ALL") == [
        ("00000", 4),
        ("00001", 3),
        ("00002", 3),
    ]


@pytest.mark.long
def test_labels_of_a_store_on_s3_are_reused_by_another_and_by_the_tasks_of_a_ray(
    shared_ray: str, label_instantly: LabelFunction, upload: UploadFunction, s3: str, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", 3, 5)
    source, stores = upload(tmp_path / "source", "source"), [f"{s3}/{tmp_path.name}/{name}" for name in "abc"]
    label_instantly(source, stores[0])
    again = {"address": shared_ray, "reuse": True, "reuse_stores": (stores[0],)}
    read = label_instantly(source, stores[1], decode_in="read", **again)
    sent = label_instantly(source, stores[2], decode_in="actor", **again)

    assert read.record.n_reused == sent.record.n_reused == 15
    (run,) = {run for (run,) in rows(stores[1], "SELECT DISTINCT reused_run FROM images")}
    assert run == f"{stores[0]}/runs/{read.record.run}"
    for table in ("images", "labels"):
        assert read_table(stores[1], table).equals(read_table(stores[2], table))
    assert read_table(stores[1], "labels").equals(read_table(stores[0], "labels"))


def test_a_model_on_s3_is_fetched_once(
    label_instantly: LabelFunction,
    upload: UploadFunction,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAGSTREAM_CACHE", str(tmp_path / "cache"))
    write_tars(tmp_path / "source", 1, 3)
    outcome = label_instantly(tmp_path / "source", tmp_path / "store", model=upload(tiny_model, "tiny"))
    local = label_instantly(tmp_path / "source", tmp_path / "store")

    assert outcome.record.n_images == 3
    assert local.record.run == outcome.record.run
    assert len([path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]) == 1


def test_the_command_asks_a_store_on_s3_in_sql(
    label_instantly: LabelFunction,
    upload: UploadFunction,
    s3: str,
    tmp_path: Path,
) -> None:
    write_tars(tmp_path / "source", 1, 3)
    store = f"{s3}/{tmp_path.name}/store"
    label_instantly(upload(tmp_path / "source", "source"), store)
    query = "SELECT count(*) AS n, count(DISTINCT run) AS runs FROM images"
    result = CliRunner().invoke(tagstream, ["sql", store, query, "--format", "csv"])

    assert result.output == "n,runs\n3,1\n"
