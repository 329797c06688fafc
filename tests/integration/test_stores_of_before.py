"""A store that former code made is read, gone on with and mended as one of today.

What it is and how it was made: tests/fixtures/stores_v1/README.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from jobs.cli import tagstream
from pipeline.catalog.label_choice import LabelChoice
from pipeline.catalog.views import open_store
from pipeline.labelling.retry import RetryJob, RetryRequest
from tests.fixtures.checkout import ROOT
from tests.fixtures.recognizers.instant_labeler import InstantLabeler

MADE = ROOT / "tests" / "fixtures" / "stores_v1"
MADE_AT = "/tmp/stores_v1"
MODIFIED_S = 1735689600
EXPECTED: dict[str, list[dict[str, Any]]] = json.loads((MADE / "expected.json").read_text())
SHARDS, FOLDER = "demo-94b8e71445b0", "folder"
SCORE_TOLERANCE = 1e-3
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Copy:
    """The store and its source elsewhere, as if they had been made there."""

    folder: Path

    @property
    def store(self) -> str:
        return str(self.folder / "store")

    def path(self, table: str, name: str, run: str = SHARDS) -> Path:
        """The only file of a run's table whose name begins so."""
        (found,) = (self.folder / "store" / table / f"run={run}").glob(f"{name}*")
        return found

    def write_shard(self, name: str, content: bytes) -> None:
        (self.folder / "source" / "shards" / name).write_bytes(content)

    def label(self, *words: str, source: str = "shards") -> Result:
        given = ["--store", self.store, "--config", str(self.folder / "label.toml"), *words]
        return command("label", str(self.folder / "source" / source), *given)


def make_copy(folder: Path) -> Copy:
    for name in ("source", "store"):
        shutil.copytree(MADE / name, folder / name)
    shutil.copy(MADE / "label.toml", folder)
    for file in (folder / "source").rglob("*.*"):
        os.utime(file, (MODIFIED_S, MODIFIED_S))
    for record in (folder / "store").glob("runs/*/run.json"):
        record.write_text(record.read_text().replace(MADE_AT, str(folder)))
    return Copy(folder)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return make_copy(tmp_path)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy whose source has a shard more, with the picture of 00002, and another content of 00002; labelled again."""
    copy = make_copy(tmp_path_factory.mktemp("resumed"))
    shards = copy.folder / "source" / "shards"
    copy.write_shard("new.tar", (shards / "00002.tar").read_bytes())
    copy.write_shard("00002.tar", (shards / "more" / "00003.tar").read_bytes())
    copy.label("--changed", "relabel")
    return copy


@pytest.fixture(scope="module")
def retried(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy whose too large images were tried again without the limit, by a labeler that costs nothing."""
    copy = make_copy(tmp_path_factory.mktemp("retried"))
    RetryJob(RetryRequest(store=copy.store, run=SHARDS, error="ImageTooLarge", labeler_class=InstantLabeler)).run()
    return copy


def command(*words: str) -> Result:
    return CliRunner().invoke(tagstream, list(words), standalone_mode=False, catch_exceptions=False)


def read(store: str, table: str) -> Rows:
    """Rows of a table or view, with the columns that are expected, in an order that is theirs alone."""
    columns = list(EXPECTED[table][0])
    listed = ", ".join(f'"{column}"' for column in columns)
    found = open_store(store).execute(f"SELECT {listed} FROM {table}").fetchall()
    return in_order([dict(zip(columns, row, strict=True)) for row in found])


def in_order(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def expected(table: str, *, run: str | None = None, without: str | None = None, **values: Any) -> Rows:
    """Expected rows, of one run, without one shard, or with these values."""
    wanted = {**({} if run is None else {"run": run}), **values}
    return in_order(
        [
            row
            for row in EXPECTED[table]
            if all(row[name] == value for name, value in wanted.items())
            and (without is None or row["shard"] != without)
        ]
    )


def labels_by_image(rows: Rows) -> dict[int, list[dict[str, Any]]]:
    by_image = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["rank"]):
        by_image[row["image_id"]].append(row)
    return by_image


def files_of(copy: Copy) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(copy.store).rglob("*.parquet")}


@pytest.mark.parametrize("table", EXPECTED)
def test_every_table_and_view_has_the_rows_that_it_had(table: str) -> None:
    assert read(str(MADE / "store"), table) == in_order(EXPECTED[table])


def test_of_a_shard_that_was_labelled_again_only_the_new_rows_are_seen(copy: Copy) -> None:
    compacted = pq.read_table(copy.path("images", "compacted")).column("shard").to_pylist()

    assert sorted(set(compacted)) == ["00000", "00001", "00002", "rows"]
    assert (compacted.count("00000"), len(expected("images", shard="00000"))) == (2, 3)


def test_status_finds_the_source_committed_and_the_sums_right(copy: Copy) -> None:
    result = command("status", copy.store)

    assert result.return_value == 0
    assert "12 = 8 labelled + 4 rejected, in 5 shards" in result.stdout
    assert "3 = 2 labelled + 1 rejected, in 2 shards" in result.stdout
    assert re.findall(r"source +(.*)", result.stdout) == [
        "5 shards now: all committed",
        "2 shards now: all committed",
    ]
    assert not re.findall(r"^ +(changed|missing|open|WRONG)", result.stdout, re.MULTILINE)


