"""What a user is told of a labelling job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.labelling.job import LabelJob
from pipeline.labelling.notes import notes_of_centre
from pipeline.labelling.request import LabelRequest
from tests.fixtures.corpus import write_tars
from tests.fixtures.stored.tables import run_record


@pytest.mark.parametrize(
    ("n_long", "n_labelled", "is_told"), [(20, 200, True), (19, 20, False), (20, 201, False), (0, 0, False)]
)
def test_many_images_that_the_centre_is_seen_of_alone_are_told(n_long: int, n_labelled: int, is_told: bool) -> None:
    notes = notes_of_centre(run_record("r"), n_long, n_labelled)
    assert [note[: note.index(" are")] for note in notes] == [f"{n_long} of {n_labelled} images"] * is_told


@pytest.mark.parametrize("labelling", [{"views": 4}, {"hub": {}}])
def test_a_run_that_sees_more_than_the_centre_has_nothing_to_tell(labelling: dict[str, object]) -> None:
    assert notes_of_centre(run_record("r", labelling=labelling), 50, 50) == []


@pytest.mark.usefixtures("without_ray")
def test_a_job_tells_of_its_long_images_and_what_shows_all_of_them(label_request: LabelRequest) -> None:
    # Each is 96 x 72.
    write_tars(Path(str(label_request.source)), 1, 30, first=3)
    (note,) = LabelJob(label_request).run().notes
    assert note.startswith("36 of 36 images are 5:4 or longer, and the model saw only the square in the middle of")
    whole = replace(label_request, run="whole", settings=replace(label_request.settings, views="whole"))
    assert LabelJob(whole).run().notes == []
