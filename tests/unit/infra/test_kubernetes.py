"""The Kubernetes manifests are what the API server and KubeRay take, and mean what they say."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.settings.labelling import LabelSettings
from pipeline.settings.toml_file import read_settings
from pipeline.store.lock import LEASE_S
from tests.fixtures.infra import EXAMPLE, INFRA, STANDING, WANTED, Manifest, build, pins, strings

# Where each of KubeRay's kinds keeps the description of its cluster.
CLUSTER_PATHS = {
    ("RayJob", "tagstream-label"): ("spec", "rayClusterSpec"),
    ("RayJob", "tagstream-train"): ("spec", "rayClusterSpec"),
    ("RayCronJob", "tagstream-nightly"): ("spec", "jobTemplate", "rayClusterSpec"),
    ("RayCluster", "tagstream"): ("spec",),
}
Built = dict[tuple[str, str], Manifest]
Check = Callable[[Manifest], None]


def cluster_of(manifest: Manifest) -> Manifest:
    value: Any = manifest
    for key in CLUSTER_PATHS[manifest["kind"], manifest["metadata"]["name"]]:
        value = value[key]
    assert isinstance(value, dict)
    return value


def cluster(example: Built) -> Manifest:
    return cluster_of(example["RayCronJob", "tagstream-nightly"])


def pods_of(cluster: Manifest) -> list[Manifest]:
    """Head first."""
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def containers_of(cluster: Manifest) -> list[Manifest]:
    return [pod["containers"][0] for pod in pods_of(cluster)]


def jobs_of(example: Built) -> Iterator[Manifest]:
    for (kind, _), manifest in example.items():
        if kind == "RayJob":
            yield manifest["spec"]
        elif kind == "RayCronJob":
            yield manifest["spec"]["jobTemplate"]


@pytest.mark.parametrize(("kind", "name"), CLUSTER_PATHS)
def test_kuberay_knows_every_field(example: Built, check_kuberay: Check, kind: str, name: str) -> None:
    check_kuberay(example[kind, name])


def test_a_field_that_kuberay_would_drop_is_found(example: Built, check_kuberay: Check) -> None:
    manifest = copy.deepcopy(example["RayJob", "tagstream-label"])
    cluster_of(manifest)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(jsonschema.ValidationError, match="imagePullPolice"):
        check_kuberay(manifest)


def test_kubernetes_knows_every_field_of_the_other_manifests(example: Built) -> None:
    kinds = []
    for manifest in example.values():
        if not manifest["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(manifest, "1.34", strict=True)
            kinds.append(manifest["kind"])
    assert sorted(set(kinds)) == ["ConfigMap", "CronJob", "Role", "RoleBinding", "ServiceAccount"]


def test_a_field_that_kubernetes_does_not_know_is_found(example: Built) -> None:
    manifest = copy.deepcopy(example["CronJob", "tagstream-nightly"])
    manifest["spec"]["jobTemplate"]["spec"]["backOffLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="backOffLimit"):
        kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_the_pods_of_ray_are_pods_of_kubernetes(example: Built) -> None:
    for pod in pods_of(cluster(example)):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": pod}, "1.34", strict=True
        )


def test_every_manifest_is_named_by_a_kustomization() -> None:
    named = {
        (path.parent / resource).resolve()
        for path in (INFRA / "k8s").rglob("kustomization.yaml")
        for resource in yaml.safe_load(path.read_text()).get("resources", [])
    }
    manifests = {path for path in (INFRA / "k8s").rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert manifests <= named


def test_the_base_is_whole_without_an_overlay() -> None:
    assert build(INFRA / "k8s" / "base").keys() == build(EXAMPLE / STANDING).keys()


def test_what_is_applied_again_and_again_is_no_work(example: Built) -> None:
    """It would start, or with `suspend: true` end, what somebody has at work."""
    standing = build(EXAMPLE / STANDING)
    assert {kind for kind, _ in standing} == {
        *("ConfigMap", "ServiceAccount", "Role", "RoleBinding"),
        *("CronJob", "RayCronJob"),
    }
    # One of the two schedules is at work.
    assert [example[kind, "tagstream-nightly"]["spec"]["suspend"] for kind in ("CronJob", "RayCronJob")] == [
        False,
        True,
    ]


@pytest.mark.parametrize("name", WANTED)
def test_what_is_wanted_once_comes_alone_and_starts(name: str) -> None:
    standing, built = build(EXAMPLE / STANDING), build(EXAMPLE / name)
    (key,) = built.keys() - standing.keys()
    assert key in CLUSTER_PATHS
    assert "suspend" not in built[key]["spec"]
    # What stands stays as it is.
    assert {key: built[key] for key in standing} == standing


def test_the_same_cluster_serves_all(example: Built) -> None:
    for key in CLUSTER_PATHS:
        assert cluster_of(example[key]) == cluster(example)


def test_what_an_overlay_patches_in_one_cluster_reaches_all(example: Built) -> None:
    for key in CLUSTER_PATHS:
        assert "nodeSelector" in cluster_of(example[key])["workerGroupSpecs"][0]["template"]["spec"]


def test_the_overlay_sets_the_image_of_every_ray_node(example: Built) -> None:
    (image,) = yaml.safe_load((EXAMPLE / STANDING / "kustomization.yaml").read_text())["images"]
    for key in CLUSTER_PATHS:
        for container in containers_of(cluster_of(example[key])):
            assert container["image"] == f"{image['newName']}:{image['newTag']}"


def test_the_overlay_sets_what_the_base_leaves_open(example: Built) -> None:
    assert not [text for text in strings(list(example.values())) if "set-by-the-overlay" in text]
    assert {manifest["metadata"]["namespace"] for manifest in example.values()} == {"tagstream"}


def test_ray_is_the_version_of_the_image(example: Built) -> None:
    assert cluster(example)["rayVersion"] == pins()["ray"]


def test_every_ray_container_states_what_it_needs_and_how_it_is(example: Built) -> None:
    for container in containers_of(cluster(example)):
        resources = container["resources"]
        # Ray takes its CPUs and memory from the limits: more than was requested would not be there.
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert all(resources["requests"][name] == resources["limits"][name] for name in ("cpu", "memory"))
        assert {"readinessProbe", "livenessProbe"} <= container.keys()


def test_no_pod_runs_as_root_or_can_become_it(example: Built) -> None:
    nightly = example["CronJob", "tagstream-nightly"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for pod in [*pods_of(cluster(example)), nightly]:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def hook_of(example: Built) -> tuple[str, list[str]]:
    """The script that stops the jobs of a head's pod, and its arguments."""
    (container,) = pods_of(cluster(example))[0]["containers"]
    program, option, script, *arguments = container["lifecycle"]["preStop"]["exec"]["command"]
    assert (program, option) == ("python", "-c")
    return script, arguments


