"""How well photographs are told from the demo model's scenes: alarms on fresh scenes, photographs caught, cost.

    python tests/benchmarks/demo_scenes.py PHOTOGRAPHS [--scenes 5000] [--seed 4000] [--fit] [--out FILE]

PHOTOGRAPHS is a folder of tars. Composes the scenes anew (Debian: apt install fonts-noto-color-emoji). With --fit the
weights are fitted to these scenes and photographs and printed. Whether weights do as well on photographs that they were
not fitted to is told by fitting five times without a fifth of the photographs.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from record import environment, markdown_table

from jobs.demo.scenes import draw_scene, read_pictograms
from model.demo_scenes import is_scene, scene_figures
from model.folder import DEMO_MODEL, resolve_folder
from model.images.preprocessing import ImagePreprocessor

_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_SHARE_OF_ALARMS = 0.007
_FOLDS = 5
_PENALTY = 0.01


def read_crops(folder: Path, preprocessor: ImagePreprocessor) -> list[np.ndarray]:
    crops = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.lower().endswith((".jpg", ".jpeg", ".png")) and (file := archive.extractfile(member)):
                    crops.append(preprocessor.view(file.read()))
    return crops


def fit(scenes: np.ndarray, photographs: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of a logistic regression, and the limit that 7 scenes in 1,000 lie above."""
    figures = np.concatenate([scenes, photographs])
    mean, deviation = scenes.mean(axis=0), scenes.std(axis=0)
    inputs = torch.tensor((figures - mean) / deviation)
    targets = torch.tensor([0.0] * len(scenes) + [1.0] * len(photographs), dtype=torch.float64)
    balance = torch.where(targets > 0, len(scenes) / len(photographs), 1.0)
    parameters = torch.zeros(scenes.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=500)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ parameters[1:] + parameters[0]
        missed = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, weight=balance)
        value = missed + _PENALTY * parameters[1:].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    weights = parameters.detach().numpy()[1:] / deviation
    return weights, float(np.quantile(scenes @ weights, 1 - _SHARE_OF_ALARMS))


def catch_of_others(scenes: np.ndarray, photographs: np.ndarray) -> float:
    """The share caught of photographs that the weights were not fitted to."""
    order = np.random.default_rng(0).permutation(len(photographs))
    caught = []
    for fold in range(_FOLDS):
        left_out = order[fold::_FOLDS]
        weights, limit = fit(scenes, photographs[np.setdiff1d(order, left_out)])
        caught.extend(photographs[left_out] @ weights > limit)
    return float(np.mean(caught))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--scenes", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=4000, help="of scenes that nothing was fitted to")
    parser.add_argument("--fit", action="store_true", help="fit the weights to these scenes and print them")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    preprocessor = ImagePreprocessor.from_pretrained(resolve_folder(DEMO_MODEL))
    pictograms = read_pictograms(_FONT)
    scenes = [preprocessor.view(draw_scene(pictograms, (options.seed, i)).jpeg) for i in range(options.scenes)]
    photographs = read_crops(options.photographs, preprocessor)
    started = time.process_time()
    alarms = np.mean([not is_scene(crop) for crop in scenes])
    cost_ms = (time.process_time() - started) / len(scenes) * 1e3
    caught = np.mean([not is_scene(crop) for crop in photographs])
    figures = [np.array([list(scene_figures(crop).values()) for crop in crops]) for crops in (scenes, photographs)]
    if options.fit:
        weights, limit = fit(*figures)
        print(dict(zip(scene_figures(scenes[0]), weights.round(3), strict=True)), "limit", round(limit, 3))
    rows = [
        ("false alarms", f"{len(scenes):,} scenes of seed {options.seed}", f"{alarms:.2%}", "under 1 %"),
        ("photographs caught", f"{len(photographs):,} of COCO", f"{caught:.1%}", "over 90 %"),
        (
            "photographs caught that were left out of the fit",
            "the same",
            f"{catch_of_others(*figures):.1%}",
            "over 90 %",
        ),
        ("CPU time an image", "the model's view of a scene", f"{cost_ms:.2f} ms", ""),
    ]
    text = f"""# Photographs told from the demo model's scenes

{environment("cpu", f"python {' '.join(sys.argv)}")}

{markdown_table(["what", "on", "measured", "goal"], rows)}
"""
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
