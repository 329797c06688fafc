"""Fewer image tokens: recall against time, on the demo model and on a model of the benchmarks' size.

    python tests/benchmarks/image_tokens.py [--scenes 2000] [--seed 606060] [--repeats 9] [--out FILE]
    python tests/benchmarks/image_tokens.py --tuned MODEL OTHER      also measures these, against the demo model

Scenes are composed anew (Debian: apt install fonts-noto-color-emoji). Each batch is labelled with every number of
tokens, one after the other, so that they share what else the machine does; times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from one_shot import build, comparison_plan, text_config, vision_config
from one_shot_flops import branch_flops, encode_flops, prefill_flops
from record import environment, markdown_table
from torch import Tensor

from jobs.demo.scenes import draw_scene, read_pictograms
from model import Recognizer, RecognizerConfig
from model.choices import TOKEN_MERGING
from model.sampling import Branches

_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_BATCH, _TOP_K = 32, 20
_DEMO_TOKENS = (36, 27, 18, 13, 9, 5)
_TUNED_TOKENS = (36, 18, 9)
_SHARES = (1, 0.75, 0.5, 0.35, 0.25, 0.15)
_N_RESAMPLED = 10_000
_PARTS = ("encode", "prefill", "branches")
# Tokens a label that the arithmetic counts, the delimiter not among them.
_FED_TOKENS = 3


class CpuClock:
    """CPU seconds of the parts of a batch. Takes the marks that `Recognizer.sample` gives."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def mark(self, part: str) -> None:
        now = time.process_time()
        self.seconds[part], self._last = now - self._last, now


@dataclass(slots=True)
class Measured:
    """What was measured with one number of tokens: of each scene and of each batch."""

    recalls: list[float] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)
    n_objects: list[int] = field(default_factory=list)
    batches: list[dict[str, float]] = field(default_factory=list)

    def add_scene(self, labels: Sequence[str], truth: Sequence[str]) -> None:
        self.recalls.append(len(set(labels[:10]) & set(truth)) / len(set(truth)))
        self.hits.append(float(bool(labels) and labels[0] in truth))
        self.n_objects.append(len(set(truth)))

    def total_s(self) -> list[float]:
        return [sum(parts.values()) for parts in self.batches]


Key = tuple[str, int]


def measure_scenes(
    recognizers: dict[str, Recognizer], numbers: Sequence[Key], n_scenes: int, seed: int
) -> dict[Key, Measured]:
    """Labels every scene by every model with every number of its tokens, in another order for each batch."""
    pictograms, found = read_pictograms(_FONT), {key: Measured() for key in numbers}
    for start in range(0, n_scenes, _BATCH):
        scenes = [draw_scene(pictograms, (seed, place)) for place in range(start, min(start + _BATCH, n_scenes))]
        turn = start // _BATCH % len(numbers)
        for key in (*numbers[turn:], *numbers[:turn]):
            recognizer = recognizers[key[0]]
            pixels = recognizer.prepare([recognizer.preprocessor.view(scene.jpeg) for scene in scenes])
            clock = CpuClock()
            sampled = recognizer.sample(pixels, _TOP_K, image_tokens=key[1], clock=clock)
            found[key].batches.append(clock.seconds)
            for labels, scene in zip(recognizer.rank(sampled), scenes, strict=True):
                found[key].add_scene([label.text for label in labels], scene.labels)
    return found


def measure_speed(recognizer: Recognizer, pixels: Tensor, n_repeats: int) -> dict[int, Measured]:
    """Times of a model of random weights, one repetition behind the other."""
    found = {number: Measured() for number in numbers_of(recognizer.config)}
    for repeat in range(n_repeats + 1):
        for number, measured in found.items():
            clock = CpuClock()
            recognizer.sample(pixels, _TOP_K, max_label_tokens=4, image_tokens=number, clock=clock)
            if repeat:
                measured.batches.append(clock.seconds)
    return found


def numbers_of(config: RecognizerConfig) -> list[int]:
    """The numbers of tokens that are measured of a model, all of them first."""
    return list(dict.fromkeys(max(1, round(config.n_image_tokens * share)) for share in _SHARES))


def difference(values: Sequence[float], base: Sequence[float]) -> str:
    """Mean difference over the scenes with its 95 % interval, by a paired bootstrap, in thousandths."""
    differences = (np.asarray(values) - np.asarray(base)) * 1000
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(len(differences), size=len(differences))].mean() for _ in range(_N_RESAMPLED)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{differences.mean():+.1f} ({low:+.1f} to {high:+.1f})"


def share(measured: Measured, base: Measured) -> str:
    """Median over the batches of the time as a share of the base's on the same batch."""
    return (
        f"{statistics.median(own / whole for own, whole in zip(measured.total_s(), base.total_s(), strict=True)):.2f}"
    )


def image_ms(measured: Measured, n_images: int) -> list[str]:
    """Milliseconds an image: all, and each part."""
    totals = statistics.median(measured.total_s())
    parts = [statistics.median(batch[part] for batch in measured.batches) for part in _PARTS]
    return [f"{1000 * seconds / n_images:.2f}" for seconds in (totals, *parts)]


