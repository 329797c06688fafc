"""A report from request to file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.analysis.comparison import compare_runs
from pipeline.analysis.recall import RunAnalysis
from pipeline.analysis.reviewed import analyse_reviews
from pipeline.analysis.truth import NamedTruth, TruthKind, name_labels
from pipeline.catalog.connection import Connection
from pipeline.catalog.label_choice import OPEN_LABELS, LabelChoice, labels_each, shown_ranking
from pipeline.catalog.result_file import find_result_file
from pipeline.catalog.scope import check_condition, narrow_to_run
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.naming.vocabulary import Vocabulary
from pipeline.pages.render import render_page
from pipeline.pictures.thumbnails import Thumbnail, make_thumbnails
from pipeline.report.charts import (
    Chart,
    Commands,
    comparison_charts,
    reviews_chart,
    run_charts,
    truth_charts,
)
from pipeline.report.gallery import Gallery, draw_gallery, image_data
from pipeline.report.head import describe_run
from pipeline.report.hidden_names import HiddenNames
from pipeline.settings.labelling import full_labelling
from pipeline.settings.toml_file import check_range
from pipeline.store.run_choice import choose_run
from pipeline.store.store import Store
from schemas import LABELLED, RunRecord

DEFAULT_SAMPLE = 500
DEFAULT_MAX_MB = 50
_COMPARED_K = 10
# A report may be made beside a job that labels.
_MEMORY_LIMIT = "1GB"
_EDGE_PX = 256
_MIN_PICTURE_BYTES = 1000
# What stands around a picture, and why there is none.
_BYTES_BESIDE_PICTURE = 200
_BASE64 = 4 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRequest:
    """One invocation of `tagstream report`."""

    store: str
    out: str
    run: str | None = None
    """The run to show, as `choose_run` takes it; None takes the latest."""
    compare: str | None = None
    """Another run that the run is compared with, as `choose_run` takes it; None compares nothing."""
    sample: int = DEFAULT_SAMPLE
    """How many labelled images to draw. Up to a tenth as many rejected samples come beside them, or 20."""
    seed: int = 0
    where: str | None = None
    """Condition over the columns of `images` that shown pictures meet; None shows any."""
    truth: TruthKind = "labels"
    """Where it is reviews, pictures are those of reviewed images."""
    vocabulary: Vocabulary
    vocabulary_path: str | None = None
    """Path of the vocabulary's file, for the commands that give the numbers again; None for the one that comes
    along."""
    labels: LabelChoice = OPEN_LABELS
    usd_per_hour: float | None = None
    max_mb: float = DEFAULT_MAX_MB
    """Largest size of the file in MB (a million bytes)."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_range("usd_per_hour", self.usd_per_hour or 0, 0)
        check_range("max_mb", self.max_mb, 0)


