"""Brings a model's folder onto a node's disk, once per node, and loads it from there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from safetensors import SafetensorError

from model import folder as model_folder
from model.fetching.files import CONFIG_FILE, check_config, check_files, check_folder, is_model_file
from model.fetching.hub_name import HubName
from model.fetching.pinned import PinnedModel
from model.fetching.refusal import ModelUnusableError
from model.fetching.space import check_space
from model.folder import is_hub_model
from model.hub.options import HubOptions
from model.hub.view import WholeImages
from model.images.preprocessing import ImagePreprocessor
from pipeline.errors import ModelError, TagstreamError
from pipeline.storage.files import open_filesystem, storage_errors
from pipeline.text import one_line

if TYPE_CHECKING:
    from model.nxtp.recognizer import Recognizer
    from model.tagger import ImageCost, Tagger

_PAGE_OF_THE_HUB = re.compile(r"https://(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)")
_MAX_NAME_CHARACTERS = 60


def pin_model(model: str) -> PinnedModel:
    """A model under a name for processes elsewhere and for later.

    A folder's absolute path, a URL as it is, `org/name@commit` for a model of the hub. No weights are read or fetched.
    Raises ModelError where the model cannot be had, or is of a kind that cannot label.
    """
    if "://" not in model:
        _hide_download_bars(model)
        with _as_model_error():
            return model_folder.pin_model(model)
    page = _PAGE_OF_THE_HUB.match(model)
    if page:
        raise ModelError(f"{model} is a page; expected the model's name, --model {page[1]}")
    remote = _RemoteModel(model)
    remote.check()
    return PinnedModel(model, remote.missing_bytes)


def fetch_model(model: str) -> str:
    """The local folder of a model.

    A model of the hub is downloaded into the hub's cache. A URL (`s3://...`) is copied into the node's cache
    (`TAGSTREAM_CACHE`, default ~/.cache/tagstream) under a name made of its files' versions; processes of a node that
    ask at the same time wait for one download. Raises ModelError as `pin_model` does.
    """
    if "://" not in model:
        _hide_download_bars(model)
        with _as_model_error():
            return str(model_folder.resolve_folder(model))
    return str(_RemoteModel(model).fetch())


def fetch_recognizer(model: str) -> str:
    """The local folder of an NXTP recognizer, as by `fetch_model`. Raises ModelError also where it is another model."""
    folder = fetch_model(model)
    if is_hub_model(folder):
        raise ModelError(
            f"{model} is a vision-language model of the hub, which label and score take; explain, export-onnx, train "
            "and truncate take NXTP recognizers (tagstream import-nxtp, tagstream train)"
        )
    return folder


def load_recognizer(model: str, device: str, dtype: str | None = None) -> Recognizer:
    """An NXTP recognizer, fetched as by `fetch_recognizer`, without a progress bar.

    Args:
        device: torch's name of the device that it computes on.
        dtype: as of `Recognizer.from_pretrained`.

    Raises ModelError where there is no such recognizer, or its files do not fit together.
    """
    from transformers.utils import logging

    from model.nxtp.recognizer import Recognizer

    logging.disable_progress_bar()
    folder = fetch_recognizer(model)
    with _as_sentence(model, folder):
        return Recognizer.from_pretrained(folder, device=device, dtype=dtype)


def load_tagger(model: str, device: str, dtype: str | None, hub: HubOptions) -> Tagger:
    """The tagger of a model of any kind, fetched as by `fetch_model`, without a progress bar.

    Args:
        device, dtype: as of `load_recognizer`.
        hub: how a vision-language model of the hub is asked.

    Raises ModelError where there is no model, or none that can be asked so.
    """
    from transformers.utils import logging

    from model import tagger

    logging.disable_progress_bar()
    folder = fetch_model(model)
    with _as_sentence(model, folder):
        return tagger.load_tagger(folder, device, dtype, hub)


def load_preprocessor(model: str, hub: HubOptions) -> ImagePreprocessor | WholeImages:
    """What decodes images for the tagger of a model, as its `preprocessor`. Loads no weights and no torch.

    Raises ModelError where there is no model.
    """
    folder = fetch_model(model)
    if is_hub_model(folder):
        return WholeImages(max_view_pixels=hub.max_view_pixels)
    return ImagePreprocessor.from_pretrained(folder)


def check_names(model: str, hub: HubOptions, names: Sequence[tuple[str, str]]) -> None:
    """Raises TagstreamError where a name cannot be a label of a model, of which no weights are loaded.

    Args:
        hub: how a vision-language model of the hub is asked.
        names: each with the list that it stands in.
    """
    from model.tagger import load_name_tokens

    folder = fetch_model(model)
    with _as_sentence(model, folder):
        tokens_of = load_name_tokens(folder, hub)
    problems = []
    for name, of_list in names:
        try:
            tokens_of(name)
        except ValueError as error:
            problems.append(f"{one_line(error)} (list {of_list})")
    if problems:
        more = f"; {len(problems):,} of {len(names):,} names cannot be labels" if len(problems) > 1 else ""
        raise TagstreamError(f"{problems[0]}{more}")


def measure_image_cost(model: str, hub: HubOptions) -> ImageCost:
    """What images cost a model of the hub.

    Raises ModelError where its processor cannot be had, or it cannot be asked so. No weights are loaded.
    """
    from model import tagger

    folder = fetch_model(model)
    with _as_sentence(model, folder):
        return tagger.measure_image_cost(folder, hub)


def resolve_image_tokens(model: str, image_tokens: int, name: str = "image_tokens") -> int:
    """The setting as the labels of an NXTP recognizer depend on it: 0 where it is all that the model has.

    Args:
        name: of the setting.

    Raises TagstreamError where it is more. No weights are loaded.
    """
    from model import tagger

    try:
        return tagger.resolve_image_tokens(fetch_model(model), image_tokens, name)
    except ValueError as error:
        raise TagstreamError(f"{model} cannot label so: {error}") from error


def model_name(model: str) -> str:
    """A short name for a model, as it appears in a run's name: ASCII letters, digits, and behind them `.`, `_`, `-`."""
    hub_name = HubName.parse(model)
    path = hub_name.repository if hub_name and not Path(model).exists() else model
    name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(path.rstrip("/")).name)
    return name.lstrip("._-")[:_MAX_NAME_CHARACTERS] or "model"