def test_a_job_has_the_time_to_commit_before_its_pod_ends(example: Built) -> None:
    head = pods_of(cluster(example))[0]
    (container,) = head["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    folder, *seconds = hook_of(example)[1]
    assert folder == "/proc"
    assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) == int(seconds[0]) >= 120
    # Ray drains the node for as long after the hook.
    assert sum(map(int, seconds)) + 30 < head["terminationGracePeriodSeconds"]


# Says when it can be stopped, and notes each time that it is.
STOPPABLE = """
import pathlib, signal, sys, time
def stop(*_):
    with pathlib.Path(sys.argv[0]).with_suffix(".stops").open("a") as stops:
        stops.write("stop ")
    time.sleep(0.5)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(600)
"""


def test_the_head_stops_its_commands_once_and_waits_for_them(example: Built, tmp_path: Path) -> None:
    """Of a RayJob, with a shell around it, and of `tagstream submit`; a process that only names tagstream goes on."""
    script, _ = hook_of(example)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    files = [tmp_path / "tagstream", tmp_path / "jobs" / "cli.py", tmp_path / "other.py"]
    for path in files:
        path.write_text(STOPPABLE)
    python = sys.executable
    commands = [
        ["sh", "-c", f"label() {{ {python} {files[0]} label; }}; label || {{ code=$?; exit $code; }}"],
        [python, "-m", "jobs.cli", "label"],
        [python, str(files[2]), str(files[0])],
    ]
    with contextlib.ExitStack() as stack:
        started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) for command in commands]
        for process in started:
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        # The script sees no other process of this machine.
        (tmp_path / "proc").mkdir()
        shell = started[0].pid
        in_shell = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        for number in (*in_shell, *(process.pid for process in started)):
            (tmp_path / "proc" / str(number)).symlink_to(f"/proc/{number}")
        subprocess.run([python, "-c", script, tmp_path / "proc", "240", "0"], check=True, timeout=280)
        assert [path.with_suffix(".stops").exists() for path in files] == [True, True, False]
        assert [path.with_suffix(".stops").read_text() for path in files[:2]] == ["stop ", "stop "]
        # They are over when the script is; the shell hands on how its command ended.
        assert [process.wait(240) for process in started[:2]] == [143, 143]
        assert started[2].poll() is None


