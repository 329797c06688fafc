"""How fast models of the hub label: one-shot sampling over shared prefixes, by batch size.

Random weights in the sizes of Qwen3-VL-2B, and two tiny models whose time is overhead alone. Operations are those that
torch counts in one pass over the same batch, padding included.

    python tests/benchmarks/hub_models.py --device cuda --out tests/benchmarks/results/hub_models-h200.md
    python tests/benchmarks/hub_models.py --small

Each batch size of a model has a limit, and runs in a process that is ended when it takes longer. What failed is a row
that says why. The record is written anew after every row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
import transformers as tf
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from one_shot import Clock, matmul_rate, mean_tokens

from model.ending import Ending
from model.hub.branches import HubBranches, share_prefixes
from model.hub.prefill import prefill
from model.sampling import Branches, sample_branches
from tests.benchmarks.acceleration.timing import fetch
from tests.benchmarks.budgeted.command import add_options, supervise_command, work
from tests.benchmarks.budgeted.growing_record import GrowingRecord, Table
from tests.benchmarks.budgeted.supervision import Measure
from tests.fixtures.recognizers.tiny_vlms import IMAGE, Inputs, build_vlm, merge

# Random weights end no label by themselves: every one gets as many tokens as are allowed.
TOP_K, LABEL_TOKENS = 20, 3
# 416 x 576 pixels: what 256 image tokens leave of a photograph of 4 to 3.
GRID = (26, 36)
PROMPT_WORDS = 30
# In the order in which they are measured.
SUBJECTS = ("qwen3_vl_2b", "llava", "qwen3_vl")
# Seconds. A measure may have to make its model.
RATE_S, MEASURE_S = 60, 60
HEADER = (
    "model",
    "batch",
    "prefix tokens",
    "tokens a label",
    "images/s",
    "TFLOP/image",
    "TFLOP/s",
    "of matmul rate",
    "time prefill / branches",
    "peak GiB",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is measured, and the inputs of one image: seed -> inputs of one row."""

    name: str
    model: tf.PreTrainedModel
    make_inputs: Callable[[int], Inputs]


def tiny(architecture: str, device: str, dtype: torch.dtype) -> Subject:
    vlm = build_vlm(architecture)
    return Subject(
        f"tiny {architecture}", vlm.model.to(device, dtype), lambda seed: vlm.make_inputs(PROMPT_WORDS, seed)
    )


