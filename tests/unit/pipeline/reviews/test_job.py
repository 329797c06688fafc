"""Images to review, for a tool and back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.analysis.reviewed import analyse_reviews
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.reviews.drawing import Draw
from pipeline.reviews.files import ReviewTool
from pipeline.reviews.job import AddedReviews, SampleRequest, import_reviews, sample_for_review
from pipeline.store.store import Store
from tests.fixtures.corpus import write_tars
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import job_record, run_record

LABELS = [("dogs", 0.5), ("tree", 0.25), ("owl", 0.125)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run of twenty images, each of which is labelled dogs, tree, owl."""
    write_tars(tmp_path / "source", 2, 10)
    store = Store(str(tmp_path / "store"))
    label_source(store, "r", str(tmp_path / "source"), LABELS)
    return store


def sample(store: Store, tmp_path: Path, to: ReviewTool, **changed: Any) -> Path:
    draw = Draw(by="random", n=10, seed=3)
    values = {"store": store.url, "run": "r", "draw": draw, "to": to, "out": str(tmp_path / to)}
    sample_for_review(SampleRequest(**{**values, "vocabulary": read_vocabulary(None), **changed}))
    return tmp_path / to


def measured(store: Store) -> dict[str, float]:
    """Precision and recall of the first two labels by the reviews."""
    measures = analyse_reviews(open_store(store.url), "r").measure([2])[2]
    return {name: measures[name].value for name in ("precision_micro", "recall_micro")}


