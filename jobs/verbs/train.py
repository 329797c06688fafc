"""`tagstream train`: trains a recognizer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from jobs.console.config_file import read_config, read_preset
from jobs.console.live_line import LiveLine, clock
from jobs.console.options import FiniteRange, WholeRange, config_option, ray_address_option, verbose_option
from jobs.console.process import command_line, job_process
from pipeline.settings.toml_file import read_settings
from pipeline.training.progress import TrainProgress
from pipeline.training.recall_sum import describe_limits, describe_qualities

if TYPE_CHECKING:
    from pipeline.training.checkpoints import TrainingState
    from pipeline.training.job import TrainJob

# Packages of the extra `train`: Ray Train needs the last two, the curves the first.
_NEEDED = ("matplotlib", "pydantic", "tensorboardX")


@click.command
@click.argument("source")
@click.option("--out", required=True, help="Folder for the model and its checkpoints; local or s3://.")
@click.option("--preset", help="Settings to start from: demo, nxtp-g3m, nxtp-g70m, nxtp-imagenet.")
@click.option("--init", help="Recognizer to start from.  [default: a new one, sizes by preset]")
@click.option("--val", help="Labelled source to measure hit@1 and recall@k on.")
@click.option("--teacher", help="Recognizer whose confident labels are the targets, instead of the source's own.")
@click.option(
    "--min-score", type=FiniteRange(0, 1), default=0.5, show_default=True, help="Lowest score of a confident label."
)
@click.option(
    "--workers", "n_workers", type=WholeRange(0), default=0, show_default=True, help="0 trains in this process."
)
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in --out.")
@ray_address_option
@config_option("TOML with settings; overrides --preset.")
@verbose_option
def train(source: str, out: str, preset: str | None, config: str | None, **flags: Any) -> None:
    """Train a recognizer on the labels (or nouns of captions) of SOURCE, in any form that `label` takes.

    OUT becomes a model folder with metrics.parquet, training.png, a model card and the checkpoints.

    \b
    tagstream train corpus/train --val corpus/val --out my-model --preset demo
    """
    # Before the slow imports, so that a typing error is answered at once.
    of_preset, given = read_preset(preset), read_config(config)
    _check_installed()
    # Bring in Ray and torch, which take seconds to import.
    from pipeline.training.job import TrainJob, TrainRequest
    from pipeline.training.settings import TrainSettings

    origin = " with ".join(filter(None, (preset and f"preset {preset}", config)))
    settings = read_settings(TrainSettings, merged(of_preset, given), origin)
    job = TrainJob(TrainRequest(source=source, out=out, settings=settings, command=command_line(), **flags))
    state = _run(job)
    click.echo(f"Trained {state.step:,} steps in {state.seconds:,.0f} s: {out}")
    for row in state.metrics:
        if row["step"] == state.best_step:
            click.echo(f"Its weights are those of step {state.best_step:,}, the best: {describe_qualities(row)}")
            limits = describe_limits(row)
            if limits:
                click.echo(f"In the validation source {limits}")


def _run(job: TrainJob) -> TrainingState:
    """Runs a training job with a live line; where the user stops it, says what is kept."""
    try:
        with (
            job_process(again="run the same command with --resume to go on"),
            LiveLine(lambda elapsed_s: describe(job.progress, elapsed_s)),
        ):
            return job.run()
    except KeyboardInterrupt:
        steps = job.checkpoints.steps()
        kept = f"the checkpoint of step {steps[-1]:,} is kept; " if steps else "no checkpoint was written yet; "
        click.echo(f"\nStopped. {kept}the same command with --resume goes on.", err=True)
        raise


def describe(at: TrainProgress, elapsed_s: float) -> str:
    """The live line of a training job after so many seconds."""
    if not at.step:
        return f"{at.phase} ... {clock(elapsed_s)}"
    parts = [f"step {at.step:,}/{at.n_steps:,}"]
    if at.loss is not None:
        parts.append(f"loss {at.loss:.3f}")
    parts.append(f"{at.images_per_s:,.0f} images/s")
    if at.recall_10 is not None:
        limit = at.recall_10_limit
        at_most = "" if limit is None or limit >= 1 else f" (at most {limit:.3f})"
        parts.append(f"recall@10 {at.recall_10:.3f}{at_most}")
    parts.append(f"{clock(elapsed_s)} elapsed")
    if at.eta_s is not None:
        parts.append(f"{clock(at.eta_s)} to go")
    if at.phase != "training":
        parts.append(at.phase)
    return " · ".join(parts)


def _check_installed() -> None:
    """Raises ClickException where a package is missing, before a long training would end for lack of it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"training needs packages that are not installed: {', '.join(missing)}; pip install 'tagstream[train]'"
        )


def merged(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with the given settings in place of its own; a table is merged key by key."""
    tables = {
        name: {**preset[name], **value}
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(preset.get(name), Mapping)
    }
    return {**preset, **given, **tables}
