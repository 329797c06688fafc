"""What labels of whole pictures bring over those of their centre, and cost: the demo model on scenes of five shapes.

    python tests/benchmarks/views.py [--scenes 1000] [--seed 7100] [--small] [--out FILE]
    python tests/benchmarks/views.py --few-labels [...]      what squares lose that share few branches

Composes the scenes anew (Debian: apt install fonts-noto-color-emoji). Differences are paired: every variant labels the
same scenes. Time is CPU time of one thread from encoded bytes to joined labels, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from one_shot import comparison_plan
from record import environment, markdown_table

from jobs.demo.scenes import Scene, draw_scene, read_pictograms, scene_size
from model import Label, Recognizer
from model.choices import find_ranking
from model.images.views import count_squares, cut_batches, most_squares, share_branches
from model.joined_views import join_views
from tests.fixtures.recognizers.random_recognizer import random_recognizer

_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_ASPECTS = ("1:1", "4:3", "3:2", "2:1", "9:16")
_FEW_ASPECTS, _FEW_BRANCHES = ("3:2", "2:1"), (3, 5, 10, 20)
_TOP_K = 20
_BATCH = 32
_N_RESAMPLED = 4000
_SURE = 0.1
_PROB = find_ranking("prob")
Found = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to see a picture: squares, branches of each, the share of its image tokens that the decoder reads."""

    name: str
    views: str = "whole"
    shares_branches: bool = False
    join: str = "max"
    token_share: float = 1.0
    """Of pictures with several squares."""

    def branches(self, n_views: int, top_k: int = _TOP_K) -> int:
        return share_branches(top_k, n_views) if self.shares_branches else top_k


VARIANTS = (
    Variant("centre", "centre"),
    Variant("whole, max, k = 20 each"),
    Variant("whole, mean, k = 20 each", join="mean"),
    Variant("whole, max, k shared", shares_branches=True),
    Variant("whole, mean, k shared", shares_branches=True, join="mean"),
    Variant("whole, max, k shared, half of the tokens", shares_branches=True, token_share=0.5),
    Variant("whole, max, k shared, a quarter of the tokens", shares_branches=True, token_share=0.25),
)


def join_mean(n_views: Sequence[int], found: dict[tuple[int, int], list[Label]]) -> list[Found]:
    """A view that lacks a label gives it 0."""
    images = []
    for image, n in enumerate(n_views):
        sums: dict[str, float] = {}
        for label in (label for view in range(n) for label in found[image, view]):
            sums[label.text] = sums.get(label.text, 0.0) + label.score / n
        images.append(sorted(sums.items(), key=lambda scored: -scored[1]))
    return images


def find_labels(
    recognizer: Recognizer, variant: Variant, jpegs: Sequence[bytes], batch: int = _BATCH, top_k: int = _TOP_K
) -> list[Found]:
    """Labels of each picture with their scores, the best first."""
    seen = [recognizer.preprocessor.views(jpeg, most_squares(variant.views)) for jpeg in jpegs]
    n_views = [len(squares) for squares in seen]
    places, ranked = cut_batches(n_views, batch), []
    for of_batch in places:
        n = n_views[of_batch[0][0]]
        n_tokens = round(recognizer.config.n_image_tokens * variant.token_share) if n > 1 else 0
        squares = recognizer.prepare([seen[image][view] for image, view in of_batch])
        sampled = recognizer.sample(squares, variant.branches(n, top_k), image_tokens=n_tokens)
        ranked.append(recognizer.rank_batch(sampled, _PROB.name))
    if variant.join == "max":
        joined = join_views(ranked, places, len(jpegs), _PROB, 10**6)
        return [[(label.text, label.score) for label in labels] for labels in joined.to_lists()]
    found = {
        place: labels
        for of_batch, places_of in zip(ranked, places, strict=True)
        for place, labels in zip(places_of, of_batch.to_lists(), strict=True)
    }
    return join_mean(n_views, found)


def measure(labels: Sequence[tuple[str, float]], truth: Sequence[str]) -> list[float]:
    """Recall@10, recall@1, precision@5, and of the labels that score 0.1 or more recall, true ones and number."""
    names = [name for name, _ in labels]
    sure = [name for name, score in labels if score >= _SURE]
    true = set(truth)
    return [
        len(true.intersection(names[:10])) / len(true),
        len(true.intersection(names[:1])) / len(true),
        len(true.intersection(names[:5])) / 5,
        len(true.intersection(sure)) / len(true),
        len(true.intersection(sure)),
        len(sure),
    ]


