"""Settings of the benchmarks that train: the demo preset, for fewer steps."""

from __future__ import annotations

from typing import Any

from jobs.console.config_file import read_preset
from pipeline.settings.toml_file import read_settings
from pipeline.training.settings import TrainSettings

_TINY = {
    "vision_width": 32,
    "vision_blocks": 1,
    "vision_heads": 1,
    "decoder_width": 32,
    "decoder_blocks": 1,
    "decoder_heads": 1,
    "vocab_size": 512,
}


def demo_settings(n_steps: int, small: bool, **changes: Any) -> TrainSettings:
    """The demo preset with other settings where given; `small`: a tiny model, to see that a benchmark runs."""
    preset = read_preset("demo")
    preset |= {"steps": n_steps, "checkpoint_every": n_steps, "eval_every": n_steps}
    preset["warmup_steps"] = min(preset["warmup_steps"], n_steps // 4)
    if small:
        preset |= {"model": preset["model"] | _TINY, "batch_size": 8, "shuffle_buffer": 16}
    return read_settings(TrainSettings, preset | changes, "preset demo")
