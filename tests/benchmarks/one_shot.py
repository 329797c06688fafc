"""How fast one-shot sampling is.

Without options: against recomputing image, prompt and labels for every branch at every step, on one CPU thread, with a
small model. With `--sweep` (the default on a GPU): images/s and TFLOP/s over batch sizes, at full size.

    python tests/benchmarks/one_shot.py --out tests/benchmarks/results/one_shot-cpu.md
    python tests/benchmarks/one_shot.py --device cuda --out tests/benchmarks/results/one_shot-h200.md
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from one_shot_baseline import TokenIds, recompute_branches
from one_shot_flops import branch_flops, encode_flops, fed_tokens, prefill_flops, recompute_flops
from record import environment, markdown_table

from model import Recognizer
from model.nxtp.branches import sample_one_shot
from model.sampling import Branches
from tests.benchmarks.acceleration.timing import fetch
from tests.fixtures.recognizers.random_recognizer import random_recognizer

SPEED_UP_GOALS = {20: 60, 100: 200}
STAGES = ("encode", "prefill", "branches")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is measured."""

    vision: CLIPVisionConfig
    text: LlamaConfig
    end_share: float
    max_label_tokens: int
    batch_sizes: tuple[int, ...]
    top_ks: tuple[int, ...]
    n_repeats: int
    dtype: torch.dtype = torch.float32


def vision_config(width: int, n_layers: int, n_heads: int, mlp: int, image_size: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=width,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=mlp,
        image_size=image_size,
        patch_size=14,
        hidden_act="quick_gelu",
    )


def text_config(width: int, n_blocks: int, n_heads: int, mlp: int, vocab_size: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=width,
        num_hidden_layers=n_blocks,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
        intermediate_size=mlp,
        vocab_size=vocab_size,
        # Keeps the blocks' share of the hidden state that of a width of 512, so that labels end at full size too.
        initializer_range=0.02 * min(1.0, (512 / width) ** 0.5),
    )


def comparison_plan(small: bool, n_repeats: int | None, max_label_tokens: int | None = None) -> Plan:
    if small:
        vision, text = vision_config(32, 1, 2, 48, 28), text_config(32, 2, 2, 48, 64)
        sizes = {"batch_sizes": (2,), "top_ks": (2, 5), "n_repeats": n_repeats or 1}
    else:
        vision, text = vision_config(256, 6, 4, 1024, 224), text_config(512, 6, 8, 1376, 32002)
        sizes = {"batch_sizes": (4,), "top_ks": (10, 20, 100), "n_repeats": n_repeats or 3}
    return Plan(vision=vision, text=text, end_share=0.4, max_label_tokens=max_label_tokens or 4, **sizes)


def sweep_plan(small: bool, n_repeats: int | None, max_label_tokens: int | None = None) -> Plan:
    if small:
        vision, text = vision_config(32, 1, 2, 48, 28), text_config(32, 2, 2, 48, 64)
        sizes = {"batch_sizes": (1, 2), "top_ks": (2, 5), "n_repeats": n_repeats or 1}
    else:
        vision, text = vision_config(1024, 24, 16, 4096, 224), text_config(4096, 6, 32, 11008, 32002)
        batch_sizes = tuple(2**exponent for exponent in range(9))
        sizes = {"batch_sizes": batch_sizes, "top_ks": (10, 20, 100), "n_repeats": n_repeats or 5}
    limit = max_label_tokens or 16
    return Plan(vision=vision, text=text, end_share=1 / 3, max_label_tokens=limit, dtype=torch.bfloat16, **sizes)