def draws(n_scenes: int) -> np.ndarray:
    """How often each resampling draws each scene, [resamplings, scenes]; the same for every variant."""
    rng = np.random.default_rng(0)
    return rng.multinomial(n_scenes, np.full(n_scenes, 1 / n_scenes), _N_RESAMPLED).astype(np.float32)


def figures(of_scenes: np.ndarray) -> np.ndarray:
    """Recall@10, recall@1, precision@5, recall and precision of the sure labels, from means over scenes, [..., 5]."""
    precision = of_scenes[..., 4:5] / np.maximum(of_scenes[..., 5:6], 1e-9)
    return np.concatenate([of_scenes[..., :4], precision], axis=-1)


def quality_rows(measured: dict[str, np.ndarray], n_squares: int, drawn: np.ndarray) -> list[list[str]]:
    """A row a variant: its figures, and the differences from the first, x 1000, with 95 %."""
    base = next(iter(measured.values()))
    resampled_base = figures(drawn @ base / len(base))
    rows = []
    for name, values in measured.items():
        mean, mean_base = figures(values.mean(axis=0)), figures(base.mean(axis=0))
        low, high = np.quantile(figures(drawn @ values / len(values)) - resampled_base, [0.025, 0.975], axis=0)
        cells = [f"{value:.3f}" for value in mean]
        if values is not base:
            cells = [
                f"{value:.3f} {1000 * (value - former):+.0f} [{1000 * lower:.0f}, {1000 * upper:.0f}]"
                for value, former, lower, upper in zip(mean, mean_base, low, high, strict=True)
            ]
        rows.append([name, str(1 if values is base else n_squares), *cells])
    return rows


def cost_rows(
    models: dict[str, Recognizer], variants: Sequence[Variant], n_rounds: int, n_scenes: int
) -> list[list[str]]:
    """A row a variant: CPU time beside that of the first, by model and shape; the median of rounds in turns."""
    pictograms = read_pictograms(_FONT)
    cells: dict[str, list[str]] = {variant.name: [] for variant in variants}
    for name, recognizer in models.items():
        for aspect in ("1:1", "3:2"):
            size = scene_size(aspect)
            n = n_scenes if name == "demo" else 4
            jpegs = [draw_scene(pictograms, (1, number), size=size).jpeg for number in range(n)]
            seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
            for turn in range(n_rounds + 1):
                for place in range(len(variants)):
                    variant = variants[(place + turn) % len(variants)]
                    started = time.process_time()
                    find_labels(recognizer, variant, jpegs, n)
                    seconds[variant.name].append(time.process_time() - started)
            base = seconds[variants[0].name][1:]
            for variant in variants:
                ratios = [own / former for own, former in zip(seconds[variant.name][1:], base, strict=True)]
                cells[variant.name].append(
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                    if variant is not variants[0]
                    else f"{statistics.median(base) / n * 1e3:.1f} ms"
                )
    return [[name, *of_variant] for name, of_variant in cells.items()]


def few_rows(recognizer: Recognizer, n_scenes: int, seed: int) -> list[list[str]]:
    """A row a shape and number of labels k: recall@k of the centre, and of two squares that do not share k and do."""
    pictograms, drawn = read_pictograms(_FONT), draws(n_scenes) / n_scenes
    rows = []
    for number, aspect in enumerate(_FEW_ASPECTS):
        scenes = [draw_scene(pictograms, (seed + number, place), size=scene_size(aspect)) for place in range(n_scenes)]
        for top_k in _FEW_BRANCHES:
            centre, apart, shared = (
                np.array(recalls(recognizer, variant, scenes, top_k), np.float32)
                for variant in (VARIANTS[0], VARIANTS[1], VARIANTS[3])
            )
            low, high = np.quantile(drawn @ (shared - apart), [0.025, 0.975])
            lost = f"{1000 * (shared - apart).mean():+.0f} [{1000 * low:.0f}, {1000 * high:.0f}]"
            rows.append([aspect, str(top_k), *(f"{found.mean():.3f}" for found in (centre, apart, shared)), lost])
    return rows