def cache_folder() -> Path:
    """Where this node keeps models: `TAGSTREAM_CACHE`, default ~/.cache/tagstream."""
    return Path(os.environ.get("TAGSTREAM_CACHE") or Path.home() / ".cache" / "tagstream") / "models"


class _RemoteModel:
    """A model in a folder of an object store, as its files are at the moment."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._named():
            self._filesystem, path = open_filesystem(url)
            found = self._filesystem.find(path, maxdepth=1, detail=True).values()
        self._files: dict[str, dict[str, Any]] = {PurePosixPath(info["name"]).name: info for info in found}

    def check(self) -> None:
        """Raises ModelError where it is no model that can label; reads its configuration."""
        with self._named(), _as_model_error():
            check_files(self.url, self._files)
            check_config(self.url, self._filesystem.cat_file(self._files[CONFIG_FILE]["name"]), self._files)

    @property
    def missing_bytes(self) -> int:
        """Bytes that this node's cache does not have."""
        return 0 if self._folder.is_dir() else sum(info["size"] for info in self._listed.values())

    def fetch(self) -> Path:
        """Its folder in this node's cache, copied once for each version of its files."""
        self.check()
        folder = self._folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self._named(), FileLock(str(folder) + ".lock"), _as_model_error():
            if not folder.is_dir():
                check_space(folder.parent, self.url, self.missing_bytes, "TAGSTREAM_CACHE")
                # Downloaded beside and renamed: a folder that exists is whole.
                partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
                try:
                    partial.mkdir()
                    for name, info in self._listed.items():
                        self._filesystem.get_file(info["name"], str(partial / name))
                    check_folder(partial, self.url)
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        return folder

    @property
    def _listed(self) -> dict[str, dict[str, Any]]:
        return {name: info for name, info in self._files.items() if is_model_file(name)}

    @property
    def _folder(self) -> Path:
        """Where its files, in the versions that they have, are kept."""
        versions = sorted((info["name"], info["size"], _version(info)) for info in self._listed.values())
        digest = hashlib.sha256(repr(versions).encode()).hexdigest()[:16]
        return cache_folder() / f"{model_name(self.url)}-{digest}"

    def _named(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors(f"read the model {self.url}")


def _hide_download_bars(model: str) -> None:
    """The bars of the hub's downloads would break the line on which a job shows its progress."""
    if HubName.parse(model):
        # Takes a while to import.
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()


@contextlib.contextmanager
def _as_sentence(model: str, folder: str) -> Iterator[None]:
    """What a model raises where its files do not fit together, or it cannot be asked for labels, as ModelError."""
    try:
        yield
    except SafetensorError as error:
        reason = one_line(error)
        raise ModelError(f"the weights of {model} cannot be read ({reason}); copy or download them again") from error
    except (ImportError, ValueError, NotImplementedError) as error:
        if is_hub_model(folder):
            raise ModelError(f"{model} cannot be asked for labels: {one_line(error)}") from error
        if not isinstance(error, ValueError):
            raise
        raise ModelError(f"{model} cannot be loaded: {one_line(error)}") from error


@contextlib.contextmanager
def _as_model_error() -> Iterator[None]:
    try:
        yield
    except ModelUnusableError as error:
        raise ModelError(str(error)) from error


def _version(info: dict[str, Any]) -> str:
    """What changes when a listed file does: the object store's etag, elsewhere the time it was written."""
    known = (info.get(name) for name in ("ETag", "etag", "LastModified", "mtime"))
    return str(next((value for value in known if value), ""))
