"""`tagstream import-nxtp`: makes a model folder of the public NXTP checkpoint."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.console.options import FiniteRange
from jobs.console.paste import to_paste
from model.fetching.hub_name import HubFile
from model.fetching.refusal import ModelUnusableError

if TYPE_CHECKING:
    from model import Recognizer

LICENCE = (
    "The checkpoint's weights are licensed CC-BY-NC-4.0 (no commercial use); as they derive from Llama 2, the terms of "
    "its community licence apply as well."
)
# Where each part is on the hub, and the file of the repository that is it.
_CHECKPOINT = "kaiyuyue/nxtp", "ckpt_epoch_03_iter_1656549.pth"
_CLIP = "openai/clip-vit-large-patch14", "model.safetensors"
_TOKENIZER = "meta-llama/Llama-2-7b-hf", "tokenizer.model"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import-nxtp")
@click.option("--checkpoint", default="/".join(_CHECKPOINT), show_default=True, help="The public checkpoint (.pth).")
@click.option(
    "--clip",
    default=_CLIP[0],
    show_default=True,
    help="OpenAI's CLIP ViT-L/14: its .pt, or a transformers folder.",
)
@click.option("--tokenizer", default=_TOKENIZER[0], show_default=True, help="Llama-2's tokenizer.model.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to write; new or empty.")
@click.option("--params", type=_FILE, help="Llama-2's params.json: norm_eps and n_heads are read from it.")
@click.option("--rms-norm-eps", type=FiniteRange(), help="The decoder's norm_eps, without --params.  [default: 1e-5]")
def import_nxtp(
    checkpoint: str, clip: str, tokenizer: str, out: Path, params: Path | None, rms_norm_eps: float | None
) -> None:
    """Make a model folder of the public NXTP checkpoint.

    The checkpoint holds the weights that were trained; the others come from CLIP, the tokenizer from Llama 2. Llama's
    weights are not needed. The import takes about 9 GB of memory and the package sentencepiece (pip install
    'tagstream[import-nxtp]').

    Each part is a file, or org/name[@revision][/file] of the Hugging Face hub. The tokenizer is gated there: accept
    Llama 2's licence on its page, and set HF_TOKEN.

    \b
    tagstream import-nxtp --out models/nxtp
    tagstream import-nxtp --checkpoint nxtp.pth --clip ViT-L-14.pt \\
      --tokenizer tokenizer.model --params params.json --out models/nxtp
    """
    if params is not None and rms_norm_eps is not None:
        raise click.UsageError("--rms-norm-eps and --params both give the decoder's eps; leave one out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.ClickException(f"{out} exists and is not empty; give a new or empty folder")
    given = _read_params(params) if params is not None else {}
    if rms_norm_eps is not None:
        given["rms_norm_eps"] = rms_norm_eps
    # The smallest first: it is the one that the hub may not give.
    pieces = _find_part("--tokenizer", tokenizer, _TOKENIZER[1])
    _check_tokenizer(pieces)
    # A transformers folder is named by the folder.
    vision = _find_part("--clip", clip, _CLIP[1])
    vision = vision.parent if vision.name == _CLIP[1] else vision
    recognizer = _import(_find_part("--checkpoint", checkpoint, _CHECKPOINT[1]), vision, pieces, out, given)
    _report(recognizer, out)


def _find_part(option: str, given: str, default: str) -> Path:
    """A part on this machine; one of the hub is fetched into the hub's cache."""
    if Path(given).exists():
        return Path(given)
    wanted = HubFile.parse(given, default)
    if wanted is None:
        raise click.BadParameter(
            f"there is no {given}; expected a file on this machine, or org/name[@revision][/file] of the hub",
            param_hint=option,
        )
    # Takes a while to import.
    from model.fetching.repository import fetch_file

    click.echo(f"fetching {wanted} of the hub", err=True)
    try:
        return fetch_file(wanted)
    except ModelUnusableError as error:
        raise click.ClickException(str(error)) from error


def _check_tokenizer(path: Path) -> None:
    """Reads the tokenizer before gigabytes are fetched: its package may be missing."""
    from model.importing.llama_vocabulary import LlamaVocabulary

    try:
        LlamaVocabulary(path)
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _import(checkpoint: Path, clip: Path, tokenizer: Path, out: Path, given: dict[str, Any]) -> Recognizer:
    """Imports the checkpoint and saves the model; the folder appears under its name once it is complete."""
    # Bring in torch, which takes seconds to import.
    from transformers.utils import logging

    from model.importing import checkpoint as importer

    logging.disable_progress_bar()
    width = given.pop("width", None)
    try:
        recognizer = importer.import_nxtp(checkpoint, clip, tokenizer, **given)
        found = recognizer.config.text_config.hidden_size
        if width not in (None, found):
            raise ValueError(f"--params is of a Llama {width} wide, the checkpoint's decoder is {found} wide")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            recognizer.save_pretrained(Path(temporary, out.name))
            Path(temporary, out.name).rename(out)
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    return recognizer


def _read_params(path: Path) -> dict[str, Any]:
    """The settings in params.json, by the names of the importer's arguments, and the decoder's `width`."""
    try:
        params = json.loads(path.read_bytes())
        n_heads, eps, width = params["n_heads"], params["norm_eps"], params.get("dim")
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise click.ClickException(
            f"{path} is no params.json of Llama's with n_heads and norm_eps ({reason})"
        ) from error
    if type(n_heads) is not int or n_heads < 1 or not isinstance(eps, float) or eps <= 0:
        raise click.ClickException(
            f"{path} gives n_heads {n_heads!r} and norm_eps {eps!r}; expected a whole number and a fraction above 0"
        )
    return {"n_decoder_heads": n_heads, "rms_norm_eps": eps, "width": width}


def _report(recognizer: Recognizer, out: Path) -> None:
    config, parameters = recognizer.config, recognizer.module.parameters()
    n_bytes = sum(file.stat().st_size for file in out.iterdir())
    dtype = str(recognizer.dtype).removeprefix("torch.")
    click.echo(
        f"wrote {out}: {sum(weights.numel() for weights in parameters):,} parameters in {dtype}, {n_bytes / 1e9:.2f} GB"
    )
    click.echo(f"images are seen at {config.vision_config.image_size} px; the prompt's ids are {config.prompt_ids}")
    click.echo(LICENCE)
    click.echo(f"next: {to_paste('label', 'SOURCE', '--store', 'STORE', '--model', str(out))}")
