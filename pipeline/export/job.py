"""An export from request to folder: the folder appears when all is written, or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pipeline.catalog.connection import Connection
from pipeline.catalog.label_choice import OPEN_LABELS, LabelChoice, shown_ranking
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.export.coco import write_coco
from pipeline.export.csv_tables import write_csv
from pipeline.export.fiftyone import write_fiftyone
from pipeline.export.hugging_face import write_hugging_face
from pipeline.export.image import DATA_FOLDER, ExportedImage, Origin
from pipeline.export.label_studio import write_label_studio
from pipeline.export.published_names import PublishedNames
from pipeline.export.selection import Selection, select_images
from pipeline.naming.thresholds import Thresholds
from pipeline.naming.vocabulary import Vocabulary
from pipeline.sources.originals import clean_file_name, original_address, read_originals
from pipeline.storage.files import open_filesystem, storage_errors
from pipeline.store.run_choice import choose_run
from pipeline.store.store import Store
from pipeline.text import counted
from schemas import RunRecord

Format = Literal["coco", "fiftyone", "label-studio", "hf", "csv"]
WRITERS: dict[Format, Callable[[Path, Iterable[ExportedImage], Origin], None]] = {
    "coco": write_coco,
    "fiftyone": write_fiftyone,
    "label-studio": write_label_studio,
    "hf": write_hugging_face,
    "csv": write_csv,
}
# Formats that hold images in their own files.
_HOLDING = frozenset({"hf"})
_N_NAMED = 5
_FROM_ROW = {field.name for field in fields(ExportedImage)} - {"original", "file", "data"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """One invocation of `tagstream export`."""

    store: str
    to: Format
    out: str
    run: str | None = None
    """The run to export, as `choose_run` takes it; None takes the latest."""
    selection: Selection = field(default_factory=Selection)
    vocabulary: Vocabulary
    labels: LabelChoice = OPEN_LABELS
    thresholds: Thresholds | None = None
    """Thresholds that exported labels have to reach; None exports all labels."""
    images: bool = False
    """Copy the encoded images too; those whose original is gone are left out."""
    language: str | None = None
    """Language of the vocabulary's `display` in which names are written; None writes the names themselves."""
    keeps_sensitive: bool = False
    """Write names that the vocabulary calls sensitive, too: who reviews labels sees all of them."""


class Export:
    """Writes a run's images and labels in a tool's format, and knows how far it is.

    Attributes: `run`; `n_chosen` images; `n_images` and `n_labels` that are written.
    """

    def __init__(self, request: ExportRequest) -> None:
        self.request = request
        self.run = request.run
        self.n_chosen = self.n_images = self.n_labels = 0
        self._names = PublishedNames(request.vocabulary, request.language, request.keeps_sensitive)
        self._left_out: Counter[str] = Counter()
        self._named: list[str] = []

    def write(self, connection: Connection | None = None) -> None:
        """Does it. Raises TagstreamError where it cannot be done; the folder is not there then.

        Args:
            connection: the store as the request has it opened, which is narrowed to the run; None opens it.
        """
        request = self.request
        store = Store(request.store)
        out = _new_folder(request.out, store)
        if connection is None:
            connection = open_store(request.store, request.vocabulary, request.thresholds, labels=request.labels)
        record = choose_run(store, request.run).record
        self.run = record.run
        if request.labels.shows_listed:
            shown_ranking(connection, record.run, record.labelling)
        else:
            request.selection.check_ranking(record)
        confident = request.thresholds is not None
        selected = select_images(connection, self.run, request.selection, confident=confident)
        self.n_chosen, rows = selected.n_images, selected.rows()
        temporary = out.parent / f".{out.name[:100]}.{uuid.uuid4().hex}.tmp"
        origin = Origin(
            run=self.run, vocabulary=request.vocabulary.version, folder=out.name, labels=request.labels.kinds
        )
        try:
            with storage_errors(f"write the export {request.out}"):
                temporary.mkdir(parents=True)
                images = self._with_files(record, rows, temporary) if request.images else self._referenced(record, rows)
                WRITERS[request.to](temporary, self._counted(images), origin)
                self._check_any_left()
                _new_folder(request.out, store)
                temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @property
    def notes(self) -> list[str]:
        """What the user should know of what was left out."""
        n_sensitive = self._names.n_sensitive
        hidden = [f"{counted(n_sensitive, 'label')} with a sensitive name are left out"] if n_sensitive else []
        return [*hidden, *self._missing]

    @property
    def _missing(self) -> list[str]:
        """The images that are left out, in a sentence; nothing without any."""
        if not self._left_out:
            return []
        n_left_out = self._left_out.total()
        reasons = "; ".join(f"{n:,} x {problem}" for problem, n in self._left_out.most_common(_N_NAMED))
        named = ", ".join(self._named) + (", ..." if n_left_out > len(self._named) else "")
        return [f"{n_left_out:,} images are left out: {reasons} ({named})"]

    def _counted(self, images: Iterable[ExportedImage]) -> Iterator[ExportedImage]:
        for image in images:
            yield image
            self.n_images += 1
            self.n_labels += len(image.labels)

    def _with_files(
        self, record: RunRecord, rows: Iterable[Mapping[str, Any]], folder: Path
    ) -> Iterator[ExportedImage]:
        """Images whose originals are there, with a copy in the folder or in the format's own files."""
        is_held = self.request.to in _HOLDING
        if not is_held:
            (folder / DATA_FOLDER).mkdir()
        for original in read_originals(record, rows):
            row = original.image
            if original.data is None:
                self._left_out[original.problem or ""] += 1
                if len(self._named) < _N_NAMED:
                    self._named.append(original_address(record, row))
                continue
            name = clean_file_name(row, original.data)
            if not is_held:
                (folder / DATA_FOLDER / name).write_bytes(original.data)
            yield self._exported(record, row, file=name, data=original.data if is_held else None)

    def _referenced(self, record: RunRecord, rows: Iterable[Mapping[str, Any]]) -> Iterator[ExportedImage]:
        return (self._exported(record, row) for row in rows)

    def _exported(self, record: RunRecord, row: Mapping[str, Any], **copied: Any) -> ExportedImage:
        values = {name: value for name, value in row.items() if name in _FROM_ROW}
        values |= {
            "labels": self._names.publish(row["labels"]),
            "truth": None if row["truth"] is None else self._names.publish(row["truth"]),
        }
        return ExportedImage(**values, original=original_address(record, row), **copied)

    def _check_any_left(self) -> None:
        if not self.n_images:
            (note,) = self._missing
            raise TagstreamError(f"none of the {self.n_chosen:,} images could be copied: {note}")


def _new_folder(out: str, store: Store) -> Path:
    if "://" in out:
        raise TagstreamError(f"cannot export to {out}; expected a folder of this machine")
    # Absolute, so that `.` and `x/..` have a name too.
    path = Path(out).absolute()
    if path.exists() or path.is_symlink():
        raise TagstreamError(f"{out} exists; expected a folder that is not there yet")
    store.check_outside(out, *open_filesystem(str(path)))
    return path
