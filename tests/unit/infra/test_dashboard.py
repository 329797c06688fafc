"""The Grafana dashboard shows what a job tells, all of it, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.metrics import JOB_TAGS, METRICS, Metric
from tests.fixtures.infra import INFRA

DASHBOARD: dict[str, Any] = json.loads((INFRA / "grafana" / "tagstream.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWN_AS = {"_seconds": "s", "_bytes": "bytes", "_ratio": "percentunit"}


def shown_names(metric: Metric) -> set[str]:
    """What Ray's nodes show of a metric."""
    suffixes = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
    return {f"ray_{metric.name}{suffix}" for suffix in suffixes}


def expressions() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"]["query"] for variable in DASHBOARD["templating"]["list"])


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b\w*tagstream_\w+", expression))


def metric_of(name: str) -> Metric:
    (metric,) = (metric for metric in METRICS if name in shown_names(metric))
    return metric


def test_every_metric_on_the_dashboard_exists() -> None:
    known = set().union(*map(shown_names, METRICS))
    assert {name for expression in expressions() for name in names_in(expression)} - known == set()


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_on_the_dashboard(metric: Metric) -> None:
    assert any(names_in(expression) & shown_names(metric) for expression in expressions())


def test_panels_group_and_name_by_tags_that_their_metric_has() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            grouped = {tag for tags in re.findall(r"by \(([^)]*)\)", target["expr"]) for tag in tags.split(", ")}
            asked = set(re.findall(r"(\w+)=~?\"", target["expr"]))
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for name in names_in(target["expr"]):
                assert grouped | asked | named <= {*JOB_TAGS, *metric_of(name).tags, "le"}, panel["title"]


def test_every_panel_is_of_the_runs_and_jobs_that_are_chosen() -> None:
    chosen = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert chosen == set(JOB_TAGS)
    for panel in PANELS:
        for target in panel["targets"]:
            n_asked = target["expr"].count('{run=~"$run",started=~"$started"}')
            assert n_asked == len(re.findall(r"\btagstream_|_tagstream_", target["expr"])) > 0


def test_the_dashboard_opens_with_the_latest_job_alone() -> None:
    """Nodes go on showing the counters of jobs that are over, which are not to be added to those of the next."""
    (variable,) = (variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "started")
    # Without a choice and without "All" Grafana takes the first; 2 is alphabetical, backwards.
    assert (variable["current"], variable["includeAll"], variable["sort"]) == ({}, False, 2)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_no_tag_is_a_label_that_prometheus_sets(metric: Metric) -> None:
    """With its default `honor_labels: false` it would call ours `exported_job`."""
    set_by_prometheus = {"job", "instance", "le", "quantile"}
    set_by_its_operator = {"namespace", "pod", "container", "endpoint", "service", "node"}
    assert {*JOB_TAGS, *metric.tags} & (set_by_prometheus | set_by_its_operator) == set()


def test_gauges_are_shown_in_their_unit_and_counters_as_rates() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            (metric, *_) = map(metric_of, names_in(target["expr"]))
            if metric.kind == "gauge":
                units = [unit for suffix, unit in SHOWN_AS.items() if metric.name.endswith(suffix)]
                assert panel["fieldConfig"]["defaults"]["unit"] == (units or ["short"])[0]
            elif panel["type"] == "timeseries":
                assert "rate(" in target["expr"]


def test_panels_ask_the_prometheus_that_is_provisioned_and_do_not_overlap() -> None:
    text = (INFRA / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    assert set(re.findall(r'"uid": "(\w+)"', json.dumps(PANELS))) == {"prometheus"}
    assert "uid: prometheus\n" in text
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_readme_names_every_metric_with_its_tags() -> None:
    text = (INFRA / "README.md").read_text()
    rows = re.findall(r"^\| `ray_(tagstream_\w+)` \| (.*?) \|", text, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", tags)) for name, tags in rows}
    assert told == {metric.name: metric.tags for metric in METRICS}
