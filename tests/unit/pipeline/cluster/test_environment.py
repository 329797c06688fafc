"""Which cluster a command joins, and which variables its workers get."""

from __future__ import annotations

import pytest

from pipeline.cluster.environment import cluster_address, forwarded_environment, profile_left_behind


class TestAddress:
    """Which cluster a command joins."""

    @pytest.fixture(autouse=True)
    def _no_ray_job(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
            monkeypatch.delenv(name, raising=False)

    def test_a_cluster_that_the_environment_names_is_not_joined_by_accident(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert cluster_address(None) is None
        assert cluster_address("auto") == "auto"

    def test_a_job_of_a_cluster_works_on_that_cluster(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
        assert cluster_address(None) == "auto"
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert cluster_address(None) == "10.0.0.1:6379"
        assert cluster_address("10.0.0.2:6379") == "10.0.0.2:6379"
        assert cluster_address("local") is None


@pytest.mark.parametrize(
    "name",
    [
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_EXECUTION_ENV",
        "AWS_BEARER_TOKEN_BEDROCK",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "OTHER",
    ],
)
def test_what_holds_for_this_machine_alone_is_not_passed_to_others(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "mine")
    assert name not in forwarded_environment()


@pytest.mark.parametrize(
    "name",
    [
        "HF_ENDPOINT",
        "HF_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_MAX_ATTEMPTS",
        "AWS_REQUEST_CHECKSUM_CALCULATION",
    ],
)
def test_the_login_and_where_the_storage_is_are_passed_to_others(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "ours")
    assert forwarded_environment()[name] == "ours"


@pytest.mark.parametrize(
    ("given", "is_left"),
    [
        ({}, None),
        ({"AWS_PROFILE": "mine"}, "mine"),
        ({"AWS_DEFAULT_PROFILE": "mine"}, "mine"),
        ({"AWS_PROFILE": "mine", "AWS_ENDPOINT_URL": "http://s3:9000"}, "mine"),
        ({"AWS_PROFILE": "mine", "AWS_ACCESS_KEY_ID": "key"}, None),
    ],
)
def test_a_login_by_profile_alone_is_known_to_stay_here(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], is_left: str | None
) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert profile_left_behind() == is_left
