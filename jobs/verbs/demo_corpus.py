"""`tagstream demo-corpus`: makes the corpus on which the demo model is trained and measured."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
from PIL import Image

from jobs.console.options import WholeRange
from jobs.demo.scenes import SCENE_PX, draw_scene, read_pictograms, scene_size

_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_SHARD_SIZE = 1000


@click.command("demo-corpus")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the shards.")
@click.option("--images", default=10_000, show_default=True, type=WholeRange(1), help="How many scenes.")
@click.option("--seed", default=0, show_default=True, type=WholeRange(0), help="The same seed gives the same scenes.")
@click.option("--shard-size", default=_SHARD_SIZE, show_default=True, type=WholeRange(1), help="Scenes in a shard.")
@click.option("--max-objects", default=6, show_default=True, type=WholeRange(1, 6), help="Most objects in a scene.")
@click.option("--aspect", default="1:1", show_default=True, help="Width and height of scenes, such as 3:2.")
@click.option("--font", default=_FONT, show_default=True, type=click.Path(path_type=Path), help="Noto Color Emoji.")
def demo_corpus(out: Path, images: int, seed: int, shard_size: int, max_objects: int, aspect: str, font: Path) -> None:
    """Compose scenes of one to six pictograms with captions and truth; write them to OUT/scenes-00000.tar, ...

    Needs the font Noto Color Emoji (Debian: apt install fonts-noto-color-emoji).

    \b
    tagstream demo-corpus --out corpus --images 10000 --seed 1
    tagstream demo-corpus --out wide --images 1000 --seed 5 --aspect 3:2
    """
    if not font.is_file():
        raise click.UsageError(f"there is no font {font}; apt install fonts-noto-color-emoji, or name it with --font")
    try:
        size = scene_size(aspect)
        _load_font(font)
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    firsts = range(0, images, shard_size)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=_load_font, initargs=(font,)) as pool:
        futures = [
            pool.submit(
                write_shard,
                out / f"scenes-{number:05d}.tar",
                seed,
                range(first, min(first + shard_size, images)),
                max_objects,
                size,
            )
            for number, first in enumerate(firsts)
        ]
        for future in futures:
            future.result()
    click.echo(f"{images:,} scenes in {len(firsts):,} shards: {out}")


def write_shard(
    path: Path, seed: int, numbers: range, max_objects: int, size: tuple[int, int] = (SCENE_PX, SCENE_PX)
) -> None:
    """Writes the scenes with these numbers to a tar file. A scene depends on seed and number, not on its shard."""
    # Brings in torch, which takes seconds to import.
    import webdataset as wds

    with wds.TarWriter(str(path), mtime=0, encoder=False) as writer:
        for number in numbers:
            scene = draw_scene(_pictograms, (seed, number), max_objects, size)
            description = {"captions": [scene.caption], "labels": scene.labels}
            writer.write(
                {
                    "__key__": f"scene-{number:07d}",
                    "jpg": scene.jpeg,
                    "txt": scene.caption.encode(),
                    "json": json.dumps(description, ensure_ascii=False).encode(),
                }
            )


_pictograms: dict[str, Image.Image] = {}


def _load_font(font: Path) -> None:
    """Reads the pictograms, once in each worker process."""
    _pictograms.update(read_pictograms(font))
