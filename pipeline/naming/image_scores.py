"""Scores of a list of names for a handful of images, in this process: without a store, without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model.folder import is_hub_model
from model.images.opening import ImageDecodeError, allow_image_pixels
from model.images.preprocessing import fit_decoding
from model.images.views import CENTRE, most_squares
from pipeline.errors import TagstreamError
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import LabelSettings, resolve_dtype
from pipeline.storage.files import open_filesystem, storage_errors
from pipeline.storage.model_cache import (
    check_names,
    fetch_model,
    load_tagger,
    measure_image_cost,
    resolve_image_tokens,
)

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


class ImageScorer:
    """Scores the names of a list for images, as a labelling job with these settings does for its own.

    Attributes: `most_views`, squares of an image that are seen, at most; `ignores_views`, whether several are asked for
    and the model takes pictures of any shape.
    """

    def __init__(self, of_list: NameList, model: str, settings: LabelSettings) -> None:
        """Loads no weights.

        Args:
            model: folder, hub id or URL of the model, or `demo`.
            settings: those that decide the scores count, the others do not.

        Raises TagstreamError where a name cannot be a label of the model, or the model cannot read images so.
        """
        spellings = [(spelling, of_list.version) for spelling in of_list.spellings()]
        check_names(model, settings.hub, spellings)
        self.most_views = most_squares(settings.views)
        self.ignores_views = False
        if is_hub_model(fetch_model(model)):
            if self.most_views > 1 and not measure_image_cost(model, settings.hub).sees_squares:
                self.most_views, self.ignores_views = 1, True
                settings = replace(settings, views=CENTRE, view_tokens=0)
            # Refuses what these models have not.
            settings.labelling(settings.dtype, is_hub_model=True)
        else:
            for name in ("image_tokens", "view_tokens"):
                # Refuses more than the model has.
                resolve_image_tokens(model, getattr(settings, name), name)
        self._list, self._model, self._settings = of_list, model, settings

    def score(self, urls: Sequence[str]) -> Iterator[ImageScore]:
        """The names that each image keeps, the best first.

        Args:
            urls: image files, local or remote.

        Raises TagstreamError where a file is no image.
        """
        import torch

        from model.listed_names import score_views

        of_list, settings = self._list, self._settings
        images = {url: _read(url) for url in urls}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tagger = load_tagger(self._model, device, resolve_dtype(settings.dtype, device), settings.hub)
        allow_image_pixels(settings.max_image_pixels)
        preprocessor = fit_decoding(tagger.preprocessor, settings)
        names = list(of_list.names)
        listed = tagger.list_names(list(of_list.names.values()), _IMAGES_AT_ONCE * self.most_views)
        for start in range(0, len(urls), _IMAGES_AT_ONCE):
            batch = urls[start : start + _IMAGES_AT_ONCE]
            seen = [self._views(preprocessor, url, images[url]) for url in batch]
            scores = score_views(tagger, seen, listed, settings.image_tokens, settings.view_tokens)
            for url, log_probs in zip(batch, scores, strict=True):
                _, places = of_list.best(log_probs[None])
                for rank, place in enumerate(places.tolist(), start=1):
                    yield ImageScore(url, rank, names[place], float(np.exp(log_probs[place])))

    def _views(self, preprocessor: Any, url: str, data: bytes) -> list[np.ndarray]:
        try:
            views: list[np.ndarray] = preprocessor.views(data, self.most_views)
        except ImageDecodeError as error:
            raise TagstreamError(f"{url} is no image that can be scored: {error}") from error
        return views


def _read(url: str) -> bytes:
    with storage_errors(f"read {url}"):
        filesystem, path = open_filesystem(url)
        if not filesystem.isfile(path):
            raise TagstreamError(f"there is no file {url}; expected an image")
        data: bytes = filesystem.cat_file(path)
    return data