def recalls(recognizer: Recognizer, variant: Variant, scenes: Sequence[Scene], top_k: int) -> list[float]:
    """Of each scene the share of its objects among the first `top_k` labels."""
    found = []
    for start in range(0, len(scenes), _BATCH):
        part = scenes[start : start + _BATCH]
        for labels, scene in zip(
            find_labels(recognizer, variant, [scene.jpeg for scene in part], top_k=top_k), part, strict=True
        ):
            true = set(scene.labels)
            found.append(len(true.intersection(name for name, _ in labels[:top_k])) / len(true))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenes", type=int, default=1000, help="of each shape")
    parser.add_argument("--seed", type=int, default=7100, help="of the first shape; the next have the next ones")
    parser.add_argument("--rounds", type=int, default=9, help="of the timed labelling")
    parser.add_argument("--few-labels", action="store_true", help="measure few branches, and nothing else")
    parser.add_argument("--small", action="store_true", help="a few scenes, to see that the benchmark runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    n_scenes, n_rounds = (12, 1) if options.small else (options.scenes, options.rounds)
    recognizer = Recognizer.from_pretrained("demo", device="cpu")
    if options.few_labels:
        text = few_report(n_scenes, options.seed, few_rows(recognizer, n_scenes, options.seed))
    else:
        plan = comparison_plan(options.small, None)
        benchmark_size = random_recognizer(vision=plan.vision, text=plan.text, end_share=plan.end_share)
        text = report(
            n_scenes,
            quality_tables(recognizer, VARIANTS, n_scenes, options.seed),
            cost_rows({"demo": recognizer, "benchmark size": benchmark_size}, VARIANTS, n_rounds, 32),
        )
    print(text)
    if options.out:
        options.out.write_text(text)


def quality_tables(
    recognizer: Recognizer, variants: Sequence[Variant], n_scenes: int, seed: int
) -> dict[str, list[list[str]]]:
    """Rows of `quality_rows` by shape."""
    pictograms, drawn = read_pictograms(_FONT), draws(n_scenes)
    tables = {}
    for number, aspect in enumerate(_ASPECTS):
        size = scene_size(aspect)
        scenes: list[Scene] = [draw_scene(pictograms, (seed + number, place), size=size) for place in range(n_scenes)]
        measured: dict[str, np.ndarray] = {}
        for variant in variants:
            values = []
            for start in range(0, n_scenes, _BATCH):
                part = scenes[start : start + _BATCH]
                found = find_labels(recognizer, variant, [scene.jpeg for scene in part])
                values += [measure(labels, scene.labels) for labels, scene in zip(found, part, strict=True)]
            measured[variant.name] = np.array(values, np.float32)
        tables[f"{aspect} (seed {seed + number})"] = quality_rows(measured, count_squares(*size, 4), drawn)
        print(f"{aspect} is measured", file=sys.stderr)
    return tables


def few_report(n_scenes: int, seed: int, rows: list[list[str]]) -> str:
    """The result as Markdown."""
    header = ["scenes", "k", "centre", "whole, k each", "whole, k shared", "shared against each, x 1000"]
    return f"""# Views that share few branches

{environment("cpu", f"python {' '.join(sys.argv)}")}
- the demo model, {n_scenes:,} fresh scenes of each shape (seed {seed} and the next), recall of the first k labels
- k is the run's `top_k`; the difference has 95 % (paired bootstrap over scenes)

{markdown_table(header, rows)}
"""


def report(n_scenes: int, tables: dict[str, list[list[str]]], costs: list[list[str]]) -> str:
    """The result as Markdown."""
    sure = [f"{what} from {_SURE} on" for what in ("recall", "precision")]
    header = ["labels of", "squares", "recall@10", "recall@1", "precision@5", *sure]
    qualities = "\n\n".join(f"## {shape}\n\n{markdown_table(header, rows)}" for shape, rows in tables.items())
    cost_header = ["labels of", "demo, 1:1", "demo, 3:2", "benchmark size, 1:1", "benchmark size, 3:2"]
    return f"""# Views: whole pictures against their centre

{environment("cpu", f"python {' '.join(sys.argv)}")}
- the demo model, k = {_TOP_K} a picture, {n_scenes:,} fresh scenes of each shape, ranking prob
- differences from the centre are x 1000, with 95 % (paired bootstrap over scenes)
- "k shared": the squares of a picture have {_TOP_K} branches together. Tokens are spared where there are several.
- the mean counts 0 for a square that lacks the label

{qualities}

## Cost

CPU time of one thread from encoded bytes to joined labels; times the centre's, the median of rounds in turns (lowest to
highest). The first row is the centre's milliseconds a picture. The benchmark size has 256 image tokens, the demo 36.

{markdown_table(cost_header, costs)}
"""


if __name__ == "__main__":
    main()
