"""Scores of a list of names beside the labels: what they cost, and how much of a list is found.

    python tests/benchmarks/listed_names.py [--images 32] [--scenes 1000] [--seed 1000] [--out FILE]

Runs the demo model in this process, on scenes that are composed anew (Debian: apt install fonts-noto-color-emoji).
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from record import environment, markdown_table

from jobs.demo.scenes import Scene, draw_scene, pictogram_names, read_pictograms
from model import Recognizer
from pipeline.naming.name_list import NameList

_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_BATCH = 16
_TOP_K = 20
_N_COMPARED = 300
# Every seventh of the model's names: 47 of 326.
_STEP = 7
_N_NAIVE_IMAGES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=32, help="of each measurement of speed")
    parser.add_argument("--scenes", type=int, default=1000, help="of which those with a name of the list are judged")
    parser.add_argument("--seed", type=int, default=1000, help="of scenes that are in no training corpus")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    # Of one thread CPU seconds are what a machine of its own would take, whoever else computes on this one.
    torch.set_num_threads(1)
    recognizer = Recognizer.from_pretrained("demo", device="cpu", dtype="float32")
    pictograms = read_pictograms(_FONT)
    scenes = [draw_scene(pictograms, (options.seed, number)) for number in range(options.scenes)]
    # The least memory first: it is the largest until then that is told.
    costs = measure_costs(recognizer, pixels_of(recognizer, scenes[: options.images]))
    naive = compare_with_naive(recognizer, pixels_of(recognizer, scenes[:_N_NAIVE_IMAGES]))
    found = measure_recall(recognizer, scenes)
    text = report(naive, costs, found)
    print(text)
    if options.out:
        options.out.write_text(text)


def pixels_of(recognizer: Recognizer, scenes: Sequence[Scene]) -> torch.Tensor:
    return recognizer.prepare([recognizer.preprocessor.view(scene.jpeg) for scene in scenes])


def compare_with_naive(recognizer: Recognizer, pixels_B3HW: torch.Tensor) -> list[str]:
    """Seconds of the trie and of a pass of prefix and name for each name, and how far their scores are apart."""
    names = sorted(pictogram_names())[:_N_COMPARED]
    listed = recognizer.list_names([[name] for name in names], len(pixels_B3HW))
    trie_s, (scores_BN,) = timed(lambda: recognizer.score_prepared(pixels_B3HW, [listed]), 3)
    naive_s, expected_BN = timed(lambda: score_naively(recognizer, pixels_B3HW, names), 1)
    difference_BN = (scores_BN - expected_BN).abs()
    largest = float((difference_BN / expected_BN.abs()).max())
    assert largest < 3e-5, f"the scores differ by {largest:.1e}"
    return [str(len(names)), f"{trie_s:.2f}", f"{naive_s:.1f}", f"{naive_s / trie_s:.0f} x", f"{largest:.1e}"]


@torch.inference_mode()
def score_naively(recognizer: Recognizer, pixels_B3HW: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Log probabilities [B, names], each by a pass of its own through image tokens, prompt and name."""
    module, delimiter_id = recognizer.module, recognizer.config.delimiter_id
    image_BND = module.encode_images(pixels_B3HW)
    prompt_BS = module.placeholder_ids(len(image_BND))
    scores = []
    for name in names:
        ids = torch.tensor([*recognizer.tokenizer.encode(name, add_special_tokens=False), delimiter_id])
        input_BL = torch.cat([prompt_BS, ids[:-1].expand(len(image_BND), -1)], dim=1)
        logits_BLV = module(input_ids=input_BL, image_embeds=image_BND, use_cache=False).logits.float()
        log_BTV = logits_BLV[:, -len(ids) :].log_softmax(dim=-1)
        scores.append(log_BTV.gather(2, ids.expand(len(image_BND), -1)[:, :, None]).sum(dim=(1, 2)))
    return torch.stack(scores, dim=1)


