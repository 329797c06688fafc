"""`tagstream pack`: packs a folder of images into WebDataset shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobs.console.options import WholeRange
from jobs.console.paste import to_paste
from pipeline.sources.contents import describe_skipped

if TYPE_CHECKING:
    from pipeline.packing.pack import PackReport

_N_NAMES_SHOWN = 3


@click.command
@click.argument("folder")
@click.option("--out", required=True, help="Folder or URL for the shards; new or empty.")
@click.option(
    "--captions",
    multiple=True,
    metavar="FILE",
    help="COCO annotations, a JSON {file: captions}, or a JSONL, CSV or TSV with file_name and caption or labels. "
    "May be given several times.",
)
@click.option("--shard-size", type=WholeRange(min=1), default=1000, show_default=True, help="Images in a shard.")
def pack(folder: str, out: str, captions: tuple[str, ...], shard_size: int) -> None:
    """Pack the images in FOLDER and its subfolders into shards 00000.tar, 00001.tar, ...

    All paths may be URLs (s3://...). Captions and labels are packed as .txt and .json. They come from --captions;
    without it, from x.txt and x.json beside x.jpg, and from metadata.jsonl or metadata.csv in a folder. The same input
    gives the same bytes.

    \b
    tagstream pack photos --out shards
    tagstream pack train2017 --out s3://bucket/coco \\
      --captions captions_train2017.json --captions instances_train2017.json
    """
    # Brings in torch, which takes seconds to import.
    from pipeline.packing.pack import pack_folder

    _print_report(pack_folder(folder, out, captions=captions, shard_size=shard_size), out)


def _print_report(report: PackReport, out: str) -> None:
    shards = "1 shard" if report.n_shards == 1 else f"{report.n_shards:,} shards"
    click.echo(f"packed {report.n_samples:,} images into {shards} ({report.n_bytes / 1e6:,.1f} MB) in {out}")
    n_bare = report.n_samples - report.n_annotated
    click.echo(f"captions or labels: {report.n_annotated:,} of {report.n_samples:,} images, {n_bare:,} without")
    if report.unmatched:
        names = ", ".join(report.unmatched[:_N_NAMES_SHOWN])
        more = ", ..." if len(report.unmatched) > _N_NAMES_SHOWN else ""
        click.echo(
            f"left out: {len(report.unmatched):,} names in the captions are no image of the folder ({names}{more})"
        )
    if report.problems:
        n_more = len(report.problems) - 1
        click.echo(f"left out: {report.problems[0]}" + (f" (and {n_more:,} more)" if n_more else ""))
    if report.skipped:
        click.echo(f"left out: {describe_skipped(report.skipped)}")
    click.echo(f"next: {to_paste('label', str(out), '--store', 'STORE')}")
