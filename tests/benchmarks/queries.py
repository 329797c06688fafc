"""What questions to a large store cost, before and after compaction: seconds, bytes read, memory.

    python tests/benchmarks/queries.py --images 1000000 [--measures] [--folder DIR] [--out FILE]

The store is generated (tests/benchmarks/generated_store.py): 20 labels an image of a vocabulary of 20,000 words by
Zipf's law. Each question is asked a few times, in a process of its own; the median counts, opening the store included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from generated_store import N_LABELS, RUN, make_store, make_words

from pipeline.analysis.embeddings import find_embedder
from pipeline.analysis.recall import analyse_run, compare_meanings
from pipeline.catalog.connection import Connection, run_query
from pipeline.catalog.views import open_store
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from pipeline.upkeep.compaction import CompactionOutcome, compact_run

K = 10


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one question."""

    seconds: float
    open_s: float
    """Of it, opening the store."""
    read_bytes: int
    peak_bytes: int
    answer: str


def ask_sql(query: str) -> Callable[[Connection, str], str]:
    """A question in SQL; its answer is the first row."""

    def answer(connection: Connection, url: str) -> str:
        return ", ".join(str(value) for value in run_query(connection, query).fetchone())

    return answer


def exact_recall(connection: Connection, url: str) -> str:
    recall = analyse_run(connection, RUN, "labels").recall([K])[0].measures["recall_macro"]
    return f"{recall.value:.4f}"


def average_precision(connection: Connection, url: str) -> str:
    return f"{analyse_run(connection, RUN, 'labels').mean_average_precision().value:.4f}"


def paper_recall(connection: Connection, url: str) -> str:
    analysis = analyse_run(connection, RUN, "labels")
    meanings = compare_meanings(analysis, Store(url), find_embedder(None), K)
    return f"{meanings.paper_measures(K)['recall'].value:.4f}"


WORDS = make_words()
LOOK_UPS: dict[str, Callable[[Connection, str], str]] = {
    "a rare label": ask_sql(f"SELECT count(*), max(score) FROM labels WHERE name = '{WORDS[-50]}'"),
    "images with a rare label": ask_sql(f"SELECT count(*), max(score) FROM images_with('{WORDS[-50]}')"),
    "images with a frequent label, score 0.99 or more": ask_sql(
        f"SELECT count(*), max(score) FROM images_with('{WORDS[10]}', min_score := 0.99)"
    ),
    "labels of one image": ask_sql("SELECT count(*), max(score) FROM labels_of('0000100005')"),
    "most frequent labels": ask_sql(f"SELECT name, images FROM top_labels('{RUN}')"),
    "labels beside a label": ask_sql(f"SELECT name, images FROM cooccurring('{WORDS[100]}')"),
}
NAMES_NOT_EMBEDDED = f"paper's recall@{K}, names not embedded yet"
MEASURES: dict[str, Callable[[Connection, str], str]] = {
    f"exact recall@{K}": exact_recall,
    "mean average precision": average_precision,
    NAMES_NOT_EMBEDDED: paper_recall,
    f"paper's recall@{K}": paper_recall,
}
GOALS = {"a rare label": 0.3, f"exact recall@{K}": 5.0, f"paper's recall@{K}": 60.0}


def ask(url: str, question: str) -> Cost:
    """Runs in a process of its own."""
    read_before, started = bytes_read(), time.perf_counter()
    connection = open_store(url)
    opened = time.perf_counter()
    answer = {**LOOK_UPS, **MEASURES}[question](connection, url)
    ended = time.perf_counter()
    return Cost(ended - started, opened - started, bytes_read() - read_before, peak_bytes(), answer)


def bytes_read() -> int:
    """By this process since its start, from the page cache or the disk."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def peak_bytes() -> int:
    """Of this process's memory; what `getrusage` tells begins with that of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def compact(url: str) -> tuple[CompactionOutcome, int]:
    """Runs in a process of its own; returns its peak memory, too."""
    return compact_run(Store(url).run(RUN), read_vocabulary(None), lambda done, total: None), peak_bytes()


def in_new_process(work: Callable[..., Any], *arguments: str) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(url: str, questions: list[str], n_times: int) -> dict[str, Cost]:
    costs = {}
    for question in questions:
        runs = []
        for _ in range(1 if question == NAMES_NOT_EMBEDDED else n_times):
            runs.append(in_new_process(ask, url, question))
        costs[question] = sorted(runs, key=lambda cost: cost.seconds)[len(runs) // 2]
        print(f"{question}: {costs[question]}", file=sys.stderr, flush=True)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keeps the stores here; one that is there is not made again")
    parser.add_argument("--measures", action="store_true", help="recall as well, which reads every label")
    parser.add_argument("--times", type=int, default=3, help="how often each question is asked")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = benchmark(options, options.folder or Path(scratch))
    print(text)
    if options.out:
        options.out.write_text(text)


def benchmark(options: argparse.Namespace, folder: Path) -> str:
    """Makes the store, asks, compacts, asks again."""
    url = str(folder / f"store-{options.images}")
    if not Path(url).exists():
        make_store(url, options.images)
    questions = [*LOOK_UPS, *(MEASURES if options.measures else ())]
    before = measure(url, questions, options.times)
    compacted, peak = in_new_process(compact, url)
    # Embedded before; that costs the same twice.
    again = [question for question in questions if question != NAMES_NOT_EMBEDDED]
    after = measure(url, again, options.times)
    for question, cost in after.items():
        if cost.answer != before[question].answer:
            raise SystemExit(f"{question}: {before[question].answer} before compaction, {cost.answer} after it")
    return report(options, before, after, compacted, peak)


def report(
    options: argparse.Namespace,
    before: dict[str, Cost],
    after: dict[str, Cost],
    compacted: CompactionOutcome,
    peak: int,
) -> str:
    """The result as Markdown."""
    # Here, since it imports torch, which the processes that are measured have no use for.
    from record import environment, markdown_table

    rows = []
    for question, first in before.items():
        costs = [first, after.get(question)]
        cells = [f"{cost.seconds:.2f} ({cost.open_s:.2f})" if cost else "" for cost in costs]
        cells += [f"{cost.read_bytes / 1e6:,.1f}" if cost else "" for cost in costs]
        cells += [f"{cost.peak_bytes / 1e9:.2f}" if cost else "" for cost in costs]
        goal = f"{GOALS[question]:g}" if question in GOALS else ""
        rows.append([question, goal, *cells, first.answer])
    header = [
        "question",
        "goal s",
        "s (opening)",
        "compacted",
        "MB read",
        "compacted",
        "peak GB",
        "compacted",
    ]
    sizes = f"{compacted.label_bytes_before / 1e9:.2f} -> {compacted.label_bytes_after / 1e9:.2f} GB"
    files = f"{compacted.n_files_before:,} -> {compacted.n_files_after:,} files"
    return f"""# Questions to {options.images:,} images with {N_LABELS * options.images:,} labels

{environment("cpu", f"python {' '.join(sys.argv)}")}
- DuckDB {importlib.metadata.version("duckdb")}, {os.cpu_count()} threads; files in the page cache
- median of {options.times} runs, each of which opens the store and asks once, in a process of its own
- compaction: {files}, {sizes} of labels, in {compacted.seconds:.0f} s with a peak of {peak / 1e9:.1f} GB

{markdown_table([*header, "answer"], rows)}
"""


if __name__ == "__main__":
    main()
