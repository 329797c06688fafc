"""From a run to images for review, as a folder or a page, and from what people say of them back into the store."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipeline.catalog.connection import Connection, add_table, query_rows, read_sql
from pipeline.catalog.result_file import find_result_file
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.export.job import Export, ExportRequest, Format
from pipeline.export.selection import Selection, select_images
from pipeline.naming.vocabulary import Vocabulary
from pipeline.reviews.drawing import Draw, draw_images
from pipeline.reviews.files import COLUMNS, MISSING_FIELD, ReviewTool, read_reviews, run_told, write_image_id
from pipeline.reviews.page import ReviewImage, write_review_page
from pipeline.reviews.written import WrittenSample
from pipeline.store.reviews import RunReviews
from pipeline.store.run_choice import choose_run
from pipeline.store.store import Store
from schemas import SampleRecord

REVIEW_FILE = "review.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """One invocation of `tagstream sample`."""

    store: str
    run: str
    draw: Draw
    to: ReviewTool
    out: str
    """The folder to make; of a page the file."""
    vocabulary: Vocabulary
    images: bool = True
    """Copy the encoded images too. A page has pictures of them in any case."""


def sample_for_review(request: SampleRequest) -> tuple[SampleRecord, WrittenSample]:
    """Draws images, writes them for a tool, and keeps the sample in the store.

    Raises TagstreamError where nothing can be drawn or written; the store is as before then.
    """
    connection = open_store(request.store, request.vocabulary)
    record, drawn = draw_images(connection, request.run, request.draw)
    ids = ", ".join(str(image_id) for image_id in drawn.column("image_id").to_pylist())
    write = _write_page if request.to == "page" else _write_folder
    written = write(connection, request, record, Selection(where=f"image_id IN ({ids})"))
    RunReviews(Store(request.store).run(request.run)).add_sample(record, drawn)
    return record, written


def _write_page(
    connection: Connection, request: SampleRequest, sample: SampleRecord, selection: Selection
) -> WrittenSample:
    file = find_result_file(request.out, request.store, overwrite=None)
    against = query_rows(connection, "other_names", {"run": request.draw.against}) if request.draw.against else []
    others = {row["image_id"]: row["names"] for row in against}
    run = choose_run(Store(request.store), request.run).record
    rows = list(select_images(connection, request.run, selection).rows())
    return write_review_page(file, run, sample, [_shown(row, others.get(row["image_id"], ())) for row in rows])


def _shown(row: dict[str, Any], other_names: Sequence[str]) -> ReviewImage:
    """An image with the names that people judge: those of the run, then those that the other run alone lists."""
    own = [label["name"] for label in row["labels"]]
    return ReviewImage(row, [*own, *(name for name in other_names if name not in own)])


def _write_folder(
    connection: Connection, request: SampleRequest, sample: SampleRecord, selection: Selection
) -> WrittenSample:
    form = cast(Format, request.to)
    export = Export(
        ExportRequest(
            store=request.store,
            to=form,
            out=request.out,
            run=request.run,
            selection=selection,
            vocabulary=request.vocabulary,
            images=request.images,
            keeps_sensitive=True,
        )
    )
    export.write(connection)
    if request.to == "csv":
        _write_review_file(Path(request.out))
    elif request.to == "label-studio":
        _ask_for_missing(Path(request.out) / "config.xml")
    return WrittenSample(n_images=export.n_images, n_labels=export.n_labels, notes=export.notes)


def _write_review_file(folder: Path) -> None:
    """Beside the exported tables the one that a person fills in: a row a label, in the order of images and ranks."""
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        files = {row["image_id"]: row["file"] for row in csv.DictReader(file)}
    with (
        (folder / "labels.csv").open(encoding="utf-8", newline="") as file,
        (folder / REVIEW_FILE).open("w", encoding="utf-8", newline="") as review,
    ):
        rows = csv.DictWriter(review, COLUMNS, extrasaction="ignore", lineterminator="\r\n")
        rows.writeheader()
        for row in csv.DictReader(file):
            rows.writerow({**row, "image_id": write_image_id(row["image_id"]), "file": files[row["image_id"]]})


def _ask_for_missing(config: Path) -> None:
    """Adds a field for labels that no image of the sample has: those of the choices can be chosen alone."""
    field = f'  <TextArea name="{MISSING_FIELD}" toName="image" maxSubmissions="50" placeholder="What is missing"/>\n'
    view = config.read_text("utf-8").removesuffix("</View>\n")
    config.write_text(f"{view}{field}</View>\n", "utf-8")


@dataclass(frozen=True, slots=True)
class AddedReviews:
    """What became of a file of reviews."""

    run: str
    n_decisions: int
    """Decisions in the file."""
    n_new: int
    """Those that the run did not have."""
    n_undrawn: int
    """Images of the file that no sample of the run has: what is said of them counts in no estimate."""


def import_reviews(store: str, run: str | None, path: str, tool: ReviewTool, reviewer: str) -> AddedReviews:
    """Adds to a run what people decided and it does not have yet.

    Raises TagstreamError where the file is no such file, is of another run, or speaks of an image that the run has not.
    """
    reviews = read_reviews(path, tool, reviewer)
    told = run_told(path, tool)
    if run and told and (named := choose_run(Store(store), run).run) != told:
        raise TagstreamError(f"{path} is of run {told}, not of {named}; name that with --run, or leave it out")
    connection = open_store(store)
    add_table(connection, "read_reviews", reviews)
    chosen = _find_run(connection, store, run or told, path)
    (images,) = query_rows(connection, "review_images", {"run": chosen})
    if n_foreign := images["n_images"] - images["n_known"]:
        raise TagstreamError(
            f"{n_foreign:,} of {images['n_images']:,} reviewed images in {path} are none of run {chosen}; name "
            "the run that they were drawn from with --run"
        )
    new = connection.sql(read_sql("new_reviews"), params={"run": chosen}).to_arrow_table()
    if new.num_rows:
        RunReviews(Store(store).run(chosen)).add_reviews(new)
    return AddedReviews(chosen, reviews.num_rows, new.num_rows, images["n_images"] - images["n_drawn"])


def _find_run(connection: Connection, store: str, named: str | None, path: str) -> str:
    """The run that was named, the only one, or the only one that the reviewed images were drawn from.

    Raises TagstreamError where that leaves several: runs of one source have the same images.
    """
    names = Store(store).run_names()
    if named or len(names) == 1:
        return choose_run(Store(store), named).run
    drawn_from = [row["run"] for row in query_rows(connection, "review_runs", {})]
    if len(drawn_from) != 1:
        images = f"were drawn from {', '.join(drawn_from)}" if drawn_from else "were drawn from none"
        raise TagstreamError(
            f"{path} does not say of which run it is, and its images {images}; name the run with --run"
        )
    return str(drawn_from[0])
