"""What people say of labels, as their tools write it: rows of `schemas.REVIEWS`.

A file of another kind is a TagstreamError. What a person left open has no row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from pipeline.errors import TagstreamError
from pipeline.text import one_line
from schemas import REVIEWS, VERDICTS

ReviewTool = Literal["page", "csv", "label-studio", "fiftyone"]
TOOLS: tuple[str, ...] = get_args(ReviewTool)
# Columns of the CSV file to review. A person fills in `verdict`, and adds rows for what is missing.
COLUMNS = ("image_id", "key", "file", "name", "rank", "score", "verdict", "reviewer", "reviewed")
# The field of Label Studio where a person writes what cannot be chosen.
MISSING_FIELD = "missing"
_PAGE_KIND = "tagstream review"
Row = dict[str, Any]


def read_reviews(path: str, tool: ReviewTool, reviewer: str) -> pa.Table:
    """Reads what people decided.

    Args:
        reviewer: who reviewed, where the file does not say it.

    Raises TagstreamError where the file cannot be read, or nobody decided anything in it.
    """
    try:
        rows = [_check({"reviewer": reviewer, "reviewed": None, **row}, path) for row in _READERS[tool](Path(path))]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TagstreamError(f"{path} is no {tool} file of reviews: {one_line(error)}") from error
    if not rows:
        raise TagstreamError(f"{path} has no decision; expected a verdict of {', '.join(VERDICTS)} for some label")
    unique = {tuple(row[name] for name in REVIEWS.names): row for row in rows}
    return pa.Table.from_pylist(list(unique.values()), schema=REVIEWS)


def run_told(path: str, tool: ReviewTool) -> str | None:
    """The run whose images a readable file is about; None where the tool does not keep it."""
    return str(json.loads(Path(path).read_text("utf-8"))["run"]) if tool == "page" else None


def _read_page(path: Path) -> Iterator[Row]:
    """What the page of `pipeline.reviews.page` saves; `pages/review/decisions.js` writes it."""
    saved = json.loads(path.read_text("utf-8"))
    if (saved["kind"], type(saved["run"])) != (_PAGE_KIND, str):
        raise ValueError(f"it is {saved['kind']!r} of run {saved['run']!r}; expected {_PAGE_KIND!r} of a run")
    for decision in saved["decisions"]:
        told = {**_told("reviewer", saved.get("reviewer")), **_told("reviewed", decision.get("reviewed"))}
        yield {**told, **_row(decision["image_id"], decision["name"], decision["verdict"])}


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file)
        if missing := {"image_id", "name", "verdict"}.difference(lines.fieldnames or ()):
            raise ValueError(f"the columns {', '.join(sorted(missing))} are missing")
        for line in lines:
            verdict = (line["verdict"] or "").strip().lower()
            if not verdict:
                continue
            told = {name: line[name] for name in ("reviewer", "reviewed") if line.get(name)}
            # What was not shown has no rank.
            is_added = verdict == "yes" and not line.get("rank", "-")
            yield {**told, **_row(line["image_id"], line["name"], "added" if is_added else verdict)}


def _read_label_studio(path: Path) -> Iterator[Row]:
    """Every annotation that was submitted: what was chosen is true, what was shown and not chosen is not. What was
    written is true, too."""
    for task in json.loads(path.read_text("utf-8")):
        shown = [label["name"] for label in task["data"]["labels"]]
        for annotation in task.get("annotations") or ():
            if annotation.get("was_cancelled") or annotation.get("ground_truth"):
                continue
            chosen = [name for result in annotation["result"] for name in _names_in(result)]
            told = {
                **_told("reviewer", _person(annotation.get("completed_by"))),
                **_told("reviewed", annotation.get("updated_at") or annotation.get("created_at")),
            }
            for name in dict.fromkeys((*shown, *chosen)):
                verdict = "no" if name not in chosen else "yes" if name in shown else "added"
                yield {**told, **_row(task["data"]["image_id"], name, verdict)}


def _names_in(result: Row) -> list[str]:
    """What a result of an annotation says is true: choices, or what was written in the field for it."""
    if result.get("from_name") != MISSING_FIELD:
        return list(result["value"].get("choices", ()))
    written = result["value"]["text"]
    # One answer may be a text, or a list of one.
    return [name.strip() for name in ([written] if isinstance(written, str) else written) if name.strip()]


def _read_fiftyone(path: Path) -> Iterator[Row]:
    """Predictions that were tagged yes, no or unsure in the App, and what stands in the field `added`."""
    content = path / "samples.json" if path.is_dir() else path
    for sample in json.loads(content.read_text("utf-8"))["samples"]:
        for label in (sample.get("predictions") or {}).get("classifications", ()):
            for verdict in {"yes", "no", "unsure"}.intersection(label.get("tags") or ()):
                yield _row(sample["image_id"], label["label"], verdict)
        for label in (sample.get("added") or {}).get("classifications", ()):
            yield _row(sample["image_id"], label["label"], "added")


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "page": _read_page,
    "csv": _read_csv,
    "label-studio": _read_label_studio,
    "fiftyone": _read_fiftyone,
}


def _row(image_id: Any, name: str, verdict: str) -> Row:
    return {"image_id": int(image_id), "label": name, "verdict": verdict}


def _told(name: str, value: Any) -> Row:
    return {name: str(value)} if value else {}


def _person(completed_by: Any) -> Any:
    """Who annotated: Label Studio writes a number, or a person with an address."""
    return completed_by.get("email") or completed_by.get("id") if isinstance(completed_by, dict) else completed_by


def _check(row: Row, path: str) -> Row:
    if row["verdict"] not in VERDICTS:
        raise ValueError(
            f"the verdict of {row['label']} on image {row['image_id']} is {row['verdict']!r}; expected one of "
            f"{', '.join(VERDICTS)}"
        )
    if not row["label"]:
        raise ValueError(f"a verdict on image {row['image_id']} has no name")
    return row
