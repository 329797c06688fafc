"""The benchmark scripts run, on tiny models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.folder import resolve_folder
from tests.fixtures.checkout import ROOT

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
needs_font = pytest.mark.skipif(not FONT.is_file(), reason="the font Noto Color Emoji is not installed")

# Only a script that hangs takes so long; others need many times what they need alone, where the machine is busy.
TIMEOUT_S = 600
# Each runs a script of minutes in small, some two.
pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * TIMEOUT_S)]


def run_script(name: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, f"tests/benchmarks/{name}.py", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A finished comparison with recomputation, and its record."""
    path = tmp_path_factory.mktemp("benchmark") / "record.md"
    finished = run_script("one_shot", "--small", "--out", str(path))
    return finished, path.read_text() if path.is_file() else ""


def table_rows(record: str) -> list[list[str]]:
    lines = [line for line in record.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_hashes_of_what_images_look_like_are_measured(tmp_path):
    record = tmp_path / "record.md"
    options = ("--images", "4", "--rounds", "1", "--rows", "2000", "--out", str(record))
    finished = run_script("near_duplicates", *options)
    assert finished.returncode == 0, finished.stderr
    rows = {row[0]: row for row in table_rows(record.read_text())}
    assert (rows["quality 90"][1], rows["quality 90"][-1]) == ("4", "100%")
    assert rows["another picture"][1] == "6"
    assert int(rows["2,000"][2]) >= 100


def test_the_comparison_prints_what_it_records(comparison):
    finished, record = comparison
    assert finished.returncode == 0, finished.stderr
    assert record in finished.stdout


def test_the_comparison_has_a_row_for_each_number_of_branches(comparison):
    header, _, *rows = table_rows(comparison[1])
    assert header[0] == "k"
    assert [row[0] for row in rows] == ["2", "5"]


def test_one_shot_and_recomputation_write_the_same_tokens(comparison):
    header, _, *rows = table_rows(comparison[1])
    assert [row[header.index("same tokens")] for row in rows] == ["yes", "yes"]


def test_the_record_says_where_and_how_it_was_measured(comparison):
    for item in ("hardware", "date", "Python", "commit", "command"):
        assert f"- {item}" in comparison[1]


def test_models_of_the_hub_have_a_row_for_each_model_and_batch_size():
    finished = run_script("hub_models", "--small", "--repeats", "1")
    assert finished.returncode == 0, finished.stderr
    header, _, *rows = table_rows(finished.stdout.partition("## One-shot sampling")[2])
    assert header[:2] == ["model", "batch"]
    assert [row[1] for row in rows] == ["1", "2"] * 3
    assert all(float(row[header.index("images/s")]) > 0 for row in rows)


def test_the_sweep_has_a_row_for_each_batch_size_and_number_of_branches():
    finished = run_script("one_shot", "--small", "--sweep")
    header, _, *rows = table_rows(finished.stdout)
    assert header[:2] == ["batch", "k"]
    assert [row[:2] for row in rows] == [["1", "2"], ["2", "2"], ["1", "5"], ["2", "5"]]


def test_the_benchmark_of_a_gpu_runs_in_small_and_says_what_failed_and_what_had_no_time(tmp_path):
    path = tmp_path / "record.md"
    chosen = ["rate", "way eager", "way fused, compiled, graphs, float8 decoder", "way encoder by cuDNN attention"]
    options = ["--tiny", "--out", str(path), "--only", *chosen, "sweep eager 10", "tests"]
    finished = run_script("gpu", *options)
    assert finished.returncode == 0, finished.stderr
    record = path.read_text()
    assert record in finished.stdout
    _, ways, sweep, tests = (table_rows(part) for part in record.split("\n## ")[1:])
    speed, same = ways[0].index("images/s"), ways[0].index("branches as eager")
    eager, fast, cudnn = ways[2:]
    assert float(eager[speed]) > 0
    assert eager[same] == "100.0%"
    assert float(fast[speed]) > 0
    assert cudnn[speed].startswith("failed: RuntimeError: No viable backend")
    assert [row[0] for row in sweep[2:]] == ["eager, k = 10, batch 1", "eager, k = 10, batch 2"]
    assert tests[-1][0] == "pytest, exit code 0"


def test_the_benchmark_of_a_gpu_has_a_limit_for_every_measure(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    from tests.benchmarks.acceleration.measures import MEASURES
    from tests.benchmarks.gpu import measures

    assert {measure.name for measure in measures([])} == set(MEASURES)
    with pytest.raises(SystemExit, match="no measure is called nonsense; expected some of: rate; way eager;"):
        measures(["nonsense"])


def test_the_training_benchmark_sets_the_job_against_the_bare_step():
    finished = run_script("training", "--small", "--steps", "20")
    assert finished.returncode == 0, finished.stderr
    assert [row[0].split(",")[0] for row in table_rows(finished.stdout)[2:]] == [
        "bare step on batches in memory",
        "the same",
        "the job",
    ]
    assert "of the bare step; goal 0.95" in finished.stdout


@needs_font
@pytest.mark.parametrize(
    ("script", "columns"),
    [
        ("denoising", ["plain", "augmentation", "consistency, guided"]),
        ("denoising_full", ["plain", "augmentation", "consistency, guided", "as shipped"]),
    ],
)
def test_a_benchmark_of_denoising_goes_on_where_it_was_stopped(tmp_path, script, columns):
    results, record = tmp_path / "results", tmp_path / "record.md"
    first = run_script(script, str(results), "--small", "--seeds", "1")
    assert first.returncode == 0, first.stderr
    header, _, *rows = next_table(first.stdout, "by corruption and strength")
    assert header[: len(columns) + 1] == ["scenes", *columns]
    assert [row[0] for row in rows[:3]] == ["clean", "noise 0.5", "noise 1"]
    trials = (results / "trials.jsonl").read_text()
    again = run_script(script, str(results), "--small", "--seeds", "1", "--budget-minutes", "0", "--out", str(record))
    assert again.returncode == 0, again.stderr
    assert (results / "trials.jsonl").read_text() == trials
    assert next_table(record.read_text(), "by corruption and strength") == [header, _, *rows]


def next_table(record: str, heading: str) -> list[list[str]]:
    """The first table behind a heading."""
    lines = record.partition(heading)[2].partition("\n\n")[2].partition("\n\n")[0]
    return table_rows(lines)


def test_the_self_training_benchmark_measures_the_teacher_and_the_student_before_and_after():
    options = ["jobs/demo/shards", "jobs/demo/shards", "--small", "--steps", "4", "--val-images", "20"]
    finished = run_script("self_training", *options)
    assert finished.returncode == 0, finished.stderr
    assert [row[0] for row in table_rows(finished.stdout)[2:]] == ["teacher", "truncated", "truncated and taught"]


def test_the_benchmark_of_questions_finds_the_same_answers_before_and_after_compaction():
    finished = run_script("queries", "--images", "20000", "--times", "1")
    assert finished.returncode == 0, finished.stderr
    header, _, *rows = table_rows(finished.stdout)
    assert header[:2] == ["question", "goal s"]
    assert rows[0][0] == "a rare label"
    assert all(row[-1] for row in rows)


@needs_font
def test_the_benchmark_of_listed_names_sets_their_recall_beside_that_of_open_labels():
    finished = run_script("listed_names", "--images", "2", "--scenes", "40")
    assert finished.returncode == 0, finished.stderr
    assert [row[0] for row in table_rows(finished.stdout)[-3:]] == [
        "listed",
        "open k = 20, filtered",
        "open k = 50, filtered",
    ]


@needs_font
def test_the_benchmark_of_image_tokens_has_a_row_for_each_number_and_model(tmp_path):
    tuned = shutil.copytree(resolve_folder("demo"), tmp_path / "tuned")
    options = ["--small", "--scenes", "32", "--repeats", "1", "--tuned", str(tuned)]
    finished = run_script("image_tokens", *options)
    assert finished.returncode == 0, finished.stderr
    rows = table_rows(finished.stdout)
    assert [row[1] for row in rows if row[0] == "demo"] == ["36", "27", "18", "13", "9", "5"]
    assert [row[1] for row in rows if row[0] == "tuned"] == ["36", "18", "9"]
    assert [row[0] for row in rows if row[0] in set("4321")] == ["4", "3", "2", "1"]


@needs_font
def test_the_benchmark_of_views_sets_each_way_to_see_a_picture_beside_the_centre_on_five_shapes():
    finished = run_script("views", "--small")
    assert finished.returncode == 0, finished.stderr
    rows = table_rows(finished.stdout)
    assert [len(row) for row in rows if row[0] == "centre"] == [7] * 5 + [5]
    squares = [row[1] for row in rows if row[0] == "whole, max, k shared" and len(row) == 7]
    assert squares == ["1", "2", "2", "2", "2"]
    few = run_script("views", "--small", "--few-labels")
    assert few.returncode == 0, few.stderr
    assert [row[:2] for row in table_rows(few.stdout)[2:]] == [
        [s, k] for s in ("3:2", "2:1") for k in ("3", "5", "10", "20")
    ]


@needs_font
def test_the_benchmark_of_graphs_sets_onnxruntime_beside_torch_in_recall_and_time():
    finished = run_script("exported", "--small", "--scenes", "32", "--single", "2", "--repeats", "1")
    assert finished.returncode == 0, finished.stderr
    names = ["torch float32", "onnxruntime float32", "onnxruntime int8"]
    of_scenes = [row for row in table_rows(finished.stdout) if row[0] in names]
    assert [row[0] for row in of_scenes] == names * 5
    torch_row, exact_row, _ = of_scenes[:3]
    assert torch_row[1] == exact_row[1]


def test_the_decoding_benchmark_sets_ways_to_decode_side_by_side():
    finished = run_script("decoding", "--small", "--images", "2", "--scenes", "3")
    assert finished.returncode == 0, finished.stderr
    rows = table_rows(finished.stdout)
    assert rows[0] == ["pictures", "MB", "before", "exact", "fast", "faster"]
    changes = {tuple(row[:2]): row for row in rows if len(row) == 8}
    # Torch's resize against Pillow's: one grey level, and no label.
    assert all(int(row[4]) <= 1 for (_, way), row in changes.items() if way == "exact")
    assert changes["2 MP PNG", "exact"][5:] == ["0.0%"] * 3
    assert rows[-1][0] == "saved again, exact"


def test_the_planning_benchmark_sets_each_prediction_against_what_came():
    options = ["--images", "240", "--shards", "5", "--sample", "80", "--corpora", "tars"]
    finished = run_script("plan", *options)
    assert finished.returncode == 0, finished.stderr
    header, _, row = table_rows(finished.stdout)
    assert header[:6] == ["corpus", "seed", "decode_in", "predicted s", "real s", "ratio"]
    predicted_s, real_s, ratio = float(row[3].split()[0]), float(row[4]), float(row[5].strip("*"))
    # Seconds are shown to a tenth, the ratio to a hundredth: how much that is of the ratio depends on the seconds.
    lowest, highest = (predicted_s - 0.05) / (real_s + 0.05), (predicted_s + 0.05) / (real_s - 0.05)
    assert lowest - 0.005 <= ratio <= highest + 0.005


def test_the_benchmark_of_the_busy_share_has_the_devices_share_and_the_hosts_cost_for_each_number_of_labels():
    finished = run_script("busy_share", "--seconds", "1", "--rounds", "1", "--k", "5", "10", "--pauses", "2")
    assert finished.returncode == 0, finished.stderr
    rows = table_rows(finished.stdout)
    shares, costs = [row for row in rows if row[2] == "2"], [row for row in rows if row[0] == "now" and row[2] != "2"]
    assert [row[1] for row in shares] == [row[1] for row in costs] == ["5", "10"]
    assert all(0 < float(row[3].strip("*")) <= 1 for row in shares)
    assert all(float(row[-1]) == pytest.approx(sum(map(float, row[2:-1])), abs=0.005) for row in costs)


def test_each_place_of_decoding_makes_the_same_rows_and_auto_reads_where_another_node_has_cpus():
    options = ["--shards", "4", "--images", "12", "--cpus", "0", "8", "--size", "400", "300"]
    finished = run_script("decode_place", *options)
    assert finished.returncode == 0, finished.stderr
    header, _, *rows = table_rows(finished.stdout)
    assert header[1:3] == ["decode_in", "chosen"]
    assert [row[:2] for row in rows] == [[cpus, place] for cpus in ("0", "8") for place in ("actor", "read", "auto")]
    assert {row[-1] for row in rows} == {"yes"}
    assert [row[2] for row in rows if row[1] == "auto"] == ["actor", "read"]


def test_many_shards_are_listed_counted_and_asked(tmp_path):
    path = tmp_path / "record.md"
    finished = run_script("many_shards", "--shards", "60", "--images", "2", "--out", str(path))
    assert finished.returncode == 0, finished.stderr
    assert len(table_rows(path.read_text())[2:]) == 11


def test_waves_are_labelled_by_models_that_are_loaded_once(tmp_path):
    path = tmp_path / "record.md"
    small = ("--shards", "6", "--wave", "2", "--actors", "2", "--load-s", "0.1", "--batch-s", "0.05")
    finished = run_script("waves", *small, "--out", str(path))
    assert finished.returncode == 0, finished.stderr
    assert ["models loaded", "2"] in table_rows(path.read_text())


def test_the_simulation_of_nights_has_false_alarms_a_control_and_power(tmp_path):
    path = tmp_path / "record.md"
    options = ["--nights", "2", "--power-nights", "1", "--permutations", "99", "--images", "40", "--out", str(path)]
    finished = run_script("drift", *options)
    assert finished.returncode == 0, finished.stderr
    header, _, *rows = table_rows(path.read_text())
    assert header[:4] == ["night", "what moved", "nights", "alarms %"]
    assert len(rows) == 3 * 13
    assert {row[2] for row in rows if row[1] == "nothing"} == {"2"}


def test_the_simulation_of_reviews_has_every_measure_for_each_way_of_drawing(tmp_path):
    path = tmp_path / "record.md"
    finished = run_script("review_estimates", "--images", "2000", "--n", "200", "--draws", "20", "--out", str(path))
    assert finished.returncode == 0, finished.stderr
    header, _, *rows = table_rows(path.read_text())
    assert header[4:6] == ["bias %", "95 % intervals that hold it"]
    assert [row[0] for row in rows] == [by for by in ("random", "uncertain", "disagreement", "rare") for _ in range(7)]
    # Of 20 draws the mean is within four standard errors, as wide as the intervals are.
    for row in rows:
        whole, mean, width = (float(row[column]) for column in (2, 3, 6))
        assert abs(mean - whole) < 4 * width / 3.92 / 20**0.5, row


def test_the_benchmark_of_reuse_compares_the_tables_of_jobs_with_and_without_it(tmp_path):
    path = tmp_path / "record.md"
    small = ("--hashes", "20000", "--images", "40", "--shard", "10", "--rounds", "1", "--image-ms", "1", "--no-ray")
    finished = run_script("reuse", *small, "--out", str(path))
    assert finished.returncode == 0, finished.stderr
    rows = {row[0]: row for row in table_rows(path.read_text())}
    assert rows["bytes of files an image"][1] == "24.0"
    labelled, reused = map(int, rows["corpus, in the process"][2:4])
    assert labelled + reused == 40
    assert 28 <= labelled < 40
    assert rows["other-shards, in the process"][1:4] == ["40", "0", "40"]
    assert rows["other-shards, in the process"][-1].startswith("images equal, labels equal, scores within")