def qwen3_vl_2b(device: str, dtype: torch.dtype, shrink: int = 1) -> Subject:
    """Qwen3-VL-2B with random weights, and of every size a part where `shrink` is above 1."""
    config = tf.Qwen3VLConfig(
        text_config={
            "hidden_size": 2048 // shrink,
            "intermediate_size": 6144 // shrink,
            "num_hidden_layers": 28 // shrink,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128 // shrink,
            "vocab_size": 151_936 // shrink,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000.0,
                "mrope_section": [size // shrink for size in (24, 20, 20)],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 24 // shrink,
            "hidden_size": 1024 // shrink,
            "intermediate_size": 4096 // shrink,
            "out_hidden_size": 2048 // shrink,
            "num_heads": 16,
            "patch_size": 16,
            "deepstack_visual_indexes": sorted({size // shrink for size in (5, 11, 17)}),
        },
        image_token_id=IMAGE,
        vision_start_token_id=6,
        vision_end_token_id=7,
        video_token_id=8,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = tf.Qwen3VLForConditionalGeneration._from_config(config, dtype=dtype)
    name = "shape of Qwen3-VL-2B" if shrink == 1 else f"shape of Qwen3-VL-2B, sizes by {shrink}"
    return Subject(name, model.eval(), qwen_inputs)


def qwen_inputs(seed: int) -> Inputs:
    """One picture of `GRID` patches and a prompt."""
    generator = torch.Generator().manual_seed(seed)
    height, width = GRID
    words = torch.randint(20, 1000, (PROMPT_WORDS,), generator=generator).tolist()
    ids = torch.tensor([[1, *words[:4], 6, *[IMAGE] * (height * width // 4), 7, *words[4:]]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.randn(height * width, 3 * 2 * 16**2, generator=generator),
        "image_grid_thw": torch.tensor([[1, height, width]]),
    }


def batch_of(subject: Subject, n_images: int) -> Inputs:
    """Inputs on the model's device, floats in its dtype."""
    rows = merge([subject.make_inputs(seed) for seed in range(n_images)])
    model = subject.model
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None) for name, value in rows.items()
    }


def run(model: tf.PreTrainedModel, inputs: Inputs, ending: Ending) -> tuple[Branches, list[float]]:
    """The sampled branches, and the seconds of prefill and branches."""
    clock = Clock(model.device.type)
    clock.mark()
    prefix = prefill(model, inputs)
    clock.mark()
    branches = fetch(sample_branches(HubBranches(model, prefix), ending, TOP_K, LABEL_TOKENS))
    clock.mark()
    return branches, clock.intervals_s()


@torch.inference_mode()
def measure(subject: Subject, n_images: int, n_repeats: int, matmul_flops_per_s: float) -> tuple[str, ...]:
    """A row of the table."""
    model, inputs = subject.model, batch_of(subject, n_images)
    ending = Ending([model.config.get_text_config().vocab_size - 1], model.device)
    on_gpu = model.device.type == "cuda"
    run(model, inputs, ending)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with FlopCounterMode(display=False) as counter:
        branches, _ = run(model, inputs, ending)
    flops = counter.get_total_flops()
    seconds = [run(model, inputs, ending)[1] for _ in range(n_repeats)]
    batch_s = statistics.median(map(sum, seconds))
    prefill_share = statistics.median(parts[0] for parts in seconds) / batch_s
    return (
        subject.name,
        str(n_images),
        str(inputs["input_ids"].shape[1]),
        mean_tokens(branches),
        f"{n_images / batch_s:.1f}",
        f"{flops / n_images / 1e12:.3g}",
        f"{flops / batch_s / 1e12:.3g}",
        f"{100 * flops / batch_s / matmul_flops_per_s:.0f} %",
        f"{100 * prefill_share:.0f} / {100 * (1 - prefill_share):.0f} %",
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if on_gpu else "-",
    )


class Session:
    """The models, each made when it is first asked for and forgotten when the next one is, and the card's speed."""

    def __init__(self, device: str, small: bool, n_repeats: int) -> None:
        self._device, self._n_repeats = device, n_repeats
        self._dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._makers: dict[str, Callable[[], Subject]] = {
            "llava": lambda: tiny("llava", device, self._dtype),
            "qwen3_vl": lambda: tiny("qwen3_vl", device, self._dtype),
            "qwen3_vl_2b": lambda: qwen3_vl_2b(device, self._dtype, shrink=4 if small else 1),
        }
        self._made: tuple[str, Subject] | None = None
        self._rate = cache(lambda: matmul_rate(8192 if device == "cuda" else 256, device, self._dtype))

    def rate_rows(self) -> Iterator[tuple[str, ...]]:
        yield (str(self._dtype), f"{self._rate() / 1e12:.4g}")

    def rows(self, name: str, n_images: int) -> Iterator[tuple[str, ...]]:
        if self._made is None or self._made[0] != name:
            self._made = None
            self._made = (name, self._makers[name]())
            share_prefixes(self._made[1].model)
        yield measure(self._made[1], n_images, self._n_repeats, self._rate())


def all_measures(batch_sizes: Sequence[int]) -> dict[str, tuple[str, int]]:
    """Model and batch size of each measure, by the measure's name; what is asked for most comes first."""
    return {f"{model}, batch {size}": (model, size) for model in SUBJECTS for size in batch_sizes}


def supervise_all(options: argparse.Namespace) -> None:
    names = list(all_measures(options.batch_sizes))
    described = (
        f"{TOP_K} branches an image, labels of {LABEL_TOKENS} tokens. {options.repeats} repetitions after two warm-ups,"
        " medians."
    )
    tables = [
        Table("Matrix products", ("square product of noise", "TFLOP/s"), {"rate": "rate"}),
        Table("One-shot sampling", HEADER, {name: name for name in names}, described),
    ]
    record = GrowingRecord("Models of the hub: throughput", tables, options.out)
    measures = [Measure("rate", RATE_S), *(Measure(name, MEASURE_S) for name in names)]
    worker = [__file__, "--device", options.device, "--repeats", str(options.repeats)]
    worker += [*(["--small"] if options.small else []), "--batch-sizes", *map(str, options.batch_sizes)]
    supervise_command(worker, measures, record, options.minutes)


def measure_here(options: argparse.Namespace) -> None:
    session = Session(options.device, options.small, options.repeats)
    rows = {name: partial(session.rows, *of) for name, of in all_measures(options.batch_sizes).items()}
    work(options.worker, {"rate": session.rate_rows, **rows}, options.head, options.device)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that the script runs")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement; the median counts")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="images; default 1 to 64 in powers of two")
    parser.add_argument("--out", type=Path, help="markdown file of the record")
    add_options(parser, minutes=4)
    options = parser.parse_args()
    options.batch_sizes = options.batch_sizes or ((1, 2) if options.small else (64, 32, 16, 8, 4, 2, 1))
    return options


def main() -> int:
    options = arguments()
    if options.worker:
        measure_here(options)
    else:
        supervise_all(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
