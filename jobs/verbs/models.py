"""`tagstream models`: the models of the hub that are known, so that a newcomer finds one to start with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from jobs.console.options import format_option
from jobs.console.output import print_rows
from model.fetching.known_models import KnownModel, known_models

_COLUMNS = ("model", "licence", "commercial", "gated", "billions", "tokens", "GB", "architecture")
_LEGEND = """
gated         whether the hub asks for an account that has accepted the licence, and for its token in HF_TOKEN
billions      of parameters; GB is their memory in bfloat16, without the caches of images at work
tokens        of a photograph of 1024 x 768 pixels: one tile, or as many pixels as 256 tokens show
architecture  what was verified: small models of it with random weights label as without a cache, on transformers 5.23;
              no model of this table was tried with its own weights
?             not known

Licences are as the models' pages or makers had them in November 2026; read them yourself before you rely on them.
The public NXTP weights, not for commercial use: tagstream import-nxtp --help"""


@click.command
@format_option("table", "csv", "json")
def models(output: str) -> None:
    """List models of the Hugging Face hub to label with: licence, size, cost of an image, what was verified of each.

    Those that need no account and allow commercial use come first. Other models work too, if transformers has their
    class and they generate as one decoder does: --model takes any org/name, org/name@revision, folder or s3:// folder.

    \b
    tagstream models
    tagstream label photos/ --store tags --model HuggingFaceTB/SmolVLM-256M-Instruct
    """
    known = known_models()
    if output != "table":
        rows = [{**asdict(model), "memory_bytes": model.memory_bytes} for model in known]
        print_rows(list(rows[0]), (list(row.values()) for row in rows), output)
        return
    print_rows(_COLUMNS, map(_row, known))
    click.echo(_LEGEND)
    for model in known:
        if model.needs:
            click.echo(f"{model.name} needs more packages: pip install {model.needs}")
    click.echo(f"next: tagstream label SOURCE --store STORE --model {known[0].name}")


def _row(model: KnownModel) -> list[Any]:
    gated = None if model.gated is None else "yes" if model.gated else "no"
    billions, memory_gb = (value and value / 1e9 for value in (model.parameters, model.memory_bytes))
    values = [gated, billions, model.image_tokens, memory_gb]
    known = ["?" if value is None else value for value in values]
    return [model.name, model.licence, model.commercial, *known, model.architecture]
