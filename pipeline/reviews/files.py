"""What people say of labels, as their tools write it: rows of `schemas.REVIEWS`.

A file of another kind is a TagstreamError. What a person left open has no row.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from pipeline.errors import TagstreamError
from pipeline.text import one_line, printable
from schemas import REVIEWS, VERDICTS

ReviewTool = Literal["page", "csv", "label-studio", "fiftyone"]
TOOLS: tuple[str, ...] = get_args(ReviewTool)
# Columns of the CSV file to review. A person fills in `verdict`, and adds rows for what is missing.
COLUMNS = ("image_id", "key", "file", "name", "rank", "score", "verdict", "reviewer", "reviewed")
# The field of Label Studio where a person writes what cannot be chosen.
MISSING_FIELD = "missing"
_PAGE_KIND = "tagstream review"
_EXPECTED: dict[str, str] = {
    "page": "the file that a page of `tagstream sample --to page` saved",
    "csv": "a table as `tagstream sample --to csv` writes it, in UTF-8",
    "label-studio": "an export of Label Studio as JSON",
    "fiftyone": "a folder that FiftyOne exported as FiftyOneDataset, or its samples.json",
}
# As the table to review has it. Spreadsheets take a plain number of so many digits for one that may be rounded.
_IMAGE_ID = re.compile(r"#?(-?[0-9]{1,19})")
_INT64 = range(-(1 << 63), 1 << 63)
Row = dict[str, Any]


class _RowError(ValueError):
    """A decision that cannot be understood, in a file of the right kind."""


def read_reviews(path: str, tool: ReviewTool, reviewer: str) -> pa.Table:
    """Reads what people decided.

    Args:
        reviewer: who reviewed, where the file does not say it; empty where nobody knows.

    Raises TagstreamError where the file cannot be read, or nobody decided anything in it.
    """
    try:
        rows = [_checked({"reviewer": reviewer, "reviewed": None, **row}) for row in _READERS[tool](Path(path))]
        unique = {tuple(row[name] for name in REVIEWS.names): row for row in rows}
        table = pa.Table.from_pylist(list(unique.values()), schema=REVIEWS)
    except _RowError as error:
        raise TagstreamError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        why = f"{_why(error)}; expected {_EXPECTED[tool]}"
        raise TagstreamError(f"{path} is no {tool} file of reviews: {why}") from error
    if not rows:
        raise TagstreamError(f"{path} has no decision; expected a verdict of {', '.join(VERDICTS)} for some label")
    _check_together(rows, path)
    return table


def write_image_id(image_id: int | str) -> str:
    """An image's id as a table for people has it: a text, which spreadsheets leave as it is."""
    return f"#{image_id}"


def run_told(path: str, tool: ReviewTool) -> str | None:
    """The run whose images a readable file is about; None where the tool does not keep it."""
    return str(json.loads(Path(path).read_text("utf-8"))["run"]) if tool == "page" else None


def _read_page(path: Path) -> Iterator[Row]:
    """What the page of `pipeline.reviews.page` saves; `pages/review/decisions.js` writes it."""
    saved = json.loads(path.read_text("utf-8"))
    if (saved["kind"], type(saved["run"])) != (_PAGE_KIND, str):
        raise ValueError(f"it is of the kind {saved['kind']!r} and of run {saved['run']!r}")
    for decision in saved["decisions"]:
        told = {**_told("reviewer", saved.get("reviewer")), **_told("reviewed", decision.get("reviewed"))}
        yield {**told, **_row(decision["image_id"], decision["name"], decision["verdict"])}


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        # Spreadsheets write what the country's convention is.
        lines = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
        columns = lines.fieldnames or ()
        if missing := {"image_id", "name", "verdict"}.difference(columns):
            held = ", ".join(map(repr, columns)) or "none"
            raise ValueError(f"the columns {', '.join(sorted(missing))} are missing, it has {held}")
        for line in lines:
            verdict = (line["verdict"] or "").strip().lower()
            if not verdict:
                continue
            told = {**_told("reviewer", line.get("reviewer")), **_told("reviewed", line.get("reviewed"))}
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


def _row(image_id: Any, name: Any, verdict: Any) -> Row:
    return {"image_id": image_id, "label": name, "verdict": verdict}


def _told(name: str, value: Any) -> Row:
    text = "" if value is None else str(value).strip()
    return {name: text} if text else {}


def _person(completed_by: Any) -> Any:
    """Who annotated: Label Studio writes a number, or a person with an address."""
    return completed_by.get("email") or completed_by.get("id") if isinstance(completed_by, dict) else completed_by


def _why(error: BaseException) -> str:
    """What is wrong with a file, as part of a sentence."""
    if isinstance(error, KeyError):
        return f"something in it has no {error}"
    if isinstance(error, TypeError | AttributeError):
        return "it is built otherwise"
    if isinstance(error, json.JSONDecodeError | RecursionError):
        return f"it is no JSON ({one_line(error)})"
    return one_line(error)


def _check_together(rows: list[Row], path: str) -> None:
    """Raises TagstreamError where a person says at once that a label is true and that it is not."""
    said: dict[tuple[Any, ...], str] = {}
    for row in rows:
        verdict = "yes" if row["verdict"] == "added" else row["verdict"]
        decided = (row["image_id"], row["label"], row["reviewer"], row["reviewed"])
        if (before := said.setdefault(decided, verdict)) != verdict:
            what = f"{before} and {verdict} of {printable(row['label'])} on image {row['image_id']}"
            raise TagstreamError(
                f"{path}: {printable(row['reviewer'])} says {what}; expected one verdict of each person"
            )


def _checked(row: Row) -> Row:
    """A row with its image_id as a number. Raises _RowError where it is no decision."""
    image = printable(str(row["image_id"])).strip()
    written = _IMAGE_ID.fullmatch(image) if type(row["image_id"]) in (int, str) else None
    if written is None or int(written[1]) not in _INT64:
        raise _RowError(
            f"a verdict has the image_id {image!r}; expected a whole number of up to 19 digits as `tagstream sample` "
            "wrote it; a spreadsheet rounds such numbers unless their column is read as text"
        )
    if not isinstance(row["label"], str) or not row["label"].strip():
        raise _RowError(f"a verdict on image {image} has no name; expected that of a label")
    if row["verdict"] not in VERDICTS:
        raise _RowError(
            f"the verdict of {printable(row['label'])} on image {image} is {row['verdict']!r}; expected one of "
            f"{', '.join(VERDICTS)}"
        )
    if not row["reviewer"]:
        raise _RowError("it does not say who reviewed; name that person with --reviewer")
    return {**row, "image_id": int(written[1])}
