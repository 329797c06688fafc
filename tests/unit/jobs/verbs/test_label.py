"""`tagstream label`: its options and its file of settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobs.cli import tagstream
from jobs.verbs import label as label_module
from jobs.verbs.label import judge, label, propose_next, report
from pipeline.errors import TagstreamError
from pipeline.labelling.request import LabelOutcome, LabelRequest
from pipeline.sources.shard import ColumnNames
from schemas import JobRecord
from tests.fixtures.checkout import ROOT
from tests.fixtures.corpus import jpeg
from tests.fixtures.processes.instant_command import do_without_recognizer
from tests.fixtures.stored.tables import job_record


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[LabelRequest]:
    """The jobs that were asked for; none is run."""
    requests: list[LabelRequest] = []
    monkeypatch.setattr(label_module, "run_job", lambda job: requests.append(job.request))
    return requests


def run(tmp_path: Path, *arguments: str, config: str | bytes | None = None) -> Result:
    options = ["source", "--store", "store", "--model", "model", *arguments]
    if config is not None:
        path = tmp_path / "label.toml"
        path.write_bytes(config if isinstance(config, bytes) else config.encode())
        options += ["--config", str(path)]
    return CliRunner().invoke(label, options)


@pytest.mark.parametrize(
    ("arguments", "config", "expected"),
    [
        ([], None, {"top_k": 20, "limit": 0}),
        (["--top-k", "5", "--limit", "7"], None, {"top_k": 5, "limit": 7}),
        ([], 'top_k = 5\nranking = "ppl"', {"top_k": 5, "ranking": "ppl"}),
        (["--top-k", "7"], 'top_k = 5\nranking = "ppl"', {"top_k": 7, "ranking": "ppl"}),
        ([], "# größe\nactors = 2", {"actors": 2}),
        ([], 'reuse = true\nreuse_stores = ["b"]', {"reuse": True, "reuse_stores": ("b",)}),
        (["--reuse", "a", "--reuse", "b"], "reuse = false", {"reuse": True, "reuse_stores": ("a", "b")}),
    ],
)
def test_flags_win_over_the_file_and_the_file_over_the_defaults(
    tmp_path: Path, requests: list[LabelRequest], arguments: list[str], config: str | None, expected: dict[str, Any]
) -> None:
    run(tmp_path, *arguments, config=config)
    (request,) = requests
    assert {name: getattr(request.settings, name) for name in expected} == expected


def test_what_is_no_setting_is_taken_over_as_it_is(tmp_path: Path, requests: list[LabelRequest]) -> None:
    run(tmp_path, "--run", "mine", "--address", "auto", "--verbose")
    (request,) = requests
    assert (request.sources, request.store, request.model) == (("source",), "store", "model")
    assert (request.run, request.address, request.verbose) == ("mine", "auto", True)


def test_columns_of_parquet_files_are_asked_for_by_name(tmp_path: Path, requests: list[LabelRequest]) -> None:
    run(tmp_path, "--image-column", "img", "--key-column", "id", "--caption-column", "alt", "--label-column", "class")
    run(tmp_path)
    columns = [request.columns for request in requests]
    assert columns == [ColumnNames(image="img", key="id", caption="alt", label="class"), ColumnNames()]


def test_without_a_model_the_demos_is_used_and_what_it_does_not_know_is_said(requests: list[LabelRequest]) -> None:
    result = CliRunner().invoke(label, ["source", "--store", "store"])
    assert [request.model for request in requests] == ["demo"]
    assert "not photographs; `tagstream models` lists models for photographs, name one with --model" in result.stderr


def test_with_a_model_nothing_is_said(tmp_path: Path, requests: list[LabelRequest]) -> None:
    assert run(tmp_path).stderr == ""


@pytest.mark.parametrize("config", ["top_k = ", b"top_k = 5 # caf\xe9"])
def test_a_file_that_is_no_toml_is_wrong_usage(
    tmp_path: Path, requests: list[LabelRequest], config: str | bytes
) -> None:
    result = run(tmp_path, config=config)
    assert (result.exit_code, requests) == (2, [])
    assert "label.toml is no valid TOML" in result.output


def test_a_plan_that_is_none_is_said_to_be_none(tmp_path: Path, requests: list[LabelRequest]) -> None:
    (tmp_path / "plan.json").write_text("{}")
    result = run(tmp_path, "--plan", str(tmp_path / "plan.json"))
    assert "plan.json is no forecast" in str(result.exception)
    assert requests == []


def test_an_unknown_setting_names_its_file(tmp_path: Path, requests: list[LabelRequest]) -> None:
    result = run(tmp_path, config="topk = 5")
    assert isinstance(result.exception, TagstreamError)
    assert "label.toml has an unknown setting 'topk'" in str(result.exception)


@pytest.mark.parametrize(
    ("counts", "limit", "count_skipped", "alarms"),
    [
        ((100, 50, 0), None, False, []),
        ((100, 51, 0), None, False, ["reject_rate > 0.5"]),
        # Half of very few is chance, all of them is not.
        ((19, 18, 0), None, False, []),
        ((1, 1, 0), None, False, ["nothing labelled"]),
        ((100, 100, 0), 1.0, False, ["nothing labelled"]),
        ((100, 99, 0), 1.0, False, []),
        ((19, 2, 0), 0.1, False, ["reject_rate > 0.1"]),
        ((0, 0, 0), 0.0, False, []),
        ((80, 0, 100), None, False, []),
        ((80, 0, 100), None, True, ["reject_rate > 0.5"]),
        ((0, 0, 30), None, True, ["reject_rate > 0.5"]),
        ((0, 0, 3), None, True, []),
    ],
)
def test_a_job_is_judged_by_what_was_rejected_and_if_asked_by_what_was_left_out(
    counts: tuple[int, int, int], limit: float | None, count_skipped: bool, alarms: list[str]
) -> None:
    n_images, n_rejected, n_skipped_new = counts
    record = job_record(
        "r",
        n_images=n_images,
        n_labelled=n_images - n_rejected,
        n_rejected=n_rejected,
        n_skipped=n_skipped_new + 7,
        n_skipped_new=n_skipped_new,
    )
    assert judge(LabelOutcome(record, []), limit, count_skipped) == alarms


def test_several_sources_are_one_request(requests: list[LabelRequest]) -> None:
    CliRunner().invoke(label, ["a.tar", "b.tar", "--store", "store", "--model", "model"])
    (request,) = requests
    assert request.sources == ("a.tar", "b.tar")


@pytest.mark.parametrize("n_shards", [0, 2])
def test_what_was_left_out_is_told_whether_there_was_something_to_do_or_not(
    capsys: pytest.CaptureFixture[str], n_shards: int
) -> None:
    record = job_record("r", n_shards_committed=n_shards)
    label_module.report(LabelOutcome(record, [], {".mp4": 12, "link": 1}), "store")
    assert "Left out: 12 .mp4, 1 link" in capsys.readouterr().out.splitlines()
    label_module.report(LabelOutcome(record, []), "store")
    assert "Left out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        ([], (20, 0.0)),
        (["--names-top", "5"], (5, 0.0)),
        # Who asks for all names above a score wants more than 20 of them, too.
        (["--names-min-score", "0.1"], (0, 0.1)),
        (["--names-top", "5", "--names-min-score", "0.1"], (5, 0.1)),
    ],
)
def test_lists_of_names_keep_the_best_or_what_reaches_a_score(
    tmp_path: Path, requests: list[LabelRequest], arguments: list[str], limits: tuple[int, float]
) -> None:
    (tmp_path / "a.txt").write_text("dog")
    (tmp_path / "b.txt").write_text("rose")
    lists = ["--names", str(tmp_path / "a.txt"), "--names", str(tmp_path / "b.txt"), "--names", str(tmp_path / "a.txt")]
    run(tmp_path, *lists, *arguments)
    (request,) = requests
    assert [(of_list.title, of_list.top, of_list.min_score) for of_list in request.lists] == [
        ("a", *limits),
        ("b", *limits),
    ]


def test_a_plan_says_nothing_of_a_job_with_lists(tmp_path: Path, requests: list[LabelRequest]) -> None:
    for name in ("a.txt", "plan.json"):
        (tmp_path / name).write_text("dog")
    result = run(tmp_path, "--names", str(tmp_path / "a.txt"), "--plan", str(tmp_path / "plan.json"))
    assert (result.exit_code, requests) == (2, [])
    assert "--plan is a prediction without scores of --names" in result.output


@pytest.mark.parametrize("arguments", [["--names-top", "5"], ["--names-min-score", "0.1"]])
def test_limits_of_a_list_go_with_a_list(tmp_path: Path, requests: list[LabelRequest], arguments: list[str]) -> None:
    result = run(tmp_path, *arguments)
    assert (result.exit_code, requests) == (2, [])
    assert "go with --names FILE" in result.output


def record(**changed: Any) -> JobRecord:
    return job_record("r", **{"n_images": 1, "n_labelled": 1, "n_labels": 5, "n_shards_committed": 1, **changed})


def test_what_was_done_is_told_with_the_seconds_of_each_phase_and_a_rate_where_there_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    phases = {"ray_start_s": 4.0, "workers_start_s": 8.0, "labelling_s": 1.5, "seconds": 13.9, "n_rejected": 0}
    for images_per_s in (0.0, 2.5):
        report(LabelOutcome(record(**phases, images_per_s=images_per_s), []), "tags")
    first, time, run, _, rated, _ = capsys.readouterr().out.splitlines()
    assert first == "Labelled 1 image in 1 shard: 5 labels, 0 images rejected, 13.9 s"
    assert time == "Time: starting Ray 4.0 s, starting workers and loading the model 8.0 s, labelling 1.5 s"
    assert rated == f"{time} at 2.5 images/s"
    assert run == "Run r in tags"
    report(LabelOutcome(record(**{**phases, "ray_start_s": 0.0}, images_per_s=0.0), []), "tags")
    assert "\nTime: loading the model 8.0 s, labelling 1.5 s\n" in capsys.readouterr().out
    report(LabelOutcome(record(n_shards_committed=0, n_images=0), [], alarm="deadline D"), "tags")
    assert capsys.readouterr().out == "Labelled no shard of run r in time.\n"
    report(LabelOutcome(record(n_reused=1), []), "tags")
    assert "\nReused: 1 image of these have the labels of an equal image\n" in capsys.readouterr().out


def test_the_commands_that_the_page_shows_for_reuse_and_limits_of_time_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "jobs" / "labelling.md").read_text()
    section = page.split("## Images that occur more than once")[1].split("## ")[0]
    commands = re.findall(r"^tagstream (.+)$", section, re.MULTILINE)
    commands += re.findall(r"^tagstream (.+ photos .*--deadline .+)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["label"] * 3 + ["plan", "sql", "status", "plan", "label"]
    monkeypatch.chdir(tmp_path)
    # From fewer images than four batches `plan` predicts nothing.
    for folder, numbers in (("photos", (*range(60), 1)), ("resharded", range(59, -1, -1))):
        (tmp_path / folder).mkdir()
        for place, number in enumerate(numbers):
            (tmp_path / folder / f"{place}.jpg").write_bytes(jpeg(number))
    do_without_recognizer(monkeypatch)
    outputs = []
    for command in commands:
        result = CliRunner().invoke(tagstream, shlex.split(command), catch_exceptions=False)
        assert result.exit_code == 0, f"{command}\n{result.output}"
        outputs.append(result.output)
    assert "Reused: 1 image" in outputs[0]
    assert all("Reused: " in output for output in outputs[1:3])
    assert "1 have the labels of an image of the same content" in outputs[5]
    # The limit is what is left of the eight hours when the options are read.
    assert re.search(r"^covered     all images, within (8:00:00|7:5\d:\d\d)$", outputs[6], re.MULTILINE)
    assert "Nothing to do" in outputs[7]


def test_what_may_come_next_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for store in ("my tags", "s3://bucket/tags"):
        propose_next(store)
    (tmp_path / "tags-report.html").write_text("")
    propose_next("s3://bucket/tags")
    told = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [words[1:3] for words in told[:3]] == [["sql", "my tags"], ["report", "my tags"], ["status", "my tags"]]
    assert [words[4:] for words in told if words[1] == "report"] == [
        ["my tags-report.html"],
        ["tags-report.html"],
        ["tags-report.html", "--overwrite"],
    ]
