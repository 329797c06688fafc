"""Batches on their way to a device and results on their way back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from model.transfers import Results, Transfers, to_device

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class FakeCuda:
    """Streams and events that only note what is asked of them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[str] = []
        self.stream = "compute"
        for name in ("Stream", "Event", "stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, f"_{name.lower()}"))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: self.notes.append(f"kept for {stream}"))

    def _event(self, **_: Any) -> Any:
        return self

    def record(self) -> None:
        self.notes.append(f"recorded on {self.stream}")

    def _current_stream(self, *_: Any) -> Any:
        return self

    def wait_event(self, _: Any) -> None:
        self.notes.append(f"{self.stream} waits")

    def __str__(self) -> str:
        return self.stream

    # Of the stream that copies, and what enters it: `_stream` stands for both, told apart by the argument.
    def _stream(self, of: Any = None) -> Any:
        return self._entered() if of == "copy" else "copy"

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        before, self.stream = self.stream, "copy"
        try:
            yield
        finally:
            self.stream = before


def test_the_devices_stream_waits_for_a_batch_and_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of calls; what CUDA makes of them is told by the tests that need it."""
    cuda = FakeCuda(monkeypatch)

    def prepare() -> dict[str, torch.Tensor]:
        cuda.notes.append(f"prepared on {cuda.stream}")
        return {"pixels": torch.ones(2), "ids": torch.zeros(2)}

    take = Transfers("cpu").send(prepare)
    assert cuda.notes == ["prepared on copy", "recorded on copy"]
    batch = take()
    assert cuda.notes[2:] == ["compute waits", "kept for compute", "kept for compute"]
    assert {name: value.tolist() for name, value in batch.items()} == {"pixels": [1, 1], "ids": [0, 0]}


def test_tensors_in_mappings_are_moved_and_all_else_is_left() -> None:
    batch = {"pixels": torch.ones(2), "more": {"ids": torch.zeros(1)}, "sizes": [(3, 4)]}
    moved = to_device(batch, CPU)
    assert moved["pixels"] is batch["pixels"]
    assert (moved["more"]["ids"].tolist(), moved["sizes"]) == ([0], [(3, 4)])


def test_results_of_a_cpu_are_there_as_they_are() -> None:
    tensors = [torch.ones(2), torch.zeros(3)]
    assert all(fetched is tensor for fetched, tensor in zip(Results(tensors).fetch(), tensors, strict=True))


def keep_busy(seconds: float = 0.5) -> None:
    """Gives the current stream something to do for this long, and does not wait for it."""
    torch.cuda._sleep(int(seconds * 1.5e9))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


@pytest.mark.gpu
@needs_cuda
class TestOnCuda:
    """Copies run beside the device's work."""

    @pytest.fixture(autouse=True)
    def warm(self) -> None:
        """The first copy makes pinned memory, which waits for the device."""
        Results([torch.ones(1 << 20, device="cuda")]).fetch()
        Transfers("cuda").send(lambda: torch.ones(1 << 20))()
        torch.cuda.synchronize()

    def test_a_batch_arrives_while_the_device_works(self) -> None:
        transfers, data = Transfers("cuda"), torch.arange(1 << 20)
        keep_busy()
        seconds, take = timed(lambda: transfers.send(lambda: {"data": data}))
        assert seconds < 0.25
        batch = take()["data"]
        # Read by the stream that waited for it.
        assert batch.is_cuda
        assert torch.equal((batch + 1).cpu(), data + 1)

    def test_batches_that_follow_each_other_keep_their_own_values(self) -> None:
        transfers, sums = Transfers("cuda"), []
        for number in range(50):
            take = transfers.send(lambda number=number: torch.full((1 << 20,), number))
            keep_busy(0.002)
            sums.append(take().float().mean())
        assert torch.stack(sums).tolist() == list(range(50))

    def test_results_are_fetched_while_the_device_works_on_what_comes_behind_them(self) -> None:
        results = Results([torch.arange(1 << 20, device="cuda") * 2])
        keep_busy()
        seconds, (fetched,) = timed(results.fetch)
        assert seconds < 0.25
        assert torch.equal(fetched, torch.arange(1 << 20) * 2)

    def test_results_are_waited_for(self) -> None:
        data = torch.zeros(1 << 20, device="cuda")
        keep_busy()
        data += 7
        (fetched,) = Results([data]).fetch()
        assert torch.equal(fetched, torch.full((1 << 20,), 7.0))