def test_a_csv_is_filled_in_and_comes_back(store: Store, tmp_path: Path) -> None:
    folder = sample(store, tmp_path, "csv")
    with (folder / "review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows[:3]] == ["dog", "tree", "owl"]
    assert all((folder / row["file"]).is_file() for row in rows)
    for row in rows:
        row["verdict"] = "no" if row["name"] == "tree" else "yes"
    missing = [{**rows[0], "image_id": image, "name": "fox", "rank": ""} for image in {row["image_id"] for row in rows}]
    with (folder / "review.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*rows, *missing])
    path = str(folder / "review.csv")
    n_decisions = len(rows) + len(missing)
    assert import_reviews(store.url, None, path, "csv", "ada") == AddedReviews("r", n_decisions, n_decisions, 0)
    assert import_reviews(store.url, None, path, "csv", "ada") == AddedReviews("r", n_decisions, 0, 0)
    # Of the first two names one is true, of the three true ones (dog, owl, fox) one is among them.
    assert measured(store) == pytest.approx({"precision_micro": 1 / 2, "recall_micro": 1 / 3})


def test_tasks_of_label_studio_come_back_as_annotations(store: Store, tmp_path: Path) -> None:
    folder = sample(store, tmp_path, "label-studio", images=False)
    tasks = json.loads((folder / "tasks.json").read_text())
    for task in tasks:
        chosen = {"type": "choices", "value": {"choices": ["dog", "owl"]}}
        task["annotations"] = [{"completed_by": 1, "updated_at": "2026-11-27T00:00:00Z", "result": [chosen]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    import_reviews(store.url, "r", str(tmp_path / "export.json"), "label-studio", "ada")
    assert measured(store) == pytest.approx({"precision_micro": 1 / 2, "recall_micro": 1 / 2})


def test_samples_of_fiftyone_come_back_with_tags(store: Store, tmp_path: Path) -> None:
    folder = sample(store, tmp_path, "fiftyone", images=False)
    content = json.loads((folder / "samples.json").read_text())
    for one in content["samples"]:
        for label in one["predictions"]["classifications"]:
            label["tags"] = ["no" if label["label"] == "tree" else "yes"]
    (folder / "samples.json").write_text(json.dumps(content))
    import_reviews(store.url, "r", str(folder), "fiftyone", "ada")
    assert measured(store) == pytest.approx({"precision_micro": 1 / 2, "recall_micro": 1 / 2})


def test_reviews_of_images_that_the_run_has_not_are_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("image_id,name,verdict\n1,dog,yes\n")
    with pytest.raises(TagstreamError, match=r"1 of 1 reviewed images .* are none of run r; name the run"):
        import_reviews(store.url, None, str(tmp_path / "other.csv"), "csv", "ada")
    assert not (Path(store.root) / "reviews").exists()


def test_a_saved_page_of_another_run_is_refused_and_its_own_run_is_found(store: Store, tmp_path: Path) -> None:
    label_source(store, "later", str(tmp_path / "source"), LABELS)
    store.run("later").write_job(job_record("later"))
    ((image_id,),) = open_store(store.url, run="r").sql("SELECT image_id FROM images LIMIT 1").fetchall()
    decisions = [{"image_id": str(image_id), "name": "dog", "verdict": "yes"}]
    path = tmp_path / "review.json"
    path.write_text(json.dumps({"kind": "tagstream review", "run": "r", "sample": "s", "decisions": decisions}))
    with pytest.raises(TagstreamError, match=r"is of run r, not of later; name that with --run"):
        import_reviews(store.url, "later", str(path), "page", "ada")
    assert import_reviews(store.url, None, str(path), "page", "ada") == AddedReviews("r", 1, 1, n_undrawn=1)


def decide(store: Store, tmp_path: Path, *decided: tuple[str, str, str], reviewer: str = "ada") -> AddedReviews:
    """Imports what a person says of the first image: names, verdicts and times, which may be none."""
    ((image_id,),) = open_store(store.url).sql("SELECT min(image_id) FROM images").fetchall()
    lines = ["image_id,name,verdict,reviewed", *(f"{image_id},{','.join(one)}" for one in decided)]
    (tmp_path / "decided.csv").write_text("\n".join(lines))
    return import_reviews(store.url, "r", str(tmp_path / "decided.csv"), "csv", reviewer)


def said(store: Store) -> list[tuple[str, str, str]]:
    return open_store(store.url).sql("SELECT label, verdict, reviewer FROM reviews ORDER BY ALL").fetchall()


def test_of_what_a_person_says_of_a_label_the_latest_counts_and_all_is_kept(store: Store, tmp_path: Path) -> None:
    assert decide(store, tmp_path, ("dog", "yes", ""), ("owl", "no", "")).n_new == 2
    # Looked at again: one is changed, one is as before, one is new.
    assert decide(store, tmp_path, ("dog", "no", ""), ("owl", "no", ""), ("tree", "yes", "")).n_new == 2
    assert decide(store, tmp_path, ("dog", "yes", ""), reviewer="bob").n_new == 1
    assert said(store) == [("dog", "no", "ada"), ("dog", "yes", "bob"), ("owl", "no", "ada"), ("tree", "yes", "ada")]
    # And back again, by the very file that came first.
    assert decide(store, tmp_path, ("dog", "yes", ""), ("owl", "no", "")).n_new == 1
    assert said(store)[0] == ("dog", "yes", "ada")
    ((versions,),) = (
        open_store(store.url)
        .sql("SELECT list(verdict ORDER BY imported) FROM stored_reviews WHERE label = 'dog' AND reviewer = 'ada'")
        .fetchall()
    )
    assert versions == ["yes", "no", "yes"]


def test_an_older_file_that_comes_late_changes_nothing(store: Store, tmp_path: Path) -> None:
    older, newer = ("dog", "yes", "2026-11-27T10:00:00Z"), ("dog", "no", "2026-11-27T12:30:00+02:00")
    for decision, n_new in ((newer, 1), (older, 1), (newer, 0), (older, 0)):
        assert decide(store, tmp_path, decision).n_new == n_new
    assert said(store) == [("dog", "no", "ada")]


def test_the_run_is_the_one_that_the_images_were_drawn_from(store: Store, tmp_path: Path) -> None:
    label_source(store, "later", str(tmp_path / "source"), LABELS)
    store.run("later").write_job(job_record("later"))
    folder = sample(store, tmp_path, "csv", images=False)
    path = folder / "review.csv"
    path.write_text(path.read_text().replace("0.5,,", "0.5,yes,"))
    assert import_reviews(store.url, None, str(path), "csv", "ada").run == "r"
    sample(store, tmp_path, "fiftyone", run="later", images=False)
    with pytest.raises(TagstreamError, match=r"were drawn from later, r; name the run with --run"):
        import_reviews(store.url, None, str(path), "csv", "ada")


@pytest.mark.parametrize("to", ["page", "csv"])
def test_the_store_is_opened_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: ReviewTool
) -> None:
    opened = []

    def count(*given: Any, **named: Any) -> Any:
        opened.append(given)
        return open_store(*given, **named)

    for module in ("pipeline.reviews.job", "pipeline.export.job"):
        monkeypatch.setattr(f"{module}.open_store", count)
    sample(store, tmp_path, to)
    assert len(opened) == 1


def test_a_folder_that_exists_is_refused_and_no_sample_is_kept(store: Store, tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    with pytest.raises(TagstreamError, match="expected a folder that is not there yet"):
        sample(store, tmp_path, "csv")
    assert open_store(store.url).sql("SELECT count(*) FROM samples").fetchall() == [(0,)]


def test_runs_have_samples_of_their_own(store: Store, tmp_path: Path) -> None:
    store.create_run(run_record("other"))
    sample(store, tmp_path, "csv", images=False)
    query = "SELECT count(*) > 0 FROM drawn"
    assert open_store(store.url, run="r").sql(query).fetchall() == [(True,)]
    assert open_store(store.url, run="other").sql(query).fetchall() == [(False,)]
