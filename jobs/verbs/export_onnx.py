"""`tagstream export-onnx`: a recognizer as ONNX graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.console.options import WholeRange
from jobs.console.output import print_rows
from jobs.demo.shipped import N_SHIPPED, read_shipped
from pipeline.errors import ModelError, TagstreamError
from pipeline.storage.model_cache import fetch_recognizer, load_recognizer, model_name

if TYPE_CHECKING:
    from model.exporting.agreement import Agreement

_COLUMNS = ("graphs", "logits differ by", "largest logit", "same labels", "same first label", "first ten kept")


@click.command("export-onnx")
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to write; new.")
@click.option("--int8", is_flag=True, help="Weights of linear layers in 8 bits: smaller, faster on CPUs.")
@click.option(
    "--scenes",
    default=N_SHIPPED,
    show_default=True,
    type=WholeRange(1, N_SHIPPED),
    help="Demo scenes that torch and onnxruntime both label.",
)
def export_onnx(model: str, out: Path, int8: bool, scenes: int) -> None:
    """Write MODEL, an NXTP recognizer, as three ONNX graphs, and check them against torch.

    The folder has all that is needed to label without tagstream and torch; its README.md says how. Needs the packages
    onnx, onnxruntime and onnxscript (pip install 'tagstream[onnx]').

    \b
    tagstream export-onnx demo --out demo-onnx
    tagstream export-onnx ./nxtp --int8 --scenes 8 --out nxtp-onnx
    """
    if out.exists():
        raise TagstreamError(f"{out} exists; name a new folder with --out")
    # Bring in torch, which takes seconds to import.
    from model.exporting.onnx_folder import export_recognizer, missing_packages
    from model.fingerprint import fingerprint_folder

    missing = missing_packages()
    if missing:
        raise TagstreamError(
            f"the export needs packages that are not installed: {', '.join(missing)}; pip install 'tagstream[onnx]'"
        )
    fingerprint = fingerprint_folder(fetch_recognizer(model))
    recognizer = load_recognizer(model, "cpu", "float32")
    with _folder(out) as folder:
        try:
            exported = export_recognizer(
                recognizer, folder, read_shipped(scenes), model_name(model), fingerprint, int8=int8
            )
        except ValueError as error:
            raise ModelError(f"{model} cannot be exported: {error}") from error
    n_bytes = sum(file.stat().st_size for file in out.iterdir())
    click.echo(f"Written: {out}, three graphs in {'int8' if int8 else 'float32'}, {n_bytes / 1e6:,.1f} MB")
    click.echo(f"onnxruntime against torch, {scenes} scenes, at most 20 labels each:")
    checked = {"float32": exported.float32, **({"int8": exported.int8} if exported.int8 else {})}
    print_rows(_COLUMNS, [(name, *_figures(found)) for name, found in checked.items()])


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """An empty folder that appears as `out` once it is complete. Raises TagstreamError where it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary, out.name)
            folder.mkdir()
            yield folder
            folder.rename(out)
    except OSError as error:
        raise TagstreamError(f"{out} cannot be written: {error}") from error


def _figures(found: Agreement) -> tuple[str, ...]:
    return (
        f"{found.difference:.2g}",
        f"{found.largest_logit:.1f}",
        f"{found.n_same} scenes",
        f"{found.n_same_first} scenes",
        f"{found.n_common:,} of {found.n_compared:,}",
    )
