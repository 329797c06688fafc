"""`tagstream label`: its options and its file of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobs.verbs import label as label_module
from jobs.verbs.label import label
from pipeline.errors import TagstreamError
from pipeline.labelling.request import LabelRequest


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
    assert (request.source, request.store, request.model) == ("source", "store", "model")
    assert (request.run, request.address, request.verbose) == ("mine", "auto", True)


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
