"""The files for Ray's cluster launcher are such that Ray takes them."""

from __future__ import annotations

import shlex
import tomllib
from typing import Any

import pytest
import yaml

from tests.fixtures.infra import INFRA, dockerfile_stages, pins

CLOUDS = ("aws", "gcp")


@pytest.fixture(params=CLOUDS)
def given(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A cluster file as it stands."""
    loaded: dict[str, Any] = yaml.safe_load((INFRA / "ray" / f"{request.param}.yaml").read_text())
    return loaded


def prepared(given: dict[str, Any]) -> dict[str, Any]:
    """With all that Ray adds to it."""
    from ray.autoscaler._private.util import prepare_config

    whole: dict[str, Any] = prepare_config(given)
    return whole


def is_spot(node_type: dict[str, Any]) -> bool:
    config = node_type["node_config"]
    on_aws = config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return bool(on_aws or config.get("scheduling", {}).get("provisioningModel") == "SPOT")


def test_ray_takes_the_file(given: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(prepared(given))


def test_a_field_that_ray_does_not_know_is_found(given: dict[str, Any]) -> None:
    import jsonschema
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepared({**given, "idle_timeout": 5}))


def test_gpus_label_and_cpus_read_on_spot_and_the_head_is_kept(given: dict[str, Any]) -> None:
    types = given["available_node_types"]
    assert {name: is_spot(node_type) for name, node_type in types.items()} == {
        "head": False,
        "gpu": True,
        "reader": True,
    }
    assert types["gpu"]["resources"]["GPU"] == 1
    assert "GPU" not in types["reader"]["resources"]
    assert types[given["head_node_type"]]["resources"] == {"CPU": 0}


def test_there_may_be_as_many_workers_as_their_kinds_allow(given: dict[str, Any]) -> None:
    assert given["max_workers"] == sum(kind.get("max_workers", 0) for kind in given["available_node_types"].values())


def test_the_pool_is_planned_for_all_gpus_that_may_come(given: dict[str, Any]) -> None:
    told = tomllib.loads((INFRA / "ray" / "label.toml").read_text())
    gpu = given["available_node_types"]["gpu"]
    each = {"cpus": gpu["resources"]["CPU"], "gpus": gpu["resources"]["GPU"]}
    assert told == {"actors": gpu["max_workers"], "nodes_to_come": {"count": gpu["max_workers"], **each}}


def test_nothing_is_installed_over_what_the_image_locks(given: dict[str, Any]) -> None:
    # Ray's default would install a nightly build of Ray.
    assert prepared(given)["setup_commands"] == []
    (command,) = prepared(given)["head_setup_commands"]
    name, version = command.removeprefix("pip install ").split("==")
    assert version == pins().get(name, version)


def test_the_container_starts_a_shell(given: dict[str, Any]) -> None:
    from ray.autoscaler._private.docker import docker_start_cmds

    docker = given["docker"]
    command = docker_start_cmds(
        "ubuntu", docker["image"], {}, "ray", docker["run_options"], "tagstream", "/home", "docker"
    )
    words = shlex.split(command)
    assert words[words.index("--entrypoint") + 1] == ""
    assert words[-2:] == [docker["image"], "bash"]


def test_the_token_lies_where_the_image_looks_for_it(given: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in given["docker"]["run_options"]
    assert given["file_mounts"] == {"/home/tagstream/.ray/auth_token": "~/.ray/auth_token"}


def test_the_image_says_where_its_home_is() -> None:
    # The launcher takes /root where the image's environment has no HOME.
    final = dockerfile_stages()[-1]
    assert any("HOME=/home/tagstream " in step for step in final.all_of("ENV"))


def test_the_two_clusters_differ_in_their_machines_alone() -> None:
    aws, gcp = (yaml.safe_load((INFRA / "ray" / f"{cloud}.yaml").read_text()) for cloud in CLOUDS)
    differing = {name for name in aws.keys() | gcp.keys() if aws.get(name) != gcp.get(name)}
    assert differing == {"provider", "available_node_types", "head_setup_commands"}