class Clock:
    """Marks on the device's own time line, read in seconds between one mark and the next."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.marks: list[float | torch.cuda.Event] = []

    def mark(self) -> None:
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def intervals_s(self) -> list[float]:
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if not self.on_gpu:
            return [end - start for start, end in pairs]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairs]


@torch.inference_mode()
def run_stages(
    recognizer: Recognizer, pixels: Tensor, top_k: int, max_label_tokens: int
) -> tuple[Branches, list[float]]:
    """The sampled branches, and the seconds of each stage."""
    clock = Clock(recognizer.device.type)
    handle = recognizer.module.projector.register_forward_hook(lambda *_: clock.mark())
    try:
        clock.mark()
        prefix = recognizer.module.prefill(pixels)
        clock.mark()
        branches = fetch(sample_one_shot(recognizer.module, prefix, top_k, max_label_tokens))
        clock.mark()
    finally:
        handle.remove()
    return branches, clock.intervals_s()


def token_ids(branches: Branches) -> TokenIds:
    n_tokens = branches.n_tokens_BK.flatten().tolist()
    rows = branches.token_ids_BKT.flatten(0, 1).tolist()
    return [ids[:n] for ids, n in zip(rows, n_tokens, strict=True)]


def build(plan: Plan, device: str) -> tuple[Recognizer, Tensor]:
    """The model, and pixels for the largest batch."""
    recognizer = random_recognizer(
        vision=plan.vision, text=plan.text, end_share=plan.end_share, device=device, dtype=plan.dtype
    )
    size, generator = plan.vision.image_size, torch.Generator().manual_seed(0)
    pixels = torch.randn(max(plan.batch_sizes), 3, size, size, generator=generator)
    return recognizer, pixels.to(device, plan.dtype)


def median_total_s(runs: list[list[float]]) -> float:
    return statistics.median(sum(stages) for stages in runs)


def stage_shares(runs: list[list[float]]) -> str:
    """Median share of each stage, as "10 / 60 / 30 %"."""
    medians = [statistics.median(times) for times in zip(*runs, strict=True)]
    return " / ".join(f"{100 * stage / sum(medians):.0f}" for stage in medians) + " %"


def mean_tokens(branches: Branches) -> str:
    return f"{statistics.mean(fed_tokens(branches)):.2f}"


COMPARISON_HEADER = (
    "k",
    "tokens a label",
    "steps",
    "one-shot s/image",
    f"of it {' / '.join(STAGES)}",
    "recomputed s/image",
    "times faster",
    "times fewer operations",
    "same tokens",
)


@torch.inference_mode()
def compare(plan: Plan, device: str) -> tuple[str, bool]:
    """Markdown of the comparison with recomputation, and whether every branch had the same tokens in both."""
    recognizer, pixels = build(plan, device)
    recompute_branches(recognizer.module, pixels[:1], min(plan.top_ks), 1)
    rows, verdicts, all_agree = [], [], True
    for top_k in plan.top_ks:
        ours, theirs, branches, agree = compare_at(recognizer, pixels, top_k, plan)
        one_shot_s, recomputed_s = median_total_s(ours) / len(pixels), statistics.median(theirs) / len(pixels)
        ratio, same = recomputed_s / one_shot_s, "yes" if agree else "NO"
        times = (f"{one_shot_s:.4f}", stage_shares(ours), f"{recomputed_s:.3f}", f"{ratio:.1f}")
        tokens = (mean_tokens(branches), max(fed_tokens(branches)))
        rows.append((top_k, *tokens, *times, f"{fewer_operations(recognizer, branches):.1f}", same))
        if top_k in SPEED_UP_GOALS:
            verdicts.append(verdict(f"{SPEED_UP_GOALS[top_k]} times at k={top_k}", ratio >= SPEED_UP_GOALS[top_k]))
        all_agree &= agree
        print(markdown_table(COMPARISON_HEADER, rows[-1:]), file=sys.stderr, flush=True)
    return f"{markdown_table(COMPARISON_HEADER, rows)}\n\n{' '.join(verdicts)}", all_agree


def fewer_operations(recognizer: Recognizer, branches: Branches) -> float:
    """How many times the operations of one-shot sampling recomputation needs."""
    config, (n_images, top_k) = recognizer.config, branches.n_tokens_BK.shape
    one_shot = n_images * (encode_flops(config) + prefill_flops(config)) + branch_flops(config, branches)
    return n_images * recompute_flops(config, top_k, max(fed_tokens(branches))) / one_shot


def compare_at(
    recognizer: Recognizer, pixels: Tensor, top_k: int, plan: Plan
) -> tuple[list[list[float]], list[float], Branches, bool]:
    """Times of both, the branches, and whether their tokens are the same."""
    ours, theirs = [], []
    branches, _ = run_stages(recognizer, pixels, top_k, plan.max_label_tokens)
    for _ in range(plan.n_repeats):
        # Ours before and after: whatever slows the machine meanwhile slows both.
        ours.append(run_stages(recognizer, pixels, top_k, plan.max_label_tokens)[1])
        clock = Clock(recognizer.device.type)
        clock.mark()
        recomputed = recompute_branches(recognizer.module, pixels, top_k, plan.max_label_tokens)
        clock.mark()
        theirs += clock.intervals_s()
        ours.append(run_stages(recognizer, pixels, top_k, plan.max_label_tokens)[1])
    return ours, theirs, branches, recomputed == token_ids(branches)


def verdict(goal: str, met: bool) -> str:
    return f"Goal of {goal}: {'met' if met else 'MISSED'}."


SWEEP_HEADER = (
    "batch",
    "k",
    "tokens a label",
    "images/s",
    "TFLOP/image",
    "TFLOP/s",
    "of matmul rate",
    f"time {' / '.join(STAGES)}",
    "peak GiB",
    "images/s with ranked text",
)


@torch.inference_mode()
def sweep(plan: Plan, device: str) -> str:
    """Markdown of throughput over batch sizes and numbers of branches."""
    recognizer, pixels = build(plan, device)
    side = 8192 if device == "cuda" else 256
    matmul_flops_per_s = matmul_rate(side, device, plan.dtype)
    rows = []
    for top_k in plan.top_ks:
        for batch_size in plan.batch_sizes:
            rows.append(sweep_row(recognizer, pixels[:batch_size], top_k, plan, matmul_flops_per_s))
            print(markdown_table(SWEEP_HEADER, rows[-1:]), file=sys.stderr, flush=True)
    rate = f"A {side} x {side} x {side} product of {plan.dtype} noise runs at {matmul_flops_per_s / 1e12:.4g} TFLOP/s."
    n_parameters = sum(parameter.numel() for parameter in recognizer.module.parameters())
    return f"{n_parameters:,} parameters. {rate}\n\n{markdown_table(SWEEP_HEADER, rows)}"


def sweep_row(recognizer: Recognizer, pixels: Tensor, top_k: int, plan: Plan, matmul_flops_per_s: float) -> tuple:
    n_images, on_gpu = len(pixels), recognizer.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    branches, _ = run_stages(recognizer, pixels, top_k, plan.max_label_tokens)
    runs = [run_stages(recognizer, pixels, top_k, plan.max_label_tokens)[1] for _ in range(plan.n_repeats)]
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if on_gpu else "-"
    batch_s = median_total_s(runs)
    config = recognizer.config
    flops = n_images * (encode_flops(config) + prefill_flops(config)) + branch_flops(config, branches)
    return (
        n_images,
        top_k,
        mean_tokens(branches),
        f"{n_images / batch_s:.1f}",
        f"{flops / n_images / 1e12:.3g}",
        f"{flops / batch_s / 1e12:.3g}",
        f"{100 * flops / batch_s / matmul_flops_per_s:.0f} %",
        stage_shares(runs),
        peak,
        f"{n_images / label_s(recognizer, pixels, top_k, plan):.1f}",
    )


def label_s(recognizer: Recognizer, pixels: Tensor, top_k: int, plan: Plan) -> float:
    """Median seconds of `label_pixels`: sampling, and on the CPU decoding to text and ranking."""
    times = []
    for _ in range(min(3, plan.n_repeats)):
        start = time.perf_counter()
        recognizer.label_pixels(pixels, top_k=top_k, max_label_tokens=plan.max_label_tokens)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate(side: int, device: str, dtype: torch.dtype) -> float:
    """Operations a second of a square matrix product of noise (zeros would draw less power and run faster)."""
    left, right = torch.randn(2, side, side, device=device, dtype=dtype)
    times = []
    for _ in range(20):
        clock = Clock(device)
        clock.mark()
        left @ right
        clock.mark()
        times += clock.intervals_s()
    return 2 * side**3 / statistics.median(times[5:])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sweep", action="store_true", help="throughput over batch sizes; always on a GPU")
    parser.add_argument("--small", action="store_true", help="a tiny model, to see that the script runs")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--repeats", type=int, help="of each measurement; the median counts")
    parser.add_argument("--max-label-tokens", type=int, help="longest label; default 4, in a sweep 16")
    parser.add_argument("--out", type=Path, help="markdown file of the record")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    command = shlex.join(["python", *sys.argv])
    is_sweep, agree = options.sweep or options.device == "cuda", True
    if is_sweep:
        plan = sweep_plan(options.small, options.repeats, options.max_label_tokens)
        result = sweep(plan, options.device)
    else:
        plan = comparison_plan(options.small, options.repeats, options.max_label_tokens)
        result, agree = compare(plan, options.device)
    title = "throughput" if is_sweep else "against recomputation"
    record = f"# One-shot sampling: {title}\n\n{environment(options.device, command)}\n{describe(plan)}\n\n{result}\n"
    print(record)
    if options.out:
        options.out.write_text(record)
    return 0 if agree else 1


def describe(plan: Plan) -> str:
    vision, text = plan.vision, plan.text
    return "\n".join(
        [
            f"- encoder: {vision.hidden_size} wide, {vision.num_hidden_layers} layers, {vision.image_size} px",
            f"- decoder: {text.hidden_size} wide, {text.num_hidden_layers} layers, {text.vocab_size} tokens",
            f"- weights: random, {plan.dtype}; labels end after {plan.end_share:.0%} of the tokens, at the latest after"
            f" {plan.max_label_tokens}",
            f"- batch: {', '.join(map(str, plan.batch_sizes))} images",
            f"- {plan.n_repeats} repetitions after a warm-up, interleaved where two are compared; medians",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
