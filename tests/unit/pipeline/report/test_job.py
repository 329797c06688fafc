"""A report as a whole: its file, its head, its size."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.cli import tagstream
from pipeline.analysis.reviewed import analyse_reviews
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.report.job import Report, ReportRequest
from pipeline.storage.files import open_filesystem
from pipeline.store.store import Store
from tests.fixtures.corpus import jpeg, tar_bytes
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.reported import OTHER, REJECTED, RUN, make_store, random_shards
from tests.fixtures.stored.reviewed import review_by_truth
from tests.fixtures.stored.tables import job_record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, random_shards(2, 6))


def page_data(page: str) -> dict[str, Any]:
    """What the page embeds."""
    (text,) = re.findall(r'<script type="application/json" id="page-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def report(store: Store, out: Path, **options: Any) -> dict[str, Any]:
    request = ReportRequest(**{"store": store.url, "out": str(out), "vocabulary": read_vocabulary(None), **options})
    Report(request).write()
    return page_data(out.read_text())


def test_every_image_has_its_picture(store: Store, tmp_path: Path) -> None:
    images = report(store, tmp_path / "r.html")["images"]
    assert len(images) == 12
    assert all(image["picture"] for image in images)


def test_rejected_samples_have_no_picture_and_say_why(tmp_path: Path) -> None:
    store = make_store(tmp_path, {"a": [*random_shards(1, 2)["s000"], REJECTED]})
    images = report(store, tmp_path / "r.html")["images"]
    assert ["picture" in image for image in images] == [True, True, False]
    assert images[2]["rejected"] == "decode: ImageUnreadable"


def test_a_source_that_is_gone_leaves_the_labels_and_says_so(store: Store, tmp_path: Path) -> None:
    for shard in (tmp_path / "shards").iterdir():
        shard.unlink()
    images = report(store, tmp_path / "r.html")["images"]
    assert {image["problem"] for image in images} == {"the original is gone"}
    assert all(image["labels"] for image in images)


def test_only_pictures_that_there_are_count_as_such(store: Store, tmp_path: Path) -> None:
    (tmp_path / "shards" / "s000.tar").unlink()
    made = Report(ReportRequest(store=store.url, out=str(tmp_path / "r.html"), vocabulary=read_vocabulary(None)))
    made.write()
    assert (made.n_pictures, made.n_tried, made.n_drawn) == (6, 12, 12)
    assert made.problems == {"the original is gone": 6}


def test_a_source_whose_list_is_gone_leaves_the_labels_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_bytes(tar_bytes([("0.jpg", jpeg(0))]))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/shards/a.tar\n")
    store = Store(str(tmp_path / "store"))
    label_source(store, RUN, f"@{tmp_path}/list.txt", [("dog", 0.5)])
    (tmp_path / "list.txt").unlink()
    (image,) = report(store, tmp_path / "r.html")["images"]
    assert "list.txt does not exist" in image["problem"]
    assert image["labels"]


@pytest.mark.parametrize("problem", ["condition", "other run", "folder"])
def test_a_mistake_is_told_before_the_store_is_asked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    def asked(*_: Any) -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr("pipeline.report.job.describe_run", asked)
    mistakes: dict[str, tuple[dict[str, str], str]] = {
        "condition": ({"where": "captoin = 'a dog'"}, "the condition .* failed: .*captoin"),
        "other run": ({"compare": "nope"}, "there is no run nope"),
        "folder": ({}, "there is no folder"),
    }
    options, sentence = mistakes[problem]
    out = tmp_path / ("nowhere" if problem == "folder" else "") / "r.html"
    with pytest.raises(TagstreamError, match=sentence):
        report(store, out, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"usd_per_hour": float("nan")}, "usd_per_hour is nan; expected 0 or more"),
        ({"usd_per_hour": -1.0}, r"usd_per_hour is -1\.0; expected 0 or more"),
        ({"max_mb": float("inf")}, "max_mb is inf; expected a finite number"),
    ],
)
def test_numbers_that_are_none_are_refused(
    store: Store, tmp_path: Path, options: dict[str, float], sentence: str
) -> None:
    with pytest.raises(TagstreamError, match=f"^{sentence}$"):
        report(store, tmp_path / "r.html", **options)


def test_a_seed_may_be_of_any_length(store: Store, tmp_path: Path) -> None:
    assert len(report(store, tmp_path / "r.html", sample=5, seed=10**47)["images"]) == 5


def test_the_head_adds_up_what_the_jobs_did(store: Store, tmp_path: Path) -> None:
    store.run(RUN).write_job(
        job_record(RUN, started="2026-01-02T00:00:00.000+00:00", seconds=6.0, labelling_s=3.0, images_per_s=8.0)
    )
    head = report(store, tmp_path / "r.html", usd_per_hour=3.0)["head"]
    assert head["counts"]["n_images"] == 12
    assert head["seconds"] == 8.0
    assert head["imagesPerSecond"] == pytest.approx((1 * 4 + 3 * 8) / 4)
    assert head["secondsByStage"]["infer"] == pytest.approx(1.2)
    assert head["cost"]["usd"] == pytest.approx(8 / 3600 * 3)
    # At the rate that stands beside it, which knows no time of starting up.
    assert head["cost"]["usdPerMillion"] == pytest.approx(1e6 / head["imagesPerSecond"] / 3600 * 3)


def test_the_head_names_source_and_model_and_says_where_the_demo_model_does_not_know_the_images(
    store: Store, tmp_path: Path
) -> None:
    head = report(store, tmp_path / "r.html")["head"]
    assert (head["title"], head["note"]) == ("shards, labelled by tiny", None)
    store.run(RUN).write_job(job_record(RUN, started="2026-01-02T00:00:00.000+00:00", n_labelled=80, n_strange=76))
    note = report(store, tmp_path / "noted.html")["head"]["note"]
    assert "images do not look like the composed scenes that the demo model knows" in note


def test_the_head_sets_what_was_predicted_against_what_those_jobs_took(store: Store, tmp_path: Path) -> None:
    assert report(store, tmp_path / "before.html")["head"]["predicted"] is None
    for day, outcome in ((2, "done"), (3, "failed")):
        started = f"2026-01-0{day}T00:00:00.000+00:00"
        store.run(RUN).write_job(job_record(RUN, started=started, outcome=outcome, seconds=6.0, predicted_s=5.0))
    assert report(store, tmp_path / "after.html")["head"]["predicted"] == {"predicted": 5.0, "real": 6.0}


def test_without_a_truth_there_are_no_charts_of_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, {"a": [{"labels": ["dog"]}]})
    data = report(store, tmp_path / "r.html")
    assert {chart["id"] for chart in data["charts"]} == {"labels", "scores", "labels_each", "jobs", "rejects"}


def test_commands_name_the_vocabulary_that_the_numbers_come_from(tmp_path: Path) -> None:
    path = tmp_path / "my words.toml"
    path.write_text('deny = ["cat"]\n')
    store = make_store(tmp_path, random_shards(1, 5), other=random_shards(1, 5, seed=1))
    out = tmp_path / "r.html"
    arguments = ["report", store.url, "--run", RUN, "--compare", OTHER, "--vocabulary", str(path), "--out", str(out)]
    result = CliRunner().invoke(tagstream, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    charts = page_data(out.read_text())["charts"]
    assert len(charts) == 10
    for chart in charts:
        command = shlex.split(chart["command"])
        assert command[command.index("--vocabulary") + 1] == str(path)


def test_captions_can_be_the_truth(tmp_path: Path) -> None:
    store = make_store(tmp_path, {"a": [{"labels": ["dog", "sky"], "caption": "a dog in a car"}]})
    (image,) = report(store, tmp_path / "r.html", truth="captions")["images"]
    assert image["truth"] == [{"name": "dog", "rank": 1}, {"name": "car"}]


def test_another_run_is_held_against_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, {"a": [{"labels": ["dog"]}]}, other={"a": [{"labels": ["cat"]}]})
    data = report(store, tmp_path / "r.html", run=RUN, compare=OTHER)
    assert data["compare"] == {"run": OTHER, "ranking": "prob", "k": 5}
    assert [label["label"] for label in data["images"][0]["other"]] == ["cat"]
    changed = next(chart for chart in data["charts"] if chart["id"] == "changed_names")
    assert sorted(changed["rows"]) == [["cat", 0, 1, 0], ["dog", 1, 0, 0]]


def test_hits_are_those_of_the_reports_run_also_beside_another(tmp_path: Path) -> None:
    mine = {"a": [{"labels": ["dog"], "truth": ["dog"]}, {"labels": ["cat"], "truth": ["sky"]}]}
    store = make_store(tmp_path, mine, other={"a": [{"labels": ["dog"], "truth": ["cat"]}]})
    first, second = report(store, tmp_path / "r.html", run=RUN, compare=OTHER)["images"]
    assert first["labels"][0]["is_hit"]
    assert "is_hit" not in second["labels"][0]


@pytest.mark.parametrize("max_mb", [1.0, pytest.param(1.2, marks=pytest.mark.long)])
def test_the_file_is_no_larger_than_allowed(tmp_path: Path, max_mb: float) -> None:
    store = make_store(tmp_path, random_shards(2, 100))
    (tmp_path / "shards" / "s000.tar").write_bytes(tar_bytes((f"{n}.jpg", jpeg(n, 640, 480)) for n in range(100)))
    out = tmp_path / "r.html"
    images = report(store, out, max_mb=max_mb)["images"]
    assert all(image["picture"] for image in images)
    assert 0.5e6 < out.stat().st_size <= max_mb * 1e6


def test_what_cannot_fit_is_an_error_before_any_picture_is_made(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    with pytest.raises(TagstreamError, match=r"12 images do not fit into 0.5 MB; take a smaller --sample"):
        report(store, out, max_mb=0.5)
    assert not out.exists()


def test_a_file_that_exists_is_replaced_only_where_asked(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    out.write_text("mine")
    with pytest.raises(TagstreamError, match=r"r.html exists; give another name, or --overwrite"):
        report(store, out)
    assert out.read_text() == "mine"
    assert report(store, out, overwrite=True)["images"]


def test_a_run_is_not_held_against_itself(store: Store, tmp_path: Path) -> None:
    with pytest.raises(TagstreamError, match="--compare names the run itself"):
        report(store, tmp_path / "r.html", compare=RUN)


def test_the_same_report_has_the_same_bytes(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        report(store, tmp_path / f"{name}.html", sample=5, seed=3)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_source_store_and_page_may_lie_on_s3(s3: str, tmp_path: Path) -> None:
    filesystem, path = open_filesystem(f"{s3}/report")
    source = tar_bytes((f"{n}.jpg", jpeg(n)) for n in range(4))
    filesystem.pipe_file(f"{path}/shards/a.tar", source)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_bytes(source)
    images = []
    for root in (f"{s3}/report", str(tmp_path)):
        store = Store(f"{root}/store")
        label_source(store, RUN, f"{root}/shards", [("dog", 0.5)])
        out = f"{root}/page.html"
        Report(ReportRequest(store=store.url, out=out, vocabulary=read_vocabulary(None))).write()
        written = open_filesystem(out)[0].cat_file(open_filesystem(out)[1]).decode()
        images.append(page_data(written)["images"])
    assert images[0] == images[1]
    assert all(image["picture"] for image in images[0])


def test_by_reviews_the_pictures_are_of_reviewed_images_and_the_measures_of_all(tmp_path: Path) -> None:
    shards = random_shards(2, 6)
    store = make_store(tmp_path, shards, other=random_shards(2, 6, seed=4))
    images = [{**image, "truth": image["truth"] or ["dog"]} for image in shards["s001"]]
    review_by_truth(store, RUN, "s001", images, dict.fromkeys((1, 2, 4), 0.25))
    made = report(store, tmp_path / "r.html", truth="reviews", run=RUN, compare=OTHER)
    assert [(image["shard"], image["index"]) for image in made["images"]] == [("s001", 1), ("s001", 2), ("s001", 4)]
    assert all(image["truth"] for image in made["images"])
    charts = {chart["id"]: chart for chart in made["charts"]}
    assert "by what people say of 3 images of the sample random-1" in charts["recall"]["note"]
    expected = analyse_reviews(open_store(store.url), RUN).measure([5])[5]
    at_5 = {measure: value for k, measure, value, _, _ in charts["recall"]["rows"] if k == 5}
    assert at_5 == pytest.approx({name: expected[name].value for name in at_5})
    assert {row[0] for row in charts["differences"]["rows"]} == set(at_5)
    assert f"People judged 100% of the labels of {RUN} and " in charts["differences"]["note"]
    for name in ("recall", "differences"):
        words = shlex.split(charts[name]["command"])[1:]
        result = CliRunner().invoke(tagstream, words, catch_exceptions=False)
        assert result.exit_code == 0
        assert "--truth reviews" in charts[name]["command"]
