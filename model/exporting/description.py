"""What is said of an exported recognizer, for programs (manifest.json) and for people (README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.exporting.graph_files import WEIGHTS_FILE, graph_file, read_graph
from model.exporting.signatures import signatures_of
from model.nxtp.recognizer import Recognizer

MANIFEST_FILE, PAGE_FILE = "manifest.json", "README.md"
# Raised when a program that reads the folder would have to change.
_FORMAT = 1

_PAGE = Path(__file__).with_name("folder_page.md")


def describe(recognizer: Recognizer, folder: Path, name: str, fingerprint: str, precision: str) -> None:
    """Writes what is needed beside graphs to run them: manifest, page, tokenizer, preprocessing.

    Args:
        folder: has the graphs.
        name, fingerprint: of the model that was exported.
        precision: of the linear layers.
    """
    recognizer.preprocessor.save_pretrained(folder)
    recognizer.tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    config, preprocessor = recognizer.config, recognizer.preprocessor
    graphs = {
        graph: {"file": graph_file(graph), **signature.describe()} for graph, signature in signatures_of(config).items()
    }
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "model": name,
        "fingerprint": fingerprint,
        "precision": precision,
        "opset": read_graph(folder, next(iter(graphs))).opset_imports[""],
        "weights": WEIGHTS_FILE,
        "graphs": graphs,
        "image_size": preprocessor.image_size,
        "image_mean": list(preprocessor.image_mean),
        "image_std": list(preprocessor.image_std),
        "prompt_ids": config.prompt_ids,
        "delimiter_id": config.delimiter_id,
        "max_label_tokens": config.max_label_tokens,
    }
    Path(folder, MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")
    Path(folder, PAGE_FILE).write_text(_PAGE.read_text().replace("NAME", name))
