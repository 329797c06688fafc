"""What a user should know of a labelling job, in sentences."""

from __future__ import annotations

from model.demo_scenes import describe_strangers
from model.images.pixels import PIXEL_RULE
from pipeline.labelling.assignment import OpenJob
from pipeline.labelling.run_identity import RunIdentity
from pipeline.settings.labelling import FORMER_PIXEL_RULE, VIEWS_IGNORED, LabelSettings
from schemas import JobRecord, RunRecord

# More are told: what hub models ship makes thousands of a photograph.
_MANY_IMAGE_TOKENS = 600
# Fewer images that are cut are not worth a sentence.
_MANY_LONG, _MANY_LONG_SHARE = 20, 0.1


def notes_of_model(identity: RunIdentity, settings: LabelSettings) -> list[str]:
    """What the user should know of how the model takes images."""
    notes = []
    if not settings.image_tokens and identity.n_image_tokens > _MANY_IMAGE_TOKENS:
        notes.append(
            f"a photograph costs this model {identity.n_image_tokens:,} image tokens, and time grows with them; "
            "image_options in the table [hub] of --config can make them fewer"
        )
    if identity.ignores_views:
        notes.append(VIEWS_IGNORED)
    return notes


def notes_of_former_rule(job: OpenJob) -> list[str]:
    """What the user should know of a run that goes on by a former rule of pixels."""
    if job.settings.pixel_rule == PIXEL_RULE:
        return []
    goes_on = f"run {job.run.name} goes on with the rule of pixels that it was made by"
    if job.settings.pixel_rule == FORMER_PIXEL_RULE:
        return [
            f"{goes_on}: images of 10 to 16 bits, of fractions, with a transparent ground or a blank first frame may "
            "be black squares to the model; a run of another name (--run) sees them as they are meant"
        ]
    return [f"{goes_on}, and decodes slowly; a run of another name (--run) decodes several times faster"]


def notes_of_centre(run: RunRecord, n_long: int, n_labelled: int) -> list[str]:
    """What the user should know of images that the model saw the centre of.

    Args:
        n_long: images that one square in the middle does not show nearly all of, among those that a job labelled.
    """
    sees_centre = not run.tells_views and "hub" not in run.labelling
    if not sees_centre or n_long < max(_MANY_LONG, _MANY_LONG_SHARE * n_labelled):
        return []
    return [
        f"{n_long:,} of {n_labelled:,} images are 5:4 or longer, and the model saw only the square in the middle of "
        'each; a run with views = "whole" in --config sees them whole'
    ]


def notes_of_job(record: JobRecord, limit: int) -> list[str]:
    """What the user should know of a job that is done."""
    notes = []
    if 0 < limit < record.n_images:
        notes.append(f"the limit of {limit:,} images was reached within a shard, and shards are labelled whole")
    if record.workers.get("decode_in") == "read" and (reason := record.workers["decode_reason"]):
        notes.append(f"images were decoded in the tasks that read shards, decode_in = auto: {reason}")
    if strangers := describe_strangers(record.n_strange, record.n_labelled - record.n_reused):
        notes.append(strangers)
    if record.why_copied:
        notes.append(
            "each branch had a copy of its image's tokens, which takes memory and time, since sharing them would have "
            f"changed this model's labels: {record.why_copied}"
        )
    return notes
