"""Branches that onnxruntime decodes, by the three graphs of an exported recognizer.

Shape suffixes: B images, C channels, A slots of an image, M open branches of all images together, N branches that go
on, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.exporting.graph_files import graph_file
from model.exporting.signatures import ENCODER, PREFILL, STEP


class Graphs:
    """The graphs of a folder, loaded by onnxruntime."""

    def __init__(self, folder: Path, n_threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        self._sessions = {
            name: onnxruntime.InferenceSession(folder / graph_file(name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, PREFILL, STEP)
        }

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a graph by their names."""
        session = self._sessions[name]
        outputs = [output.name for output in session.get_outputs()]
        return dict(zip(outputs, session.run(outputs, inputs), strict=True))

    def open_images(self, pixel_values_BCHW: Tensor) -> GraphBranches:
        """Encodes and prefills images, over which branches may then be opened."""
        encoded = self.run(ENCODER, {"pixel_values": pixel_values_BCHW.numpy()})
        return GraphBranches(self, self.run(PREFILL, encoded))


class GraphBranches:
    """Branches over the prefixes of a batch. A `model.branches.BranchDecoder`."""

    def __init__(self, graphs: Graphs, prefilled: dict[str, Any]) -> None:
        self._graphs = graphs
        self.first_logits_BV = torch.from_numpy(prefilled.pop("logits"))
        self._prefix = prefilled

    def open(self, image_M: Tensor) -> None:
        self._image_M = image_M.numpy()
        self._past = {
            name.replace("prefix", "past"): np.zeros((len(image_M), cache.shape[1], 0, cache.shape[3]), np.float32)
            for name, cache in self._prefix.items()
        }

    def step(self, token_ids_M: Tensor) -> Tensor:
        inputs = {"token_ids": token_ids_M.numpy(), **self._places(), **self._prefix, **self._past}
        outputs = self._graphs.run(STEP, inputs)
        logits = torch.from_numpy(outputs.pop("logits"))
        self._past = {name.replace("present", "past"): cache for name, cache in outputs.items()}
        return logits

    def keep(self, places_N: Tensor) -> None:
        self._image_M = self._image_M[places_N.numpy()]
        self._past = {name: cache[places_N.numpy()] for name, cache in self._past.items()}

    def _places(self) -> dict[str, np.ndarray]:
        """Where each branch stands among those of its image, and which stands where."""
        n_images = len(self.first_logits_BV)
        n_live_B = np.bincount(self._image_M, minlength=n_images)
        slot_M = np.arange(len(self._image_M)) - (n_live_B.cumsum() - n_live_B)[self._image_M]
        branch_BA = np.zeros((n_images, n_live_B.max()), np.int64)
        branch_BA[self._image_M, slot_M] = np.arange(len(slot_M))
        return {"image_of_branch": self._image_M, "slot_of_branch": slot_M, "branch_of_slot": branch_BA}
