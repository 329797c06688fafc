"""Scores of a list of names for a handful of images, in this process: without a store, without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.hub.options import HubOptions
from model.images.opening import ImageDecodeError
from pipeline.errors import TagstreamError
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import resolve_dtype
from pipeline.storage.files import open_filesystem, storage_errors
from pipeline.storage.model_cache import check_names, load_tagger

_IMAGES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ImageScore:
    """A name of a list, as an image scores it."""

    image: str
    """File or URL of the image."""
    rank: int
    """1 is the most probable name."""
    name: str
    score: float
    """Probability that the model writes the name, in any of its spellings."""


def score_images(urls: Sequence[str], of_list: NameList, model: str) -> Iterator[ImageScore]:
    """The names that each image keeps, the best first.

    Args:
        urls: image files, local or remote.
        model: folder, hub id or URL of the model, or `demo`.

    Raises TagstreamError where a file is no image, or a name cannot be a label of the model.
    """
    import torch

    hub = HubOptions()
    check_names(model, hub, [(spelling, of_list.version) for spelling in of_list.spellings()])
    images = {url: _read(url) for url in urls}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tagger = load_tagger(model, device, resolve_dtype("auto", device), hub)
    names = list(of_list.names)
    listed = tagger.list_names(list(of_list.names.values()), _IMAGES_AT_ONCE)
    for start in range(0, len(urls), _IMAGES_AT_ONCE):
        batch, views = urls[start : start + _IMAGES_AT_ONCE], []
        for url in batch:
            try:
                views.append(tagger.preprocessor.view(images[url]))
            except ImageDecodeError as error:
                raise TagstreamError(f"{url} is no image that can be scored: {error}") from error
        (scores,) = tagger.score_prepared(tagger.prepare(views), [listed])
        for url, log_probs in zip(batch, scores.numpy(), strict=True):
            _, places = of_list.best(log_probs[None])
            for rank, place in enumerate(places.tolist(), start=1):
                yield ImageScore(url, rank, names[place], float(np.exp(log_probs[place])))


def _read(url: str) -> bytes:
    with storage_errors(f"read {url}"):
        filesystem, path = open_filesystem(url)
        if not filesystem.isfile(path):
            raise TagstreamError(f"there is no file {url}; expected an image")
        data: bytes = filesystem.cat_file(path)
    return data
