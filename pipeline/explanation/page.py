"""An explanation as a page: choose a label, a layer, a head."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

from model.choices import RANKINGS
from model.heat_map import COLOURS, OPACITY, relative
from pipeline.pages.render import render_page

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from model import Explanation
    from pipeline.explanation.subject import Subject

_MAX_CHARACTERS = 1000


def explanation_page(explanation: Explanation, subject: Subject, note: str | None = None) -> str:
    """The page as HTML, one file that needs no network.

    Args:
        note: what readers should know first, in a sentence.
    """
    data = {**_page_data(explanation, subject), "note": note}
    return render_page("explanation", f"What the model looked at: {subject.address}", data)


def _page_data(explanation: Explanation, subject: Subject) -> dict[str, Any]:
    n_layers, n_heads, *patches = explanation.answer_maps.shape
    return {
        "place": subject.address,
        "run": subject.run,
        "model": subject.model,
        "ranking": explanation.ranking,
        "photograph": _jpeg_url(explanation.photograph) if len(explanation.views) > 1 else None,
        "views": [
            {
                "picture": _jpeg_url(seen.image),
                "box": [round(edge) for edge in seen.box],
                "answer": _maps(seen.answer_maps, seen.answer_rollout),
            }
            for seen in explanation.views
        ],
        "layers": n_layers,
        "heads": n_heads,
        "patches": patches,
        "colours": COLOURS,
        "opacity": OPACITY,
        "labels": [
            {
                "text": explained.label.text[:_MAX_CHARACTERS],
                "score": explained.label.score if math.isfinite(explained.label.score) else None,
                "bar": RANKINGS[explanation.ranking].bar_length(explained.label.score),
                "view": explained.label.view,
                **_maps(explained.maps, explained.rollout),
            }
            for explained in explanation.labels
        ],
    }


def _maps(maps_LHPP: Tensor, rollout_PP: Tensor) -> dict[str, Any]:
    """All maps of a label one behind the other: the rollout, the mean, then layer by layer the heads."""
    maps = [rollout_PP, maps_LHPP.mean(dim=(0, 1)), *maps_LHPP.flatten(0, 1)]
    return {
        # Each by its own maximum: of one that is spread over all patches, little would be left beside one that is not.
        "maps": base64.b64encode(b"".join(_quantised(values_PP) for values_PP in maps)).decode(),
        "maxima": [float(values_PP.max()) for values_PP in maps],
        "shares": [float(values_PP.sum()) for values_PP in maps],
    }


def _quantised(values_PP: Tensor) -> bytes:
    return (relative(values_PP) * 255).round().astype("uint8").tobytes()


def _jpeg_url(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
