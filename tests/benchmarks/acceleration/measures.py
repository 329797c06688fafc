"""The measures of `gpu.py`, by name, as the process that measures runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from tests.benchmarks.acceleration.demo_labels import demo_label_rows
from tests.benchmarks.acceleration.session import Session
from tests.benchmarks.acceleration.timing import agreement
from tests.benchmarks.acceleration.ways import BEST, WAYS, reset_compiler

ROOT = Path(__file__).resolve().parents[3]
Row = tuple[str, ...]


def rate_rows(session: Session) -> Iterator[Row]:
    yield (f"{session.dtype}".removeprefix("torch."), f"{session.matmul_rate / 1e12:.4g}")
    try:
        float8_rate = f"{session.float8_rate() / 1e12:.4g}"
    except RuntimeError as error:
        # A card without it: the ways in float8 fail with the same sentence.
        float8_rate = str(error)
    yield ("float8, a scale a row", float8_rate)


def way_rows(name: str) -> Callable[[Session], Iterator[Row]]:
    def rows(session: Session) -> Iterator[Row]:
        reset_compiler()
        n_images, top_k = session.sizes.batch, session.sizes.top_k
        expected = session.eager_branches(n_images, top_k)
        timing = session.measure(WAYS[name](session.maker), n_images, top_k)
        same = f"{agreement(expected, timing.branches):.1%}"
        yield (name, *session.speed_cells(timing), same, f"{timing.first_s:.1f}")

    return rows


def sweep_rows(name: str, top_k: int) -> Callable[[Session], Iterator[Row]]:
    def rows(session: Session) -> Iterator[Row]:
        reset_compiler()
        way = WAYS[name](session.maker)
        k = min(top_k, session.plan.text.vocab_size)
        for n_images in session.sizes.swept_best_batches if name == BEST else session.sizes.swept_batches:
            label = f"{name}, k = {k}, batch {n_images}"
            try:
                timing = session.measure(way, n_images, k)
            except torch.OutOfMemoryError:
                yield (label, "out of memory", *[""] * 7)
                break
            n_fed = timing.branches.n_tokens_BK - timing.branches.finished_BK.long()
            yield (label, *session.speed_cells(timing), f"{n_fed.float().mean():.2f}")

    return rows


def demo_rows(session: Session) -> Iterator[Row]:
    return demo_label_rows(session.device, 24 if session.tiny else None)


def gpu_test_files(*, has_packages: bool) -> tuple[list[str], list[str]]:
    """Files with tests that need a GPU, and of them those that are left out.

    Args:
        has_packages: whether the packages are installed that the project needs beside those of the model.
    """
    files = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
    marked = [str(path.relative_to(ROOT)) for path in files if "mark.gpu" in path.read_text()]
    left_out = [] if has_packages else [path for path in marked if path.startswith("tests/unit/pipeline/")]
    return [path for path in marked if path not in left_out], left_out


def test_rows(session: Session) -> Iterator[Row]:
    """Runs the tests that need a GPU.

    They lie among the unit tests. Only their files are collected: others need packages that the model does not.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rA", "--tb=line"]
    marked, left_out = gpu_test_files(has_packages=find_spec("pyarrow") is not None)
    for path in left_out:
        yield (path, "not run: it needs the project's packages")
    # Fixtures of the whole project are beside the point here, and import servers.
    options = ["--confcutdir=tests/unit/model", "--continue-on-collection-errors", *marked]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    outcomes = [
        line for line in finished.stdout.splitlines() if line.startswith(("PASSED", "FAILED", "ERROR", "SKIPPED"))
    ]
    for line in outcomes:
        outcome, _, test = line.partition(" ")
        yield (test, outcome.lower())
    lines = (finished.stdout + finished.stderr).strip().splitlines()
    yield (f"pytest, exit code {finished.returncode}", lines[-1] if lines else "")


MEASURES: dict[str, Callable[[Session], Iterator[Row]]] = {
    "rate": rate_rows,
    **{f"way {name}": way_rows(name) for name in WAYS},
    **{f"sweep {name} {k}": sweep_rows(name, k) for name in ("eager", BEST) for k in (10, 20, 100)},
    "demo": demo_rows,
    "tests": test_rows,
}
