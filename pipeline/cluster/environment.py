"""Environment variables that workers on other machines need.

Those of AWS, without what only this machine knows, and those by which models of the Hugging Face hub are had.
"""

from __future__ import annotations

import json
import os

# As an address: a Ray that is started on this machine. It is Ray's own word for it.
LOCAL_RAY = "local"
# Ray's Jobs API gives this to the command of every job that it runs, those of KubeRay's RayJobs among them.
_MARK_OF_A_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"

# They name files and roles of this machine, or say how it gets at them; other machines have their own, which these
# would hide. And keys of other services.
_AWS_OF_THIS_MACHINE = {
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CREDENTIAL_FILE",
    "AWS_DATA_PATH",
    "AWS_DEFAULT_PROFILE",
    "AWS_EXECUTION_ENV",
    "AWS_IMDS_USE_IPV6",
    "AWS_LOGIN_CACHE_DIRECTORY",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
}
_OF_THE_HUB = {"HF_ENDPOINT", "HF_TOKEN"}
_AWS_KINDS_OF_THIS_MACHINE = ("AWS_BEARER_TOKEN_", "AWS_CONTAINER_", "AWS_EC2_METADATA_", "AWS_LAMBDA_")


def forwarded_environment() -> dict[str, str]:
    """Where storage and models are and how to log in, for the workers of a cluster that was started without it."""
    return {name: value for name, value in os.environ.items() if _is_forwarded(name)}


def _is_forwarded(name: str) -> bool:
    is_of_this_machine = name in _AWS_OF_THIS_MACHINE or name.startswith(_AWS_KINDS_OF_THIS_MACHINE)
    return name in _OF_THE_HUB or (name.startswith("AWS_") and not is_of_this_machine)


def profile_left_behind() -> str | None:
    """The AWS profile that is this machine's only login, if it is: its keys stand in files, which are not forwarded."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    return os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")


def missing_environment() -> dict[str, str]:
    """The forwarded variables that the job's own runtime environment does not set.

    Ray refuses a variable that is set twice, with an error that shows the values of all of them.
    """
    of_job = json.loads(os.environ.get(_MARK_OF_A_RAY_JOB, "{}")).get("runtime_env") or {}
    given = of_job.get("env_vars") or {}
    return {name: value for name, value in forwarded_environment().items() if name not in given}


def cluster_address(given: str | None) -> str | None:
    """The cluster to join: the one that is named, or the one that runs this process as its job; None is this machine.

    RAY_ADDRESS alone is no reason to join a cluster: on a laptop it may be left over from other work.
    """
    if given == LOCAL_RAY:
        return None
    if given or _MARK_OF_A_RAY_JOB not in os.environ:
        return given
    return os.environ.get("RAY_ADDRESS") or "auto"
