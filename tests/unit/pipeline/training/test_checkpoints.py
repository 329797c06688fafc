"""Checkpoints on a disk and on S3: what was written comes back bit for bit, and only what is whole counts."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from model import Recognizer
from pipeline.errors import StoreError
from pipeline.storage.files import open_filesystem
from pipeline.storage.model_cache import fetch_model
from pipeline.training.checkpoints import (
    Checkpoints,
    TrainingState,
    optimizer_tensors,
    restore_optimizers,
    upload_folder,
)
from pipeline.training.examples import Position
from pipeline.training.settings import TrainSettings

STATE = TrainingState(
    step=20,
    positions=[Position(0, 17), Position(3, 0)],
    settings=TrainSettings(steps=40, noise_words=("größe",)).described(),
    metrics=[{"step": 10, "label_loss": 1.25, "recall_10": None}, {"step": 20, "label_loss": 0.1, "recall_10": 0.75}],
    best_step=10,
    best_recall=0.1 + 0.2,
    seconds=12.5,
)
TENSORS = {"head.weight//exp_avg": torch.arange(6.0).reshape(2, 3), "head.weight//step": torch.tensor(3.0)}
FAILURES = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


class FileRecognizer:
    """Writes one small file where a recognizer writes its folder: these tests look at what stands around it."""

    def save_pretrained(self, path: str | Path) -> None:
        Path(path, "model.safetensors").write_bytes(b"weights")


class FailingRecognizer:
    """Fails when half of it is written."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def save_pretrained(self, path: str | Path) -> None:
        Path(path, "model.safetensors").write_bytes(b"half of the weights")
        raise self._error