@pytest.mark.parametrize(
    ("codes", "code", "seconds_waited"), [([0], 0, []), ([143], 143, []), ([5, 0], 0, ["330"]), ([5, 5], 5, ["330"])]
)
def test_a_job_waits_once_for_the_lock_of_one_that_died(
    example: Built, tmp_path: Path, codes: list[int], code: int, seconds_waited: list[str]
) -> None:
    """The commands of the RayJobs that take a lock run in a shell, with a tagstream that exits with these codes."""
    (tmp_path / "sleep").write_text('#!/bin/sh\necho "$1" >> slept\n')
    (tmp_path / "tagstream").write_text('#!/bin/sh\nread code < codes; sed -i 1d codes; exit "$code"\n')
    for program in ("sleep", "tagstream"):
        (tmp_path / program).chmod(0o755)
    entrypoints = [job["entrypoint"] for job in jobs_of(example) if "--lock" in job["entrypoint"]]
    assert len(entrypoints) == 2
    for entrypoint in entrypoints:
        (tmp_path / "codes").write_text("".join(f"{number}\n" for number in codes))
        (tmp_path / "slept").write_text("")
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", entrypoint], cwd=tmp_path, env=environment, timeout=240)
        assert done.returncode == code
        assert (tmp_path / "slept").read_text().split() == seconds_waited
    assert all(int(seconds) > LEASE_S for seconds in seconds_waited)


def test_only_workers_go_to_spot_nodes(example: Built) -> None:
    head, *workers = pods_of(cluster(example))
    assert "tolerations" not in head
    for worker in workers:
        assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= {
            toleration["key"] for toleration in worker["tolerations"]
        }


def test_gpus_label_and_cpus_read(example: Built) -> None:
    gpus = {
        group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for group in cluster(example)["workerGroupSpecs"]
    }
    assert gpus == {"gpu": "1", "readers": None}


def test_the_pool_is_planned_for_all_gpus_that_may_come(example: Built) -> None:
    told = tomllib.loads(example["ConfigMap", "tagstream-label"]["data"]["label.toml"])
    (group,) = [group for group in cluster(example)["workerGroupSpecs"] if group["groupName"] == "gpu"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    each = {"cpus": int(limits["cpu"]), "gpus": int(limits["nvidia.com/gpu"])}
    assert told == {"actors": group["maxReplicas"], "nodes_to_come": {"count": group["maxReplicas"], **each}}


def test_a_cluster_that_begins_small_gets_an_actor_for_each_gpu(example: Built) -> None:
    told = tomllib.loads(example["ConfigMap", "tagstream-label"]["data"]["label.toml"])
    groups = cluster(example)["workerGroupSpecs"]
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups]
    workers = [Node(int(limit["cpu"]), int(limit.get("nvidia.com/gpu", 0))) for limit in limits]
    pool = plan_pool([Node(0, 0), *workers], read_settings(LabelSettings, told, "label.toml"))
    # All at once: those that wait for a GPU are what the autoscaler sees.
    assert (pool.min_actors, pool.n_actors, pool.device) == (8, 8, "cuda")


def test_labelling_reads_its_settings_where_they_are_mounted(example: Built) -> None:
    head = pods_of(cluster(example))[0]
    (mount,) = head["containers"][0]["volumeMounts"]
    (volume,) = head["volumes"]
    assert volume == {"name": mount["name"], "configMap": {"name": "tagstream-label"}}
    for job in jobs_of(example):
        if "tagstream label" in job["entrypoint"]:
            assert f"--config {mount['mountPath']}/label.toml " in job["entrypoint"]


def test_jobs_leave_no_machines_behind_and_do_not_wait_for_ever(example: Built) -> None:
    for job in jobs_of(example):
        assert job["shutdownAfterJobFinishes"] is True
        assert job["ttlSecondsAfterFinished"] > 0
        assert job["activeDeadlineSeconds"] > 0


def test_a_nightly_job_is_over_before_the_next(example: Built) -> None:
    job = example["RayCronJob", "tagstream-nightly"]["spec"]["jobTemplate"]
    assert job["preRunningDeadlineSeconds"] + job["activeDeadlineSeconds"] < 24 * 3600


def test_a_second_attempt_cannot_hide_too_many_rejects(example: Built) -> None:
    for job in jobs_of(example):
        assert job["backoffLimit"] == 0 or "--max-reject-rate" not in job["entrypoint"]


def test_the_two_schedules_are_one(example: Built) -> None:
    own, kuberay = (example[kind, "tagstream-nightly"]["spec"] for kind in ("CronJob", "RayCronJob"))
    assert own["concurrencyPolicy"] == "Forbid"
    assert (own["schedule"], own["timeZone"]) == (kuberay["schedule"], kuberay["timeZone"])


# An address that takes messages from anybody who knows it is one, too.
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "NOTIFY", "WEBHOOK")


