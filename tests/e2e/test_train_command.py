"""`tagstream train` as a user runs it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fixtures.corpus import write_coloured_tars
from tests.fixtures.processes.commands import TAGSTREAM, RunFunction, running, wait_until

CONFIG = """
steps = 400
batch_size = 16
learning_rate = 6e-3
warmup_steps = 5
log_every = 1
eval_every = 200
eval_images = 40
checkpoint_every = 20
shuffle_buffer = 50
model = {image_size = 28, patch_size = 14, vision_width = 32, vision_blocks = 1, vision_heads = 2, decoder_width = 32,
         decoder_blocks = 2, decoder_heads = 2, vocab_size = 320}
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    """A small training job on an easy corpus."""
    write_coloured_tars(tmp_path / "train", 3, 50, seed=1)
    write_coloured_tars(tmp_path / "val", 1, 40, seed=2)
    (tmp_path / "config.toml").write_text(CONFIG.replace("\n         ", " "))
    return [
        "train",
        tmp_path / "train",
        "--val",
        tmp_path / "val",
        "--out",
        tmp_path / "model",
        "--config",
        tmp_path / "config.toml",
    ]


@pytest.mark.long
def test_a_killed_job_resumes_to_its_end(
    tagstream: RunFunction, environment: dict[str, str], arguments: list[object], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "model" / "checkpoints" / "step-00000040" / "training.json"
    with running([TAGSTREAM, *arguments], environment) as process:
        wait_until(checkpoint.exists, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    resumed = tagstream(*arguments, "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert "Trained 400 steps" in resumed.stdout
    assert "hit@1 1.000" in resumed.stdout
    metrics = pq.read_table(tmp_path / "model" / "metrics.parquet").to_pydict()
    assert metrics["step"] == list(range(1, 401))
    card = (tmp_path / "model" / "README.md").read_text()
    assert str(tmp_path / "train") in card


@pytest.mark.long
@pytest.mark.parametrize("n_workers", [0, 2])
def test_ctrl_c_stops_it_and_it_says_what_is_kept(
    environment: dict[str, str], arguments: list[object], tmp_path: Path, n_workers: int
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("steps = 400", "steps = 100000", 1))
    checkpoint = tmp_path / "model" / "checkpoints" / "step-00000020" / "training.json"
    with running([TAGSTREAM, *arguments, "--workers", n_workers], environment) as process:
        wait_until(checkpoint.exists, process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    assert re.search(r"Stopped\. the checkpoint of step \d+ is kept; the same command with --resume goes on\.", errors)
    assert "Traceback" not in errors


def test_an_unknown_preset_is_named_with_those_there_are(tagstream: RunFunction, arguments: list[object]) -> None:
    result = tagstream(*arguments, "--preset", "nxtp")
    assert result.returncode == 2
    assert "expected one of demo, nxtp-g3m, nxtp-g70m, nxtp-imagenet" in result.stderr
