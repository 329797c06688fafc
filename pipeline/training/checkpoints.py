"""Checkpoints: model folders with the optimizer's state beside the weights, whole or not there."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.storage.files import full_url, is_local, open_filesystem, storage_errors
from pipeline.text import one_line
from pipeline.training.examples import Position

STATE_FILE = "training.json"
_TENSORS_FILE = "training.safetensors"
_PARTIAL = ".writing-"
_FOLDER_MODE = 0o755
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """Where a training run stands, besides its weights and the optimizer."""

    step: int
    """How many steps are done."""
    positions: list[Position]
    """Where each worker stands in the order of its examples."""
    settings: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    best_step: int | None = None
    best_recall: float | None = None
    """Mean of hit@1, recall@5 and recall@10 of the best step, 0 to 1."""
    seconds: float = 0.0
    """Time spent training, in seconds."""


class Checkpoints:
    """The checkpoints of a training run under `<out>/checkpoints/step-<8 digits>/`, local or on an object store.

    A checkpoint counts once its training.json is there. Locally the folder is written beside and renamed; on an object
    store training.json is written last.
    """

    def __init__(self, out: str) -> None:
        self.out = out
        self._filesystem, self._out_path = open_filesystem(out)
        self._root = f"{self._out_path.rstrip('/')}/checkpoints"

    def steps(self) -> list[int]:
        """Steps of all whole checkpoints, ascending."""
        with storage_errors(f"list the checkpoints of {self.out}"):
            found = self._filesystem.find(self._root, maxdepth=2)
        paths = [PurePosixPath(path) for path in found]
        names = [path.parent.name for path in paths if path.name == STATE_FILE]
        return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))

    def folder(self, step: int) -> str:
        """A checkpoint's folder, a path or URL that models are loaded from."""
        return full_url(self._filesystem, f"{self._root}/{_name(step)}")

    def read_state(self, step: int) -> TrainingState:
        path = f"{self._root}/{_name(step)}/{STATE_FILE}"
        with storage_errors(f"read the checkpoint {path}"):
            content = self._filesystem.cat_file(path)
        try:
            values = json.loads(content)
            return TrainingState(**{**values, "positions": [Position(**position) for position in values["positions"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{path} is damaged: {one_line(error)}; delete it and resume again") from error

    def read_tensors(self, step: int) -> dict[str, Tensor]:
        """The optimizer's and the denoiser's tensors."""
        path = f"{self._root}/{_name(step)}/{_TENSORS_FILE}"
        with storage_errors(f"read the checkpoint {path}"), tempfile.TemporaryDirectory() as folder:
            local = Path(folder, _TENSORS_FILE)
            self._filesystem.get_file(path, str(local))
            try:
                return load_file(local)
            except SafetensorError as error:
                raise StoreError(f"{path} is damaged: {one_line(error)}; delete it and resume again") from error

    def write(self, recognizer: Any, state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
        """Writes a checkpoint whole. Raises StoreError, leaving nothing behind, where it cannot."""
        try:
            with storage_errors(f"write the checkpoint of step {state.step} to {self.out}"):
                try:
                    self._write(recognizer, state, tensors)
                except SafetensorError as error:
                    # What a full disk looks like from there.
                    raise OSError(str(error)) from error
        except StoreError as error:
            raise StoreError(
                f"{error}; {self._describe_last()}. Make room or mend the access, then run again with --resume"
            ) from error

    def prune(self, keep: int, best_step: int | None) -> None:
        """Deletes all but the last `keep` checkpoints and the best."""
        steps = self.steps()
        for step in steps[:-keep]:
            if step != best_step:
                path = f"{self._root}/{_name(step)}"
                with storage_errors(f"delete the checkpoint {path}"):
                    self._delete(path)

    def _describe_last(self) -> str:
        """The last whole checkpoint, as part of a sentence."""
        try:
            steps = self.steps()
        except StoreError:
            return "the others cannot be listed"
        return f"the last whole one is that of step {steps[-1]}" if steps else "there is none yet"

    def _write(self, recognizer: Any, state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
        target = f"{self._root}/{_name(state.step)}"
        parent = Path(self._root) if is_local(self._filesystem) else None
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
            # What a killed process left of a checkpoint.
            for partial in parent.glob(f"{_PARTIAL}*"):
                shutil.rmtree(partial, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=parent))
        try:
            recognizer.save_pretrained(folder)
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, folder / _TENSORS_FILE)
            (folder / STATE_FILE).write_text(json.dumps(asdict(state)))
            if parent is not None:
                folder.chmod(_FOLDER_MODE)
                shutil.rmtree(target, ignore_errors=True)
                folder.rename(target)
                return
            self._upload(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _upload(self, folder: Path, target: str) -> None:
        """Copies a checkpoint to an object store; one that breaks off leaves nothing, one written anew no old mark."""
        self._delete(target)
        try:
            upload_folder(self._filesystem, folder, target, last=STATE_FILE)
        except BaseException:
            with contextlib.suppress(Exception):
                self._delete(target)
            raise

    def _delete(self, path: str) -> None:
        # Its mark first: what is deleted by half must not pass for whole.
        if self._filesystem.exists(f"{path}/{STATE_FILE}"):
            self._filesystem.rm_file(f"{path}/{STATE_FILE}")
        if self._filesystem.exists(path):
            self._filesystem.rm(path, recursive=True)


def upload_folder(filesystem: Any, folder: Path, target: str, last: str) -> None:
    """Copies a folder's files to a place on any filesystem; the file named `last` comes last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        filesystem.put_file(str(path), f"{target}/{path.name}")


def optimizer_tensors(optimizers: Iterable[torch.optim.Optimizer], names: Mapping[int, str]) -> dict[str, Tensor]:
    """The optimizers' state as flat tensors, `<parameter>//<name of the state>`; each parameter belongs to one of them.

    Args:
        names: names of the parameters by their id().
    """
    return {
        f"{names[id(parameter)]}//{key}": value
        for optimizer in optimizers
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizers(
    optimizers: Iterable[torch.optim.Optimizer], names: Mapping[int, str], tensors: Mapping[str, Tensor]
) -> None:
    """Puts the tensors of `optimizer_tensors` back."""
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.partition("//")
        by_parameter.setdefault(parameter, {})[key] = tensor
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                for key, tensor in by_parameter.get(names[id(parameter)], {}).items():
                    # The count of steps stays on the CPU, as AdamW makes it.
                    device = "cpu" if key == "step" and not group.get("fused") else parameter.device
                    optimizer.state[parameter][key] = tensor.to(device)


def _name(step: int) -> str:
    return f"step-{step:08d}"