def recall_rows(found: dict[Key, Measured]) -> list[list[object]]:
    base_key, base = next(iter(found.items()))
    crowded = np.asarray(base.n_objects) >= 5
    rows: list[list[object]] = []
    for key, measured in found.items():
        of_crowded = [np.asarray(one.recalls)[crowded] for one in (measured, base)]
        is_base = key == base_key
        rows.append(
            [
                *key,
                f"{np.mean(measured.recalls):.3f}",
                "" if is_base else difference(measured.recalls, base.recalls),
                "" if is_base else difference(*of_crowded),
                "" if is_base else difference(measured.hits, base.hits),
                *image_ms(measured, _BATCH),
                share(measured, base),
            ]
        )
    return rows


def arithmetic_rows() -> list[list[str]]:
    """Operations of the 1.78B model, by number of tokens."""
    config = RecognizerConfig(
        vision_config=vision_config(1024, 24, 16, 4096, 224),
        text_config=text_config(4096, 6, 32, 11008, 32002),
        prompt_ids=list(range(8)),
        delimiter_id=8,
    )
    text = config.text_config
    rows = []
    for number in numbers_of(config):
        cells = []
        for top_k in (_TOP_K, 100):
            shape = (1, top_k)
            branches = Branches(
                torch.zeros(*shape, _FED_TOKENS + 1, dtype=torch.int64),
                torch.zeros(*shape, _FED_TOKENS + 1),
                torch.full(shape, _FED_TOKENS + 1),
                torch.ones(shape, dtype=torch.bool),
            )
            flops = encode_flops(config) + prefill_flops(config, number) + branch_flops(config, branches, number)
            cells.append(f"{flops / 1e12:.3f}")
        n_values = 2 * text.num_hidden_layers * (number + len(config.prompt_ids)) * text.hidden_size
        rows.append([str(number), *cells, f"{2 * n_values / 1e6:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=606060, help="of scenes that are in no training corpus")
    parser.add_argument("--repeats", type=int, default=9, help="of the larger model's times; the median counts")
    parser.add_argument("--tuned", nargs="*", default=[], help="further models that know the demo's scenes")
    parser.add_argument("--small", action="store_true", help="a tiny model for times, to see that the script runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    # Of one thread CPU seconds are what a machine of its own would take, whoever else computes on this one.
    torch.set_num_threads(1)
    names = {"demo": "demo", **{Path(model).name: model for model in options.tuned}}
    recognizers = {
        name: Recognizer.from_pretrained(model, device="cpu", dtype="float32") for name, model in names.items()
    }
    keys = [("demo", number) for number in _DEMO_TOKENS]
    keys += [(name, number) for name in list(names)[1:] for number in _TUNED_TOKENS]
    found = measure_scenes(recognizers, keys, options.scenes, options.seed)
    plan = comparison_plan(options.small, options.repeats)
    large, pixels = build(plan, "cpu")
    speed = measure_speed(large, pixels, options.repeats)
    text = report(options, found, speed, large.facts(), len(pixels))
    print(text)
    if options.out:
        options.out.write_text(text)


def report(
    options: argparse.Namespace,
    found: dict[Key, Measured],
    speed: dict[int, Measured],
    facts: dict[str, str],
    n_images: int,
) -> str:
    """The result as Markdown."""
    size = "; ".join(f"{part} {facts[part]}" for part in ("image", "encoder", "decoder"))
    parts = ("ms an image", *(f"of it {part}" for part in _PARTS), "share of the time")
    measures = ("recall@10", "difference x 1000", "of it 5 to 6 objects", "hit@1, difference x 1000")
    base = next(iter(speed.values()))
    speed_rows = [[number, *image_ms(one, n_images), share(one, base)] for number, one in speed.items()]
    arithmetic = ("image tokens", "TFLOP an image, k = 20", "k = 100", "prefix cache, MB an image in bfloat16")
    return f"""# Fewer image tokens

{environment("cpu", shlex.join(["python", *sys.argv]))}
- method: {TOKEN_MERGING}

## Recall against time, demo model

{options.scenes:,} scenes of seed {options.seed}, k = {_TOP_K}, batches of {_BATCH}, each labelled with every number
of tokens in turn. Differences are to the first row, in thousandths, with 95 % intervals of a bootstrap over scenes.
Times are CPU time of one thread, medians of the batches; merging belongs to the prefill.

{markdown_table(("model", "image tokens", *measures, *parts), recall_rows(found))}

## Time, larger model

Random weights: {size}, k = {_TOP_K}, batches of {n_images}; {options.repeats} repetitions in turn, medians.

{markdown_table(("image tokens", *parts), speed_rows)}

## Arithmetic, the 1.78B model

Labels of {_FED_TOKENS} tokens, merging included (`one_shot_flops.py`).

{markdown_table(arithmetic, arithmetic_rows())}
"""


if __name__ == "__main__":
    main()
