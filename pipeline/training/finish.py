"""What a finished training leaves: the model's folder with its metrics, its curves and its card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.storage.files import open_filesystem, storage_errors
from pipeline.storage.model_cache import load_recognizer
from pipeline.training.card import write_card
from pipeline.training.checkpoints import Checkpoints, TrainingState, upload_folder
from pipeline.training.curves import draw_curves
from pipeline.training.recall_sum import MEASURES

METRICS_FILE = "metrics.parquet"
CURVES_FILE = "training.png"
CARD_FILE = "README.md"
METRICS = pa.schema(
    [
        ("step", pa.int64()),
        ("label_loss", pa.float64()),
        ("denoise_loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("gradient_norm", pa.float64()),
        ("images_per_s", pa.float64()),
        ("wait_share", pa.float64()),
        ("n_unreadable", pa.int64()),
        ("seconds", pa.float64()),
        *((name, pa.float64()) for name in MEASURES),
    ]
)


def write_finished_folder(
    out: str, checkpoints: Checkpoints, last: TrainingState, step: int, facts: Mapping[str, Any]
) -> None:
    """Writes the weights of a checkpoint, metrics, curves and card into `out`.

    Args:
        last: the state at the end, whose metrics are told.
        step: of the checkpoint whose weights are taken.
        facts: what the card tells besides: source, command, versions.
    """
    filesystem, path = open_filesystem(out)
    metrics = metrics_table(last)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recognizer = load_recognizer(checkpoints.folder(step), "cpu")
        recognizer.module.to(getattr(torch, last.settings["dtype"]))
        recognizer.save_pretrained(folder)
        pq.write_table(metrics, folder / METRICS_FILE)
        draw_curves(metrics, folder / CURVES_FILE)
        write_card(folder / CARD_FILE, metrics, last.settings, step, facts)
        with storage_errors(f"write the model to {out}"):
            filesystem.makedirs(path, exist_ok=True)
            upload_folder(filesystem, folder, path.rstrip("/"), last="config.json")


def metrics_table(state: TrainingState) -> pa.Table:
    """One row every few steps: losses are means since the row before, recalls stand where they were measured."""
    rows = [{name: row.get(name) for name in METRICS.names} for row in state.metrics]
    return pa.Table.from_pylist(rows, schema=METRICS)
