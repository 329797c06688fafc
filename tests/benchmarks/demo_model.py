"""The demo model on scenes it never saw: recall with 95 % intervals, through `tagstream label` and SQL.

    python tests/benchmarks/demo_model.py [--model MODEL] [--images 2000] [--seed 1000] [--out FILE]

Composes the scenes anew (Debian: apt install fonts-noto-color-emoji), labels them into a store, and asks the store.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from record import environment, markdown_table

from pipeline.catalog.views import open_store

# An image's recall at k: the share of its objects among the first k labels; hit at 1: whether the first label is one.
_PER_IMAGE = """
    SELECT count(*) AS n_objects,
        max(coalesce(l.rank = 1, false)::INT) AS hit_1,
        avg(coalesce(l.rank <= 10, false)::INT) AS recall_10
    FROM truth t LEFT JOIN labels l USING (run, image_id, label) GROUP BY run, image_id
"""
_SUMMARY = f"""
    SELECT {{group}} AS objects, count(*) AS scenes,
        avg(hit_1), 1.96 * stddev_samp(hit_1) / sqrt(count(*)),
        avg(recall_10), 1.96 * stddev_samp(recall_10) / sqrt(count(*))
    FROM ({_PER_IMAGE}) GROUP BY 1 ORDER BY 1
"""


def run_tagstream(*arguments: object) -> None:
    subprocess.run([str(Path(sys.executable).with_name("tagstream")), *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1000, help="of scenes that are in no training corpus")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        corpus, store = f"{scratch}/corpus", f"{scratch}/store"
        run_tagstream("demo-corpus", "--out", corpus, "--images", options.images, "--seed", options.seed)
        run_tagstream("label", corpus, "--store", store, "--model", options.model, "--top-k", 10)
        connection = open_store(store)
        rows = [
            row for group in ("'all'", "n_objects") for row in connection.sql(_SUMMARY.format(group=group)).fetchall()
        ]
    text = report(options, rows)
    print(text)
    if options.out:
        options.out.write_text(text)


def report(options: argparse.Namespace, rows: list[tuple[object, ...]]) -> str:
    """The result as Markdown."""
    cells = [
        [objects, f"{n_scenes:,}", f"{at_1:.3f} ± {margin_1:.3f}", f"{at_10:.3f} ± {margin_10:.3f}"]
        for objects, n_scenes, at_1, margin_1, at_10, margin_10 in rows
    ]
    return f"""# The demo model on fresh scenes

{environment("cpu", f"python {' '.join(sys.argv)}")}
- {options.images:,} scenes of seed {options.seed}, which is in no training corpus; 95 % intervals
- recall@10: the share of a scene's objects among the first ten labels, exact match; hit@1: whether the first label
  is in the scene; the goal is 0.90 for both

{markdown_table(["objects in the scene", "scenes", "hit@1", "recall@10"], cells)}
"""


if __name__ == "__main__":
    main()