# SeaweedFS is asked the same in integration/test_object_store.py.
@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.long)])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a run goes, on the local disk and on S3."""
    if request.param == "local":
        return str(tmp_path / "run")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}/run"


@pytest.fixture
def checkpoints(out: str) -> Checkpoints:
    return Checkpoints(out)


def write(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.write(FileRecognizer(), replace(STATE, step=step), TENSORS)


def files_below(out: str) -> list[str]:
    """Paths of all files below a folder, hidden ones too."""
    filesystem, path = open_filesystem(out)
    if not filesystem.exists(path):
        return []
    return sorted(found.removeprefix(f"{path}/") for found in filesystem.find(path))


class TestRoundTrip:
    """What was written is read back."""

    def test_the_state_comes_back_as_it_was(self, checkpoints: Checkpoints) -> None:
        checkpoints.write(FileRecognizer(), STATE, TENSORS)
        assert checkpoints.read_state(20) == STATE

    def test_a_state_without_an_evaluation_comes_back(self, checkpoints: Checkpoints) -> None:
        state = TrainingState(step=1, positions=[Position()], settings={})
        checkpoints.write(FileRecognizer(), state, {})
        assert checkpoints.read_state(1) == state

    def test_tensors_come_back_bit_for_bit(self, checkpoints: Checkpoints) -> None:
        tensors = {**TENSORS, "half": torch.full((2,), 1 / 3, dtype=torch.bfloat16), "turned": torch.rand(3, 4).t()}
        checkpoints.write(FileRecognizer(), STATE, tensors)
        read = checkpoints.read_tensors(20)
        assert read.keys() == tensors.keys()
        assert all(
            read[name].dtype == value.dtype and torch.equal(read[name], value) for name, value in tensors.items()
        )

    def test_a_checkpoint_is_a_folder_that_models_are_loaded_from(
        self, checkpoints: Checkpoints, tiny_model: Path
    ) -> None:
        recognizer = Recognizer.from_pretrained(tiny_model, device="cpu")
        checkpoints.write(recognizer, STATE, TENSORS)
        loaded = Recognizer.from_pretrained(fetch_model(checkpoints.folder(20)), device="cpu").module.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in recognizer.module.state_dict().items())

    def test_a_step_that_was_written_before_is_replaced(self, checkpoints: Checkpoints) -> None:
        write(checkpoints, 20)
        checkpoints.write(FileRecognizer(), replace(STATE, seconds=99.0), {})
        assert (checkpoints.steps(), checkpoints.read_state(20).seconds) == ([20], 99.0)
        assert checkpoints.read_tensors(20) == {}

    def test_nothing_but_the_checkpoint_is_left(self, checkpoints: Checkpoints, out: str) -> None:
        write(checkpoints, 20)
        names = ("model.safetensors", "training.json", "training.safetensors")
        assert files_below(out) == [f"checkpoints/step-00000020/{name}" for name in names]


class TestSteps:
    """Which checkpoints there are."""

    def test_a_run_that_did_not_begin_has_none(self, checkpoints: Checkpoints) -> None:
        assert checkpoints.steps() == []

    def test_they_are_listed_in_ascending_order(self, checkpoints: Checkpoints) -> None:
        write(checkpoints, 1000, 20, 300)
        assert checkpoints.steps() == [20, 300, 1000]

    @pytest.mark.parametrize(
        "name",
        [
            "step-00000030/model.safetensors",
            "step-00000030/training.safetensors",
            ".writing-abc/training.json",
            "step-30/training.json",
            "step-00000030-old/training.json",
            "step-00000030/deeper/training.json",
        ],
    )
    def test_a_folder_that_is_unfinished_or_another_is_ignored(
        self, checkpoints: Checkpoints, out: str, name: str
    ) -> None:
        write(checkpoints, 20)
        filesystem, path = open_filesystem(out)
        target = f"{path}/checkpoints/{name}"
        filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(target, b"{}")
        assert checkpoints.steps() == [20]

    def test_a_trailing_slash_makes_no_other_run(self, checkpoints: Checkpoints, out: str) -> None:
        write(checkpoints, 20)
        assert Checkpoints(f"{out}/").steps() == [20]


class TestPrune:
    """Which checkpoints stay."""

    @pytest.mark.parametrize(
        ("keep", "best", "kept"),
        [
            (2, None, [30, 40]),
            (2, 10, [10, 30, 40]),
            (2, 40, [30, 40]),
            (1, 20, [20, 40]),
            (9, None, [10, 20, 30, 40]),
            # An evaluation between two checkpoints left none.
            (2, 25, [30, 40]),
        ],
    )
    def test_the_last_ones_and_the_best_stay(
        self, checkpoints: Checkpoints, keep: int, best: int | None, kept: list[int]
    ) -> None:
        write(checkpoints, 10, 20, 30, 40)
        checkpoints.prune(keep, best)
        assert checkpoints.steps() == kept

    def test_of_a_deleted_checkpoint_no_file_is_left(self, checkpoints: Checkpoints, out: str) -> None:
        write(checkpoints, 10, 20)
        checkpoints.prune(1, None)
        assert {name.split("/")[1] for name in files_below(out)} == {"step-00000020"}

    def test_a_deletion_that_stops_half_way_leaves_no_checkpoint_that_passes_for_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoints = Checkpoints(str(tmp_path))
        write(checkpoints, 10, 20)

        def stop(*_: Any, **__: Any) -> None:
            raise OSError("stopped")

        monkeypatch.setattr(checkpoints._filesystem, "rm", stop)
        with pytest.raises(StoreError, match=r"cannot delete the checkpoint .*step-00000010: stopped"):
            checkpoints.prune(1, None)
        assert checkpoints.steps() == [20]

    def test_a_run_without_checkpoints_is_left_alone(self, checkpoints: Checkpoints) -> None:
        checkpoints.prune(2, None)
        assert checkpoints.steps() == []


class TestFailure:
    """A write that cannot be finished."""

    @pytest.mark.parametrize("error", FAILURES, ids=["OSError", "SafetensorError"])
    def test_it_leaves_nothing_behind(self, checkpoints: Checkpoints, out: str, error: Exception) -> None:
        with pytest.raises(StoreError):
            checkpoints.write(FailingRecognizer(error), STATE, TENSORS)
        assert files_below(out) == []

    def test_it_leaves_no_temporary_folder_behind(
        self, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        for out in (str(tmp_path / "run"), f"{s3}/{tmp_path.name}/temporary"):
            with pytest.raises(StoreError):
                Checkpoints(out).write(FailingRecognizer(FAILURES[0]), STATE, TENSORS)
        assert list(temporary.iterdir()) == []
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert list((tmp_path / "run" / "checkpoints").iterdir()) == []

    @pytest.mark.parametrize("error", FAILURES, ids=["OSError", "SafetensorError"])
    def test_the_message_names_the_last_whole_step_and_how_to_go_on(
        self, checkpoints: Checkpoints, out: str, error: Exception
    ) -> None:
        write(checkpoints, 10, 15)
        message = (
            f"cannot write the checkpoint of step 20 to {out}: .*No space left on device.*; the last whole one is "
            "that of step 15. Make room or mend the access, then run again with --resume"
        )
        with pytest.raises(StoreError, match=f"^{message}$"):
            checkpoints.write(FailingRecognizer(error), STATE, TENSORS)

    def test_where_there_is_no_whole_one_the_message_says_so(self, checkpoints: Checkpoints) -> None:
        with pytest.raises(StoreError, match=r"there is none yet\. .*--resume"):
            checkpoints.write(FailingRecognizer(FAILURES[0]), STATE, TENSORS)

    def test_what_stood_before_stays_whole(self, checkpoints: Checkpoints) -> None:
        write(checkpoints, 20)
        with pytest.raises(StoreError):
            checkpoints.write(FailingRecognizer(FAILURES[0]), STATE, {})
        assert checkpoints.steps() == [20]
        assert checkpoints.read_tensors(20).keys() == TENSORS.keys()

    def test_it_can_be_written_again(self, checkpoints: Checkpoints) -> None:
        with pytest.raises(StoreError):
            checkpoints.write(FailingRecognizer(FAILURES[0]), STATE, TENSORS)
        write(checkpoints, 20)
        assert checkpoints.steps() == [20]

    def test_a_folder_that_cannot_be_made_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file")
        with pytest.raises(StoreError, match="cannot write the checkpoint of step 20"):
            write(Checkpoints(str(tmp_path / "run")), 20)

    def test_a_lack_of_access_is_named(self, checkpoints: Checkpoints) -> None:
        error = PermissionError(errno.EACCES, "Permission denied")
        with pytest.raises(StoreError, match=r"step 20 .*: permission denied .*--resume"):
            checkpoints.write(FailingRecognizer(error), STATE, TENSORS)

    @pytest.mark.parametrize("error", [ValueError("a bug"), TypeError("has no save_pretrained")])
    def test_a_bug_is_not_taken_for_a_full_disk(self, checkpoints: Checkpoints, error: Exception) -> None:
        with pytest.raises(type(error), match=str(error)):
            checkpoints.write(FailingRecognizer(error), STATE, TENSORS)

    def test_a_checkpoint_that_is_not_there_is_one_sentence(self, checkpoints: Checkpoints) -> None:
        for read in (checkpoints.read_state, checkpoints.read_tensors):
            with pytest.raises(StoreError, match=r"cannot read the checkpoint .*step-00000007"):
                read(7)


class VersionRecognizer:
    """Writes one small file that says which writing of the checkpoint it belongs to."""

    def __init__(self, version: str) -> None:
        self._version = version

    def save_pretrained(self, path: str | Path) -> None:
        Path(path, "model.safetensors").write_text(self._version)


class Death:
    """Lets so many operations through; afterwards none, as when the process is killed."""

    def __init__(self, n_operations: int) -> None:
        self.n_left = n_operations

    def around(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def operate(*arguments: Any, **options: Any) -> Any:
            self.n_left -= 1
            if self.n_left < 0:
                raise KeyboardInterrupt
            return operation(*arguments, **options)

        return operate


class TestUpload:
    """A checkpoint on an object store, file by file."""

    @pytest.fixture
    def remote(self, s3: str, tmp_path: Path) -> Checkpoints:
        """Checkpoints on S3, of which that of step 10 is there."""
        checkpoints = Checkpoints(f"{s3}/{tmp_path.name}/run")
        write(checkpoints, 10)
        return checkpoints

    def write_version(self, checkpoints: Checkpoints, version: str) -> None:
        """Writes step 20 with a version that each of its three files tells."""
        state = replace(STATE, settings={"version": version})
        checkpoints.write(VersionRecognizer(version), state, {version: torch.ones(1)})

    def versions(self, checkpoints: Checkpoints) -> set[str]:
        """Which versions the files of step 20 are of; raises where one is missing."""
        weights = checkpoints._filesystem.cat_file(f"{checkpoints._root}/step-00000020/model.safetensors").decode()
        return {weights, checkpoints.read_state(20).settings["version"], *checkpoints.read_tensors(20)}

    def test_the_file_that_is_to_come_last_comes_last_whichever_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ["a", "b", "c", "d"]
        (tmp_path / "folder").mkdir()
        for name in names:
            (tmp_path / "folder" / name).touch()
        filesystem, path = open_filesystem(str(tmp_path / "target"))
        put_file, order = filesystem.put_file, []
        monkeypatch.setattr(
            filesystem, "put_file", lambda source, target: (order.append(Path(target).name), put_file(source, target))
        )
        filesystem.makedirs(path)
        for last in names:
            upload_folder(filesystem, tmp_path / "folder", path, last=last)
        assert order[3::4] == names
        assert sorted(order) == sorted(names * 4)

    @pytest.mark.parametrize(
        ("is_written_anew", "n_operations", "found"),
        [
            # Three files are put.
            *[(False, n, None) for n in range(3)],
            (False, 3, {"new"}),
            # Before that the former mark is deleted, then the other former files.
            (True, 0, {"old"}),
            *[(True, n, None) for n in range(1, 5)],
            (True, 5, {"new"}),
        ],
    )
    def test_killed_after_any_operation_it_is_whole_or_does_not_count(
        self,
        remote: Checkpoints,
        monkeypatch: pytest.MonkeyPatch,
        is_written_anew: bool,
        n_operations: int,
        found: set[str] | None,
    ) -> None:
        if is_written_anew:
            self.write_version(remote, "old")
        death = Death(n_operations)
        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            for name in ("put_file", "rm_file", "rm"):
                patched.setattr(remote._filesystem, name, death.around(getattr(remote._filesystem, name)))
            self.write_version(remote, "new")
        assert remote.steps() == ([10, 20] if found else [10])
        if found:
            assert self.versions(remote) == found

    @pytest.mark.parametrize("n_sent", [0, 1, 2])
    @pytest.mark.parametrize("is_written_anew", [False, True])
    def test_one_that_breaks_off_leaves_no_file(
        self, remote: Checkpoints, monkeypatch: pytest.MonkeyPatch, n_sent: int, is_written_anew: bool
    ) -> None:
        before = files_below(remote.out)
        if is_written_anew:
            self.write_version(remote, "old")
        break_off(monkeypatch, remote, n_sent)
        with pytest.raises(StoreError, match="connection reset; the last whole one is that of step 10"):
            self.write_version(remote, "new")
        assert files_below(remote.out) == before

    def test_one_that_the_user_breaks_off_leaves_no_file(
        self, remote: Checkpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = files_below(remote.out)
        break_off(monkeypatch, remote, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            self.write_version(remote, "new")
        assert files_below(remote.out) == before

    def test_a_clean_up_that_fails_too_does_not_hide_why_it_broke_off(
        self, remote: Checkpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError("the clean-up failed")

        break_off(monkeypatch, remote, 1)
        monkeypatch.setattr(remote._filesystem, "rm", fail)
        with pytest.raises(StoreError, match=r"step 20 .*: connection reset; the last whole one is that of step 10"):
            self.write_version(remote, "new")

    def test_where_the_others_cannot_be_listed_either_the_message_says_so(
        self, remote: Checkpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError("not now")

        break_off(monkeypatch, remote, 0)
        monkeypatch.setattr(remote._filesystem, "find", fail)
        with pytest.raises(StoreError, match=r"connection reset; the others cannot be listed\. Make room"):
            self.write_version(remote, "new")


def break_off(
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: Checkpoints,
    n_sent: int,
    error: type[BaseException] = OSError,
) -> None:
    """Lets uploads fail after so many files."""
    put_file, sent = checkpoints._filesystem.put_file, []

    def put(path: str, target: str, **options: Any) -> None:
        if len(sent) == n_sent:
            raise error("connection reset")
        sent.append(target)
        put_file(path, target, **options)

    monkeypatch.setattr(checkpoints._filesystem, "put_file", put)


class Learner:
    """A small network that learns what optimizers keep of every kind of parameter."""

    def __init__(self, seed: int, optimizer: str) -> None:
        torch.manual_seed(seed)
        self.module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        self.module[3].bias.requires_grad_(False)
        self.names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        hidden = [self.module[1].weight] if optimizer == "muon" else []
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Muon(hidden, lr=0.05)] if hidden else []
        parameters = [value for value in self.module.parameters() if value.requires_grad and value not in set(hidden)]
        groups = [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:], "weight_decay": 0.0}]
        is_fused = optimizer != "adamw"
        self.optimizers.append(torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.98), fused=is_fused))

    def step(self, number: int) -> None:
        torch.manual_seed(100 + number)
        self.module.zero_grad()
        self.module(torch.randint(5, (8,))).square().sum().backward()
        for optimizer in self.optimizers:
            optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.module.state_dict().items()}


@pytest.fixture
def stored(checkpoints: Checkpoints) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A function that sends tensors through a checkpoint."""

    def send(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        checkpoints.write(FileRecognizer(), STATE, tensors)
        return checkpoints.read_tensors(STATE.step)

    return send


class TestOptimizers:
    """Moments beside the weights."""

    @pytest.mark.parametrize("optimizer", ["adamw", "fused adamw", "muon"])
    def test_steps_after_a_restart_give_bitwise_the_same_weights(
        self, stored: Callable[[dict[str, Tensor]], dict[str, Tensor]], optimizer: str
    ) -> None:
        whole = Learner(0, optimizer)
        for number in range(3):
            whole.step(number)
        tensors = stored(optimizer_tensors(whole.optimizers, whole.names))
        resumed = Learner(1, optimizer)
        resumed.module.load_state_dict(whole.weights())
        restore_optimizers(resumed.optimizers, resumed.names, tensors)
        for number in range(3, 6):
            whole.step(number)
            resumed.step(number)
        expected = whole.weights()
        assert all(torch.equal(value, expected[name]) for name, value in resumed.weights().items())

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_without_the_moments_the_next_step_would_be_another(self, optimizer: str) -> None:
        whole, fresh = Learner(0, optimizer), Learner(1, optimizer)
        whole.step(0)
        fresh.module.load_state_dict(whole.weights())
        for learner in (whole, fresh):
            learner.step(1)
        assert not torch.equal(whole.weights()["1.weight"], fresh.weights()["1.weight"])

    def test_every_parameter_that_learns_has_its_moments_and_its_count(self) -> None:
        learner = Learner(0, "adamw")
        learner.step(0)
        learning = {name for name, parameter in learner.module.named_parameters() if parameter.requires_grad}
        assert set(optimizer_tensors(learner.optimizers, learner.names)) == {
            f"{name}//{key}" for name in learning for key in ("step", "exp_avg", "exp_avg_sq")
        }

    def test_an_optimizer_that_did_no_step_has_nothing_to_keep(self) -> None:
        learner = Learner(0, "adamw")
        assert optimizer_tensors(learner.optimizers, learner.names) == {}

    def test_tensors_of_others_are_left_alone(self) -> None:
        learner = Learner(0, "muon")
        tensors = {"denoiser//head.weight": torch.ones(2), "scaler//x": torch.ones(1)}
        restore_optimizers(learner.optimizers, learner.names, tensors)
        assert not any(optimizer.state for optimizer in learner.optimizers)


def test_a_folder_named_like_a_pattern_has_its_checkpoints(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "a[1]*"))
    write(checkpoints, 10, 20)
    assert checkpoints.steps() == [10, 20]


def test_local_checkpoints_can_be_read_by_others(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    write(checkpoints, 10)
    assert Path(checkpoints.folder(10)).stat().st_mode & 0o777 == 0o755


def test_what_a_killed_process_left_is_cleared_by_the_next_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".writing-abc").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".writing-abc" / "model.safetensors").write_bytes(b"half")
    checkpoints = Checkpoints(str(tmp_path))
    write(checkpoints, 10)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000010"]


@pytest.mark.parametrize(("file", "read"), [("training.json", "read_state"), ("training.safetensors", "read_tensors")])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, file: str, read: str) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    write(checkpoints, 10)
    Path(checkpoints.folder(10), file).write_bytes(b"{")
    with pytest.raises(StoreError, match=f"step-00000010/{file} is damaged: .*; delete it and resume"):
        getattr(checkpoints, read)(10)
