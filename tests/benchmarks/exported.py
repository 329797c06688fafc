"""ONNX graphs on a CPU: recall and time of onnxruntime, in float32 and int8, against torch in float32.

    python tests/benchmarks/exported.py --out tests/benchmarks/results/onnx-cpu.md

Scenes are composed anew (Debian: apt install fonts-noto-color-emoji). Each batch is labelled in all three ways, one
after the other, so that they share what else the machine does; times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from image_tokens import CpuClock, Measured, difference, image_ms, share
from one_shot import build, comparison_plan
from record import environment, markdown_table
from torch import Tensor

from jobs.demo.scenes import Scene, draw_scene, read_pictograms
from model import Recognizer
from model.ending import Ending
from model.exporting.graph_branches import GraphBranches, Graphs
from model.exporting.graph_files import write_graphs
from model.exporting.graphs import trace_graphs
from model.exporting.quantization import quantize_graphs
from model.exporting.signatures import ENCODER, PREFILL
from model.sampling import SampledBatch, sample_branches

_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_TOP_K = 20
_LARGE_MAX_TOKENS = 4
_BATCHES = (1, 32)
_N_WARM_UP = 2
_PARTS = ("ms an image", "of it encode", "of it prefill", "of it branches")
# Labels a batch of pixel values, and marks its parts.
Way = Callable[[Tensor, CpuClock], SampledBatch]


def write_ways(recognizer: Recognizer, folder: Path, max_label_tokens: int) -> dict[str, Way]:
    """How a recognizer is run, by name."""
    folders = {precision: folder / precision for precision in ("float32", "int8")}
    for of in folders.values():
        of.mkdir(parents=True)
    write_graphs(trace_graphs(recognizer.module), folders["float32"])
    quantize_graphs(folders["float32"], folders["int8"])
    graphs = {precision: Graphs(of, 1) for precision, of in folders.items()}
    ending = Ending([recognizer.config.delimiter_id])

    def by_torch(pixels: Tensor, clock: CpuClock) -> SampledBatch:
        return recognizer.sample(pixels, _TOP_K, max_label_tokens=max_label_tokens, clock=clock)

    def by(of: Graphs) -> Way:
        @torch.inference_mode()
        def run(pixels: Tensor, clock: CpuClock) -> SampledBatch:
            encoded = of.run(ENCODER, {"pixel_values": pixels.numpy()})
            clock.mark("encode")
            decoder = GraphBranches(of, of.run(PREFILL, encoded))
            clock.mark("prefill")
            branches = sample_branches(decoder, ending, _TOP_K, max_label_tokens)
            clock.mark("branches")
            return SampledBatch(branches, pixels)

        return run

    return {"torch float32": by_torch, **{f"onnxruntime {name}": by(of) for name, of in graphs.items()}}


def measure_scenes(
    recognizer: Recognizer, ways: Mapping[str, Way], scenes: Sequence[Scene], batch: int
) -> dict[str, Measured]:
    """Labels every scene in every way, in another order for each batch."""
    found = {name: Measured() for name in ways}
    for number, start in enumerate(range(0, len(scenes), batch)):
        of_batch = scenes[start : start + batch]
        pixels = recognizer.prepare([recognizer.preprocessor.view(scene.jpeg) for scene in of_batch])
        for name in turned(list(ways), number):
            sampled = measure(ways[name], pixels, found[name])
            for labels, scene in zip(recognizer.rank(sampled), of_batch, strict=True):
                found[name].add_scene([label.text for label in labels], scene.labels)
    return found


def measure_speed(ways: Mapping[str, Way], pixels: Tensor, n_repeats: int) -> dict[str, Measured]:
    """Times on one batch, the ways in turn."""
    found = {name: Measured() for name in ways}
    for repeat in range(n_repeats):
        for name in turned(list(ways), repeat):
            measure(ways[name], pixels, found[name])
    return found


def measure(way: Way, pixels: Tensor, measured: Measured) -> SampledBatch:
    clock = CpuClock()
    sampled = way(pixels, clock)
    measured.batches.append(clock.seconds)
    return sampled


def warm_up(ways: Mapping[str, Way], pixels: Tensor) -> None:
    """A runtime chooses how to compute, and where in memory, when it sees a shape for the first time."""
    for way in ways.values():
        for _ in range(_N_WARM_UP):
            way(pixels, CpuClock())


def turned(names: list[str], number: int) -> list[str]:
    turn = number % len(names)
    return [*names[turn:], *names[:turn]]


def speed_rows(found: Mapping[str, Measured], n_images: int) -> list[list[object]]:
    base = next(iter(found.values()))
    return [
        [name, n_images, *image_ms(one, n_images), gain(one, base), share(one, base)] for name, one in found.items()
    ]


def gain(measured: Measured, base: Measured) -> str:
    """Median over the batches of how many times as fast as the base."""
    ratios = [whole / own for own, whole in zip(measured.total_s(), base.total_s(), strict=True)]
    return f"{statistics.median(ratios):.2f}"


def recall_rows(found: Mapping[str, Measured]) -> list[list[object]]:
    base = next(iter(found.values()))
    return [
        [
            name,
            f"{statistics.mean(one.recalls):.4f}",
            "" if one is base else difference(one.recalls, base.recalls),
            f"{statistics.mean(one.hits):.4f}",
            "" if one is base else difference(one.hits, base.hits),
        ]
        for name, one in found.items()
    ]


def sizes(folder: Path) -> str:
    """Megabytes of the graphs with their weights."""
    return ", ".join(
        f"{sum(file.stat().st_size for file in of.iterdir()) / 1e6:.1f} MB in {of.name}"
        for of in sorted(folder.iterdir())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--single", type=int, default=200, help="of them, labelled one by one as well")
    parser.add_argument("--seed", type=int, default=717171, help="of scenes that are in no training corpus")
    parser.add_argument("--repeats", type=int, default=9, help="of the larger model's times; the median counts")
    parser.add_argument("--small", action="store_true", help="a tiny model for times, to see that the script runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    # Of one thread CPU seconds are what a machine of its own would take, whoever else computes on this one.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        text = report(options, Path(temporary))
    print(text)
    if options.out:
        options.out.write_text(text)


def report(options: argparse.Namespace, folder: Path) -> str:
    """Measures, and gives the result as Markdown."""
    demo = Recognizer.from_pretrained("demo", device="cpu", dtype="float32")
    ways = write_ways(demo, folder / "demo", demo.config.max_label_tokens)
    pictograms = read_pictograms(_FONT)
    scenes = [draw_scene(pictograms, (options.seed, place)) for place in range(options.scenes)]
    found = {}
    for batch, n_scenes in zip(_BATCHES, (options.single, options.scenes), strict=True):
        warm_up(ways, torch.zeros(batch, 3, demo.preprocessor.image_size, demo.preprocessor.image_size))
        found[batch] = measure_scenes(demo, ways, scenes[:n_scenes], batch)
    demo_rows = [row for batch, measured in found.items() for row in speed_rows(measured, batch)]
    large, pixels = build(comparison_plan(options.small, options.repeats), "cpu")
    large_ways = write_ways(large, folder / "large", _LARGE_MAX_TOKENS)
    large_rows = []
    for n_images in (1, len(pixels)):
        warm_up(large_ways, pixels[:n_images])
        large_rows += speed_rows(measure_speed(large_ways, pixels[:n_images], options.repeats), n_images)
    size = "; ".join(f"{part} {large.facts()[part]}" for part in ("image", "encoder", "decoder"))
    speed = ("run by", "images at once", *_PARTS, "times as fast as torch", "share of its time")
    recall = ("run by", "recall@10", "difference x 1000", "hit@1", "difference x 1000")
    return f"""# ONNX graphs on a CPU

{environment("cpu", shlex.join(["python", *sys.argv]))}
- onnx {version("onnx")}, onnxruntime {version("onnxruntime")}, onnxscript {version("onnxscript")}

## Recall, demo model

{options.scenes:,} scenes of seed {options.seed}, k = {_TOP_K}. Differences are to the first row, in thousandths, with
95 % intervals of a bootstrap over scenes. Graphs with their weights: {sizes(folder / "demo")}.

{markdown_table(recall, recall_rows(found[_BATCHES[-1]]))}

## Time, demo model

The same scenes, {options.single:,} of them one by one. Each batch is labelled in all ways in turn. CPU time of one
thread, medians of the batches.

{markdown_table(speed, demo_rows)}

## Time, larger model

Random weights: {size}, k = {_TOP_K}; {options.repeats} repetitions
in turn, medians. Graphs with their weights: {sizes(folder / "large")}.

{markdown_table(speed, large_rows)}
"""


if __name__ == "__main__":
    main()
