"""Self-training: a truncated student gets its recall back from its teacher's labels on unlabelled scenes.

    tagstream demo-corpus --out corpus/more --images 20000 --seed 3
    tagstream demo-corpus --out corpus/val --images 1000 --seed 2
    python tests/benchmarks/self_training.py corpus/more corpus/val [--teacher MODEL] [--blocks 1] [--steps 300]
        [--min-score 0.05] [--out FILE]

The scenes are stripped of their labels and captions first: the student learns from the teacher alone.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo_preset import demo_settings
from labelled_scenes import measure_recall, read_scenes
from record import environment, markdown_table

from model import Recognizer
from model.training.truncation import truncate
from pipeline.cluster.ray_session import start_ray, stop_ray
from pipeline.training.job import TrainJob, TrainRequest, source_shards
from pipeline.training.recall_sum import QUALITIES, RecallSum


def strip_labels(source: str, out: Path) -> None:
    """Copies the images of local tars, and nothing else."""
    out.mkdir()
    for shard in source_shards(source):
        with tarfile.open(shard.url) as labelled, tarfile.open(out / Path(shard.url).name, "w") as bare:
            for member in labelled:
                if member.name.endswith(".jpg"):
                    bare.addfile(member, labelled.extractfile(member))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source")
    parser.add_argument("val")
    parser.add_argument("--teacher", default="demo")
    parser.add_argument("--blocks", type=int, default=1, help="decoder blocks of the student")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--min-score", type=float, default=0.05)
    parser.add_argument("--val-images", type=int, default=1000)
    parser.add_argument("--small", action="store_true", help="small batches, to see that the benchmark runs")
    parser.add_argument("--out", type=Path, help="also write the result here, as Markdown")
    options = parser.parse_args()
    start_ray(None, verbose=False)
    scenes = read_scenes(options.val, options.val_images)
    teacher = Recognizer.from_pretrained(options.teacher, device="cpu", dtype="float32")
    student = truncate(teacher, options.blocks)
    measured = {"teacher": measure_recall(teacher, scenes), "truncated": measure_recall(student, scenes)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        student.save_pretrained(folder / "student")
        strip_labels(options.source, folder / "unlabelled")
        request = TrainRequest(
            source=str(folder / "unlabelled"),
            out=str(folder / "taught"),
            init=str(folder / "student"),
            teacher=options.teacher,
            min_score=options.min_score,
            settings=demo_settings(options.steps, options.small, dtype="float32"),
        )
        TrainJob(request).run()
        measured["truncated and taught"] = measure_recall(Recognizer.from_pretrained(folder / "taught"), scenes)
    stop_ray()
    text = report(options, measured)
    print(text)
    if options.out:
        options.out.write_text(text)


def report(options: argparse.Namespace, measured: dict[str, RecallSum]) -> str:
    """The result as Markdown."""
    rows = [
        [name, *(f"{recall.means()[quality] or 0.0:.3f}" for quality in QUALITIES)] for name, recall in measured.items()
    ]
    return f"""# Self-training: a truncated decoder, taught by the whole one

{environment("cpu", f"python {' '.join(sys.argv)}")}
- teacher: {options.teacher}; student: its first {options.blocks} decoder block(s)
- {options.steps:,} steps on scenes without labels, on the teacher's labels of score {options.min_score} or more
- {options.val_images:,} scenes

{markdown_table(["model", *(quality.replace("_", "@") for quality in QUALITIES)], rows)}
"""


if __name__ == "__main__":
    main()
