"""The image that is explained, and how it was or would be labelled: a file, or an image of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.demo_scenes import describe_strangers, is_demo_folder, is_scene
from model.fingerprint import fingerprint_folder
from model.images.opening import MAX_IMAGE_PIXELS, ImageDecodeError, allow_image_pixels
from model.images.preprocessing import ImagePreprocessor, fit_decoding
from model.images.views import most_squares
from pipeline.catalog.connection import Connection, query_rows
from pipeline.catalog.views import open_store
from pipeline.errors import TagstreamError
from pipeline.settings.labelling import LabelSettings, full_labelling, resolve_dtype
from pipeline.settings.toml_file import read_settings
from pipeline.sources.originals import original_address, read_originals
from pipeline.storage.files import open_filesystem, storage_errors
from pipeline.storage.model_cache import fetch_model, load_recognizer
from pipeline.store.run_choice import choose_run
from pipeline.store.store import Store
from schemas import LABELLED, RunRecord

if TYPE_CHECKING:
    from model import Explanation, Recognizer

_N_NAMED = 5
DEFAULT_TOP_K = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """An image with what decides its labels."""

    address: str
    """Path or URL of the image, `SHARD#KEY` within a shard: for people."""
    data: bytes
    model: str
    """Folder, hub id or URL of the model."""
    settings: LabelSettings
    run: str | None = None
    """Name of the run whose image it is; None for a file."""


def find_file(url: str, model: str, top_k: int | None) -> Subject:
    """An image file, local or remote. Raises TagstreamError where it cannot be read."""
    with storage_errors(f"read {url}"):
        filesystem, path = open_filesystem(url)
        if not filesystem.isfile(path):
            raise TagstreamError(f"there is no file {url}; for the key of an image in a store give --store")
        data = filesystem.cat_file(path)
    return Subject(address=url, data=data, model=model, settings=LabelSettings(top_k=top_k or DEFAULT_TOP_K))


def find_image(store_url: str, run: str | None, name: str, model: str | None, top_k: int | None) -> Subject:
    """An image of a run by its key or `SHARD#KEY`, read from the run's source.

    Args:
        run: as `choose_run` takes it; default the latest.
        model: default the run's; it has to be the same model.
        top_k: default the run's, as all other settings.

    Raises TagstreamError where there is no such image, or several, or it is not what was labelled any more.
    """
    connection = open_store(store_url)
    record = choose_run(Store(store_url), run).record
    row = _find_row(connection, record, name)
    settings = _settings_of(record, top_k, (row["width"] or 0) * (row["height"] or 0))
    model = model or record.model
    _check_same_model(record, model)
    address = original_address(record, row)
    (original,) = read_originals(record, [row])
    if original.data is None:
        raise TagstreamError(f"{address} cannot be explained: {original.problem}")
    return Subject(address=address, data=original.data, model=model, settings=settings, run=record.run)


def explain(subject: Subject) -> Explanation:
    """Labels the image as its settings say, and looks up what each label looked at."""
    settings = subject.settings
    recognizer = _load(subject.model, settings)
    allow_image_pixels(settings.max_image_pixels)
    try:
        return recognizer.explain(
            subject.data,
            settings.top_k,
            settings.ranking,
            max_label_tokens=settings.max_label_tokens,
            image_tokens=settings.image_tokens,
            views=settings.views,
            view_tokens=settings.view_tokens,
        )
    except ImageDecodeError as error:
        raise TagstreamError(f"{subject.address} is no image that can be labelled: {error}") from error
    except ValueError as error:
        raise TagstreamError(f"{subject.address} cannot be labelled by {subject.model}: {error}") from error


def find_strangeness(subject: Subject) -> str | None:
    """What to tell of an image that is none of the scenes which the demo model knows; None for any other model."""
    folder = Path(fetch_model(subject.model))
    if not is_demo_folder(folder):
        return None
    preprocessor = fit_decoding(ImagePreprocessor.from_pretrained(folder), subject.settings)
    views = preprocessor.views(subject.data, most_squares(subject.settings.views))
    return describe_strangers(int(not any(is_scene(view) for view in views)), 1)


def _load(model: str, settings: LabelSettings) -> Recognizer:
    import torch

    from model import Recognizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_recognizer(model, device, resolve_dtype(settings.dtype, device))
    return Recognizer(loaded.module, fit_decoding(loaded.preprocessor, settings), loaded.tokenizer)


def _find_row(connection: Connection, record: RunRecord, name: str) -> dict[str, Any]:
    rows = query_rows(connection, "images_called", {"run": record.run, "name": name})
    if not rows:
        raise TagstreamError(f"run {record.run} has no image with the key {name}")
    # A shard has a key once: what comes after it under the same key is rejected.
    labelled = [row for row in rows if row["status"] == LABELLED]
    if not labelled:
        raise TagstreamError(f"{name} was rejected and has no labels ({rows[0]['error']}: {rows[0]['message']})")
    if len(labelled) > 1:
        known = ", ".join(f"{row['shard']}#{row['key']}" for row in labelled[:_N_NAMED])
        more = ", ..." if len(labelled) > _N_NAMED else ""
        raise TagstreamError(
            f"{len(labelled)} images of run {record.run} have the key {name}; give SHARD#KEY: {known}{more}"
        )
    return labelled[0]


def _settings_of(record: RunRecord, top_k: int | None, n_pixels: int) -> LabelSettings:
    """The run's settings. An image may be larger than others may be: it was labelled."""
    settings = read_settings(
        LabelSettings,
        {**full_labelling(record.labelling), "max_image_pixels": max(MAX_IMAGE_PIXELS, n_pixels)},
        f"the record of run {record.run}",
    )
    if settings.sampling != "one_shot":
        raise TagstreamError(
            f"run {record.run} was labelled with sampling {settings.sampling}, whose labels see one another; "
            "expected a run with one_shot"
        )
    return settings if top_k is None else replace(settings, top_k=top_k)


def _check_same_model(record: RunRecord, model: str) -> None:
    fingerprint = fingerprint_folder(fetch_model(model))
    if fingerprint != record.model_fingerprint:
        raise TagstreamError(
            f"the model {model} has the fingerprint {fingerprint[:12]}, run {record.run} was labelled by "
            f"{record.model} with {record.model_fingerprint[:12]}; give that model with --model"
        )