def test_secrets_come_by_reference_alone(example: Built) -> None:
    assert not [kind for kind, _ in example if kind == "Secret"]
    for container in containers_of(cluster(example)):
        assert {"secretRef": {"name": "tagstream-s3", "optional": True}} in container["envFrom"]
        assert not [
            variable["name"]
            for variable in container.get("env", [])
            if any(word in variable["name"] for word in SECRET_WORDS)
        ]
    for (kind, _), manifest in example.items():
        if kind == "ConfigMap":
            assert not [name for name in manifest["data"] if any(word in name for word in SECRET_WORDS)]


@pytest.mark.parametrize("url", [None, "https://hooks.example.org/?id=a b"])
def test_the_nightly_job_tells_somebody_where_the_secret_says_whom(
    example: Built, tmp_path: Path, url: str | None
) -> None:
    (tmp_path / "tagstream").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > given\n')
    (tmp_path / "tagstream").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **({"NOTIFY_URL": url} if url else {})}
    entrypoint = example["RayCronJob", "tagstream-nightly"]["spec"]["jobTemplate"]["entrypoint"]
    subprocess.run(["sh", "-c", entrypoint], cwd=tmp_path, env=environment, check=True, timeout=240)
    given = (tmp_path / "given").read_text().splitlines()
    assert given[given.index("--lock") + 1 :] == (["--notify", url] if url else [])


def test_what_is_referred_to_exists(example: Built) -> None:
    for pod in pods_of(cluster(example)):
        assert ("ServiceAccount", pod["serviceAccountName"]) in example
        for container in pod["containers"]:
            maps = [origin["configMapRef"]["name"] for origin in container["envFrom"] if "configMapRef" in origin]
            assert all(("ConfigMap", name) in example for name in maps)
    assert "BUCKET" in example["ConfigMap", "tagstream"]["data"]


def test_prometheus_may_be_told_to_ask_the_pods_of_ray(example: Built, tmp_path: Path) -> None:
    """The overlay's commented lines, uncommented."""
    overlay = EXAMPLE / STANDING
    lines = (overlay / "kustomization.yaml").read_text()
    (commented,) = re.findall(r"^# components:\n#   - (\S+)\n", lines, re.MULTILINE)
    folders = {"resources": [overlay], "components": [overlay / commented]}
    relative = {name: [os.path.relpath(path, tmp_path) for path in paths] for name, paths in folders.items()}
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "tagstream"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**head, **relative}))
    built = build(tmp_path)
    assert built.keys() - build(overlay).keys() == {("PodMonitor", "tagstream")}
    monitor = built["PodMonitor", "tagstream"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["namespace"] == "tagstream"
    # KubeRay labels each pod with the name of its cluster, and gives workers the port of this name.
    assert monitor["spec"].keys() == {"selector", "podMetricsEndpoints"}
    assert monitor["spec"]["selector"] == {"matchExpressions": [{"key": "ray.io/cluster", "operator": "Exists"}]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint.keys() == {"port", "interval"}
    head_ports = containers_of(cluster(example))[0]["ports"]
    assert {"name": endpoint["port"], "containerPort": 8080} in head_ports


def test_the_schedule_may_read_its_template_and_make_rayjobs_and_nothing_else(example: Built) -> None:
    bindings = [manifest for (kind, _), manifest in example.items() if kind == "RoleBinding"]
    assert [(binding["roleRef"]["name"], binding["subjects"][0]["name"]) for binding in bindings] == [
        ("tagstream-nightly", "tagstream-nightly")
    ]
    rules = example["Role", "tagstream-nightly"]["rules"]
    assert [(rule["resources"], rule.get("resourceNames"), rule["verbs"]) for rule in rules] == [
        (["raycronjobs"], ["tagstream-nightly"], ["get"]),
        (["rayjobs"], None, ["create"]),
    ]


def test_the_schedule_makes_the_rayjob_of_the_template(example: Built, check_kuberay: Check, tmp_path: Path) -> None:
    """Its script runs in a shell, with a kubectl that answers from the template and keeps what it is to create."""
    template = example["RayCronJob", "tagstream-nightly"]["spec"]["jobTemplate"]
    (tmp_path / "template.json").write_text(json.dumps(template))
    kubectl = tmp_path / "kubectl"
    answers = 'if [ "$1" = get ]; then cat template.json; else cat > made; fi'
    kubectl.write_text(f'#!/bin/sh\ncd {tmp_path}\necho "$@" >> asked\n{answers}\n')
    kubectl.chmod(0o755)
    pod = example["CronJob", "tagstream-nightly"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    subprocess.run(pod["containers"][0]["command"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True, timeout=240)
    made = json.loads((tmp_path / "made").read_text())
    check_kuberay(made)
    assert made["kind"] == "RayJob"
    assert made["spec"] == template
    assert (tmp_path / "asked").read_text().splitlines() == [
        "get raycronjob tagstream-nightly --output jsonpath={.spec.jobTemplate}",
        "create --filename -",
    ]