class Report:
    """Makes a report, and knows how far it is.

    Attributes: `phase`; `n_tried` of `n_drawn` pictures; `run`; and when it is written, `n_pictures`, `problems` (why
    the others have none, with their number), `left_out` (a sentence about sensitive names, None where there are none)
    and `n_bytes` of the file.
    """

    def __init__(self, request: ReportRequest) -> None:
        self.request = request
        self.phase = "opening the store"
        self.run = request.run or ""
        self.n_drawn = self.n_tried = self.n_pictures = self.n_bytes = 0
        self.problems: Counter[str] = Counter()
        self.left_out: str | None = None

    def write(self) -> None:
        """Does it. Raises TagstreamError where it cannot be done; no file is written then."""
        request = self.request
        file = find_result_file(request.out, request.store, overwrite=request.overwrite)
        page = self._page()
        with file.open() as stream:
            stream.write(page)
        self.n_bytes = len(page)

    def _page(self) -> bytes:
        request = self.request
        connection = open_store(request.store, request.vocabulary, labels=request.labels, memory_limit=_MEMORY_LIMIT)
        store = Store(request.store)
        record = choose_run(store, request.run).record
        self.run = record.run
        other = None if request.compare is None else choose_run(store, request.compare).record
        if other is not None and other.run == self.run:
            raise TagstreamError(f"--compare names the run itself ({self.run}); give another run of {request.store}")
        if request.where is not None:
            # What follows takes long.
            check_condition(connection, request.where)
        self.phase = "asking the store"
        head = describe_run(connection, record, store.run(self.run).read_jobs(), request.usd_per_hour)
        rankings = [shown_ranking(connection, held.run, held.labelling) for held in (record, other) if held]
        k = min([_COMPARED_K, *(labels_each(connection, held.run, held.labelling) for held in (record, other) if held)])
        charts, named = self._charts(connection, record, other, k)
        self.phase = "drawing images"
        scope = narrow_to_run(connection, self.run)
        where = self._shown(record.run)
        gallery = draw_gallery(scope, named, None if other is None else other.run, where, request.sample, request.seed)
        gallery = self._leave_out(connection, gallery, [held.run for held in (record, other) if held])
        data = {
            "head": {
                **head,
                "store": request.store,
                "vocabulary": request.vocabulary.version,
                "leftOut": self.left_out,
            },
            "compare": other and {"run": other.run, "ranking": rankings[-1].name, "k": k},
            "gallery": {
                "where": where,
                "seed": request.seed,
                "labelled": gallery.n_labelled,
                "rejected": gallery.n_rejected,
            },
            "charts": [asdict(chart) for chart in charts],
        }
        return self._with_pictures(record, data, gallery)

    def _leave_out(self, connection: Connection, gallery: Gallery, runs: list[str]) -> Gallery:
        """The gallery without sensitive names."""
        hidden = HiddenNames(self.request.vocabulary)
        hidden.find(connection, runs)
        shown = [hidden.leave_out(image) for image in gallery.images]
        self.left_out = hidden.sentence
        return replace(gallery, images=shown)

    def _shown(self, run: str) -> str | None:
        """The condition of shown pictures: where reviews are the truth, only reviewed images have any."""
        if self.request.truth != "reviews":
            return self.request.where
        is_reviewed = f"image_id IN (SELECT image_id FROM reviews WHERE run = '{run}')"
        return is_reviewed if self.request.where is None else f"({self.request.where}\n) AND {is_reviewed}"

    def _charts(
        self, connection: Connection, record: RunRecord, other: RunRecord | None, k: int
    ) -> tuple[list[Chart], NamedTruth]:
        """All charts, and the truth of the report's run."""
        request = self.request
        top_k = labels_each(connection, record.run, record.labelling)
        ranking = shown_ranking(connection, record.run, record.labelling)
        commands = Commands(request.store, request.vocabulary_path, request.labels)
        sensitive = request.vocabulary.sensitive
        charts = run_charts(connection, commands, record.run, ranking, sensitive)
        if other is not None:
            comparison = compare_runs(connection, other.run, record.run, k, request.truth)
            charts = comparison_charts(comparison, commands, request.truth, sensitive) + charts
        # After the comparison, whose names and truth they take the place of.
        if request.truth == "reviews":
            reviewed = analyse_reviews(connection, record.run)
            return [*charts, reviews_chart(reviewed, commands, top_k)], reviewed.reviews.named
        named = name_labels(connection, [record.run], request.truth)
        if named.n_images:
            charts += truth_charts(RunAnalysis(named, ranking), commands, top_k, sensitive)
        return charts, named

    def _with_pictures(self, record: RunRecord, data: dict[str, Any], gallery: Gallery) -> bytes:
        """The page, with as much for each picture as its size allows."""

        labelling = full_labelling(record.labelling)
        # As the model saw it, or the squares that it saw would lie elsewhere.
        honour_exif = labelling.get("honour_exif", True)

        def render(thumbnails: dict[int, Thumbnail]) -> bytes:
            images = [
                image_data(image, thumbnails.get(image["image_id"]), labelling["views"]) for image in gallery.images
            ]
            page = render_page(
                "report", f"{data['head']['title']} - tagstream", {**data, "images": images}, ["d3", "plot"]
            )
            return page.encode()

        wanted = [image for image in gallery.images if image["status"] == LABELLED]
        max_bytes = int(self.request.max_mb * 1e6)
        left_each = ((max_bytes - len(render({}))) / max(1, len(wanted)) - _BYTES_BESIDE_PICTURE) / _BASE64
        if left_each < _MIN_PICTURE_BYTES:
            raise TagstreamError(
                f"{len(gallery.images):,} images do not fit into {self.request.max_mb:g} MB; take a smaller --sample, "
                "or a larger --max-mb"
            )
        self.phase, self.n_drawn = "making pictures", len(wanted)
        thumbnails = make_thumbnails(record, wanted, _EDGE_PX, int(left_each), self._count_try, honour_exif=honour_exif)
        self.problems = Counter(made.problem for made in thumbnails.values() if made.problem)
        self.n_pictures = len(thumbnails) - self.problems.total()
        return render(thumbnails)

    def _count_try(self) -> None:
        self.n_tried += 1