def test_a_file_more_in_the_folder_is_the_only_thing_open(copy: Copy) -> None:
    shutil.copy(
        copy.folder / "source" / "images" / "thirteen.jpg", copy.folder / "source" / "images" / "more" / "new.jpg"
    )
    result = command("status", copy.store, "--run", FOLDER)

    assert "3 shards now: 2 committed, 1 open" in result.stdout
    assert "1: bucket-0000-of-0001+2\n" in result.stdout


@pytest.mark.parametrize(("run", "source", "n_shards"), [(SHARDS, "shards", 5), (FOLDER, "images", 2)])
def test_labelling_again_finds_nothing_to_do(copy: Copy, run: str, source: str, n_shards: int) -> None:
    before = files_of(copy)
    result = copy.label("--changed", "relabel", "--run", run, source=source)

    assert result.stdout == f"Nothing to do: all {n_shards} shards are labelled already (run {run}).\n"
    assert files_of(copy) == before


def test_the_model_and_settings_of_before_name_the_same_run(copy: Copy) -> None:
    assert copy.label().stdout == f"Nothing to do: all 5 shards are labelled already (run {SHARDS}).\n"


def test_a_new_shard_is_labelled_into_the_same_run(resumed: Copy) -> None:
    (image,) = [row for row in read(resumed.store, "images") if row["shard"] == "new"]
    labels = labels_by_image(read(resumed.store, "labels"))[image["image_id"]]
    (same_image,) = expected("images", shard="00002")
    same_labels = labels_by_image(expected("labels", shard="00002"))[same_image["image_id"]]

    place = ("image_id", "shard")
    assert {**image, **{name: same_image[name] for name in place}} == same_image
    assert [row["label"] for row in labels] == [row["label"] for row in same_labels]
    assert [row["score"] for row in labels] == pytest.approx([row["score"] for row in same_labels], abs=SCORE_TOLERANCE)


@pytest.mark.parametrize("table", ["images", "labels"])
def test_files_of_today_have_the_columns_and_the_keys_of_those_of_before(resumed: Copy, table: str) -> None:
    before, today = (pq.read_schema(resumed.path(table, name)) for name in ("more", "new"))

    assert today.equals(before, check_metadata=False)
    assert today.metadata.keys() == before.metadata.keys()
    assert today.metadata[b"tagstream.fingerprint"] == before.metadata[b"tagstream.fingerprint"]
    # The columns are those of version 1; of version 2 are the listed labels beside them.
    assert [schema.metadata[b"tagstream.schema_version"] for schema in (before, today)] == [b"1", b"2"]


def test_a_run_of_before_gets_the_scores_of_a_list(copy: Copy) -> None:
    (copy.folder / "names.txt").write_text("rose\ntree\ndog\n")
    before = files_of(copy)
    result = copy.label("--names", str(copy.folder / "names.txt"), "--names-top", "2")

    assert "Scored the names for 5 shards that were labelled already" in result.stdout
    connection = open_store(copy.store, run=SHARDS, labels=LabelChoice("listed"))
    counts = connection.sql("SELECT count(*), count(DISTINCT image_id), max(rank) FROM labels").fetchall()
    # One image had been tried again with a larger limit than the file of settings has.
    assert counts == [(14, 7, 2)]
    assert "1 labelled images are gone, others now, or over a limit of this job" in result.stderr
    assert {path: content for path, content in files_of(copy).items() if "listed" not in path.parts} == before
    assert command("compact", copy.store).exit_code == 0
    assert "24 labels, 14 listed: all whole" in command("status", copy.store, "--verify", "--run", SHARDS).stdout
    for table in ("images", "labels"):
        assert read(copy.store, table) == in_order(EXPECTED[table])


def test_a_changed_shard_of_a_compacted_file_is_labelled_again_and_no_other(resumed: Copy) -> None:
    images, labels = read(resumed.store, "images"), read(resumed.store, "labels")
    (image,) = [row for row in images if row["shard"] == "00002"]
    (content,) = expected("images", shard="more/00003")

    assert (image["key"], image["caption"]) == (content["key"], content["caption"])
    assert resumed.path("images", "00002").name == "00002!g1.parquet"
    for table, rows in (("images", images), ("labels", labels)):
        others = [row for row in rows if row["shard"] not in ("00002", "new")]
        assert others == expected(table, without="00002")


def test_a_rejected_image_that_a_limit_lets_through_is_labelled(retried: Copy) -> None:
    (image,) = [row for row in read(retried.store, "images") if row["key"] == "wider"]
    found = read(retried.store, "labels")
    labels = labels_by_image(found)[image["image_id"]]

    assert (image["status"], image["error"]) == ("labelled", None)
    assert image["n_labels"] == len(labels) > 0
    others = [row for row in read(retried.store, "images") if row["key"] != "wider"]
    assert others == [row for row in expected("images") if row["key"] != "wider"]
    assert [row for row in found if row["image_id"] != image["image_id"]] == expected("labels")


