"""Models of the Hugging Face hub: found and checked before their weights are fetched, then fetched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from model.fetching.files import (
    CONFIG_FILE,
    MODEL_PATTERNS,
    SUBFOLDERS,
    check_config,
    check_files,
    check_folder,
    is_model_file,
)
from model.fetching.hub_name import HubFile, HubName
from model.fetching.hub_refusal import CACHE_VARIABLE, HUB_ERRORS, hub_cache, is_out_of_reach, refusal, why_not_in_cache
from model.fetching.pinned import PinnedModel
from model.fetching.refusal import IncompleteModelError, ModelUnusableError
from model.fetching.space import check_space

_LOG = logging.getLogger(__name__)
_ANSWER_TIMEOUT_S = 30.0


def pin(name: HubName) -> PinnedModel:
    """The name with the commit that its revision is now, once the model is known to be one that can label.

    Only its list of files and its config.json are fetched. Where the hub cannot be reached, the commit is that of the
    copy in the hub's cache on this machine. Raises ModelUnusableError.
    """
    if name.is_pinned and _find_cached(name):
        return PinnedModel(str(name))
    try:
        _, sizes = _look_up(name)
    except HUB_ERRORS as error:
        if is_out_of_reach(error):
            return _pin_cached(name, error)
        raise refusal(name, error) from error
    check_files(str(name), sizes)
    # Asked for by branch or tag, so that the cache knows later, without the hub, which commit that was.
    config = _fetch(name, CONFIG_FILE)
    pinned = replace(name, revision=config.parent.name)
    check_config(str(name), config.read_bytes(), sizes)
    missing = _missing_bytes(pinned, {file: size for file, size in sizes.items() if is_model_file(file)})
    return PinnedModel(str(pinned), missing)


def download(name: HubName) -> Path:
    """The folder of a model in the hub's cache on this machine; fetches what is missing there.

    The name's revision is a commit. Processes that ask at the same time wait for one download of each file. Files that
    are whole stay where a download breaks off. Raises ModelUnusableError.
    """
    try:
        folder = Path(
            snapshot_download(
                name.repository, revision=name.revision, allow_patterns=list(MODEL_PATTERNS), ignore_patterns=SUBFOLDERS
            )
        )
    except HUB_ERRORS as error:
        raise refusal(name, error) from error
    check_folder(folder, str(name))
    return folder


def fetch_file(wanted: HubFile) -> Path:
    """One file of any repository, in the hub's cache on this machine. Raises ModelUnusableError."""
    name, file = wanted.model, wanted.file
    try:
        pinned, sizes = _look_up(name)
    except HUB_ERRORS as error:
        cached = try_to_load_from_cache(name.repository, file, revision=name.revision)
        if is_out_of_reach(error) and isinstance(cached, str):
            return Path(cached)
        raise refusal(name, error) from error
    if file not in sizes:
        raise ModelUnusableError(f"{name} has no file {file}; its files are {', '.join(sorted(sizes))}")
    _missing_bytes(pinned, {file: sizes[file]})
    return _fetch(pinned, file)


def _look_up(name: HubName) -> tuple[HubName, dict[str, int]]:
    """The name with its commit, and the sizes in bytes of the files at the top of the repository."""
    info = HfApi().model_info(name.repository, revision=name.revision, files_metadata=True, timeout=_ANSWER_TIMEOUT_S)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}
    return replace(name, revision=info.sha), sizes


def _fetch(name: HubName, file: str) -> Path:
    """One file, in the folder of its commit."""
    try:
        return Path(hf_hub_download(name.repository, file, revision=name.revision))
    except HUB_ERRORS as error:
        raise refusal(name, error) from error


def _find_cached(name: HubName) -> Path | None:
    """The model's folder in the hub's cache on this machine; None where it is not there, or not whole.

    Raises ModelUnusableError where it is there and cannot label.
    """
    try:
        folder = Path(
            snapshot_download(
                name.repository,
                revision=name.revision,
                allow_patterns=list(MODEL_PATTERNS),
                ignore_patterns=SUBFOLDERS,
                local_files_only=True,
            )
        )
        check_folder(folder, str(name))
    except (LocalEntryNotFoundError, IncompleteModelError):
        return None
    return folder


def _pin_cached(name: HubName, error: BaseException) -> PinnedModel:
    folder = _find_cached(name)
    if folder is None:
        raise ModelUnusableError(why_not_in_cache(name, error)) from error
    pinned = replace(name, revision=folder.name)
    if not isinstance(error, OfflineModeIsEnabled):
        _LOG.warning("The hub cannot be reached, so that %s is taken from this machine's cache.", pinned)
    return PinnedModel(str(pinned))


def _missing_bytes(name: HubName, sizes: Mapping[str, int]) -> int:
    """Bytes of files that the hub's cache does not have. Raises ModelUnusableError where there is no room for them."""
    missing = sum(size for file, size in sizes.items() if not _is_cached(name, file))
    check_space(hub_cache(), name.repository, missing, CACHE_VARIABLE)
    return missing


def _is_cached(name: HubName, file: str) -> bool:
    return isinstance(try_to_load_from_cache(name.repository, file, revision=name.revision), str)