def measure_costs(recognizer: Recognizer, pixels: torch.Tensor) -> list[list[str]]:
    """Images a second and the process's largest memory: labels alone, and with lists of several lengths."""
    own = sorted(pictogram_names())
    pairs = [" ".join(pair) for pair in itertools.permutations(own, 2)]
    rows = []
    for n_names in (0, 100, 326, 5000):
        names = [*own, *pairs][:n_names]
        lists = [recognizer.list_names([[name] for name in names], _BATCH)] if names else []

        def label(lists: Sequence[object] = lists) -> None:
            for start in range(0, len(pixels), _BATCH):
                recognizer.rank(recognizer.sample(pixels[start : start + _BATCH], _TOP_K, names=lists))

        seconds, _ = timed(label, 2)
        memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        n_nodes = sum(
            len(level.token_ids_N) for of_list in lists for trie in of_list.labels.tries for level in trie.levels
        )
        rows.append([f"{n_names:,}", f"{n_nodes:,}", f"{len(pixels) / seconds:.1f}", f"{memory_mib:,.0f}"])
    return rows


def measure_recall(recognizer: Recognizer, scenes: Sequence[Scene]) -> list[list[object]]:
    """Recall of the names of a list: of its scores, and of open labels that are filtered to it."""
    names = sorted(pictogram_names())[::_STEP]
    listed = recognizer.list_names([[name] for name in names], _BATCH)
    keeps = NameList(title="list", names={name: (name,) for name in names}, top=0)
    found: dict[str, list[list[str]]] = {"listed": [], "open k = 20, filtered": [], "open k = 50, filtered": []}
    for start in range(0, len(scenes), _BATCH):
        batch = pixels_of(recognizer, scenes[start : start + _BATCH])
        (scores,) = recognizer.score_prepared(batch, [listed])
        found["listed"] += [[names[place] for place in keeps.best(image[None])[1]] for image in scores.numpy()]
        for top_k in (20, 50):
            labels = recognizer.label_pixels(batch, top_k)
            found[f"open k = {top_k}, filtered"] += [
                [label.text for label in image if label.text in keeps.names] for image in labels
            ]
    true_names = [set(scene.labels) & set(names) for scene in scenes]
    n_judged = sum(map(bool, true_names))
    return [
        [how, n_judged, *(f"{recall_at(k, ranked, true_names):.4f}" for k in (1, 5, 10, 20))]
        for how, ranked in found.items()
    ]


def recall_at(k: int, ranked: Sequence[Sequence[str]], truths: Sequence[set[str]]) -> float:
    """Mean over the images with a true name of the share of these among the first k."""
    return float(
        np.mean(
            [
                len(truth.intersection(names[:k])) / len(truth)
                for names, truth in zip(ranked, truths, strict=True)
                if truth
            ]
        )
    )


def timed(work: Callable[[], object], repetitions: int) -> tuple[float, object]:
    """The least CPU seconds of some repetitions, and what the work returned."""
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return min(seconds), result


def report(naive: list[str], costs: list[list[str]], found: list[list[object]]) -> str:
    """The result as Markdown."""
    return f"""# Scores of a list of names

{environment("cpu", f"python {' '.join(sys.argv)}")}

## Against a pass for each name

{_N_NAIVE_IMAGES} images, float32, seconds of one CPU; the trie's have the encoding of the images in them. The scores
are log probabilities.

{markdown_table(["names", "trie, s", "pass a name, s", "faster", "largest relative difference"], [naive])}

## Beside the labels

Open labels (k = {_TOP_K}) and a list in one pass, batches of {_BATCH}, on one CPU. A list of 0 names is open labels
alone. 5,000 names are the model's 326 and pairs of them. Memory is the process's largest until then.

{markdown_table(["names", "nodes of the trie", "images/s", "memory, MiB"], costs)}

## What is found of a list

47 of the model's 326 names; scenes with any of them; recall over an image's true names that are in the list.

{markdown_table(["labels", "scenes", "recall@1", "recall@5", "recall@10", "recall@20"], found)}
"""


if __name__ == "__main__":
    main()