@pytest.mark.parametrize("name", ["resumed", "retried"])
def test_what_was_gone_on_with_is_whole(name: str, request: pytest.FixtureRequest) -> None:
    result = command("status", request.getfixturevalue(name).store, "--verify")

    assert (result.return_value, result.stdout.count("all whole")) == (0, 2)


def test_verification_reads_all_of_it_and_finds_nothing(copy: Copy) -> None:
    result = command("status", copy.store, "--verify")

    assert result.return_value == 0
    # Two of the compacted file's shards were labelled again since; their rows are still in it.
    # Those of the compacted file that were labelled again are among them.
    assert result.stdout.splitlines() == [
        f"run {SHARDS}: 4 files of images with their labels read, 19 images, 33 labels: all whole",
        f"run {FOLDER}: 2 files of images with their labels read, 3 images, 6 labels: all whole",
    ]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("table", "name", "damage", "kind"),
    [
        ("images", "compacted", flip_a_bit, "unreadable"),
        ("labels", "compacted", flip_a_bit, "unreadable"),
        ("spellings", "compacted", Path.unlink, "missing"),
        ("images", "00000!g2", flip_a_bit, "unreadable"),
        ("labels", "more", Path.unlink, "missing"),
    ],
)
def test_verification_finds_a_damage(
    copy: Copy, table: str, name: str, damage: Callable[[Path], None], kind: str
) -> None:
    path = copy.path(table, name)
    damage(path)
    result = command("status", copy.store, "--verify")

    assert result.return_value == 1
    (finding,) = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    assert finding.split()[:2] == [kind, f"{table}/run={SHARDS}/{path.name}"]


def test_compaction_makes_one_file_of_each_run_and_keeps_the_rows(copy: Copy) -> None:
    command("compact", copy.store)

    assert all(
        copy.path(table, "", run).name.startswith("compacted!")
        for table in ("images", "labels", "spellings")
        for run in (SHARDS, FOLDER)
    )
    for table in ("images", "labels", "rejects", "truth", "spellings"):
        assert read(copy.store, table) == in_order(EXPECTED[table])
    assert command("status", copy.store, "--verify").return_value == 0
    assert "Nothing to do" in copy.label().stdout


def test_a_report_shows_the_counts_and_every_picture(copy: Copy) -> None:
    out = copy.folder / "report.html"
    command("report", copy.store, "--run", SHARDS, "--out", str(out))
    (text,) = re.findall(r'<script type="application/json" id="page-data">(.*?)</script>', out.read_text(), re.DOTALL)
    page = json.loads(text)
    images = expected("images", run=SHARDS)
    labelled = [image for image in images if image["status"] == "labelled"]

    counts = page["head"]["counts"]
    assert (counts["n_shards"], counts["n_images"], counts["n_labelled"]) == (5, len(images), len(labelled))
    assert counts["n_labels"] == len(expected("labels", run=SHARDS))
    assert page["head"]["jobs"] == len(expected("jobs", run=SHARDS))
    pictures = {int(image["id"]) for image in page["images"] if image.get("picture")}
    assert pictures == {image["image_id"] for image in labelled}
    assert len(page["images"]) == len(images)


def test_an_export_has_every_label_and_the_original_images(copy: Copy) -> None:
    out = copy.folder / "exported"
    command("export", copy.store, "--run", SHARDS, "--to", "hf", "--images", "--out", str(out))
    exported = pq.read_table(out / "data" / "train-00000.parquet").to_pylist()
    images = {image["image_id"]: image for image in expected("images", run=SHARDS, status="labelled")}
    labels = labels_by_image(expected("labels", run=SHARDS))

    assert {row["image_id"] for row in exported} == images.keys()
    for row in exported:
        image = images[row["image_id"]]
        assert hashlib.blake2b(row["image"]["bytes"], digest_size=16).hexdigest() == image["content_hash"]
        assert (row["caption"], row["truth"]) == (image["caption"], image["truth"])
        told = [(label["rank"], label["label"], label["score"]) for label in row["labels"]]
        assert told == [(label["rank"], label["label"], label["score"]) for label in labels[row["image_id"]]]


def test_recall_counts_the_true_labels_among_the_first(copy: Copy) -> None:
    result = command("recall", copy.store, "--run", SHARDS, "--k", "1,3", "--format", "json")
    found = {(row["measure"], row["k"]): row["value"] for row in json.loads(result.stdout)}
    labels = labels_by_image(expected("labels", run=SHARDS))
    truth: dict[int, set[str]] = defaultdict(set)
    for row in expected("truth", run=SHARDS):
        truth[row["image_id"]].add(row["label"])

    for k in (1, 3):
        shares = [
            len(true & {label["label"] for label in labels[image][:k]}) / len(true) for image, true in truth.items()
        ]
        assert found["recall_macro", k] == pytest.approx(sum(shares) / len(shares), abs=1e-9)
