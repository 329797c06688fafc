"""From what was found in views, batch by batch of the device, to what was found in images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.choices import Ranking
from model.joined_views import Places, join_scores, join_views
from pipeline.actor.labelled_rows import FoundLabels, rank_listed
from pipeline.naming.name_list import NameList

if TYPE_CHECKING:
    from model.ranking import RankedLabels


@dataclass(frozen=True, slots=True)
class FoundViews:
    """What was found in the views of one batch of the device."""

    labels: RankedLabels | None
    """Labels of each view; None where none were sampled."""
    listed: Sequence[Any]
    """Of each list of names the log probabilities, [views, names]; nothing where there are no lists."""
    seconds: dict[str, float]
    """Seconds that the device took, as a whole and by part."""


def join_found(
    places: Places, found: Sequence[FoundViews], n_images: int, ranking: Ranking, most: int, lists: Sequence[NameList]
) -> FoundLabels:
    """Puts the views of each image together. A name of a list scores what it scores in the view that scores it best.

    Args:
        places: image and view of each view of each batch, as `model.images.views.cut_batches` gives them.
        found: what was found in each batch.
        most: labels that an image keeps.
    """
    ranked = [of_batch.labels for of_batch in found if of_batch.labels is not None]
    labels = join_views(ranked, places, n_images, ranking, most) if len(ranked) == len(places) else None
    scores = [
        join_scores([of_batch.listed[place] for of_batch in found], places, n_images, len(of_list.names))
        for place, of_list in enumerate(lists)
    ]
    seconds: dict[str, float] = {}
    for of_batch in found:
        for name, value in of_batch.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    return FoundLabels(labels, rank_listed(lists, scores, n_images), seconds)
