"""The container image is built from what is locked, holds what the command needs, and nothing of the tests."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.fixtures.infra import INFRA, ROOT, Stage, canonical, dockerfile_stages, pins, run, tool

PACKAGES = ("schemas", "model", "pipeline", "jobs", "tagstream")
STAGES = {stage.name: stage for stage in dockerfile_stages()}


def copied(stage: Stage) -> list[str]:
    """What a stage takes out of the repository."""
    arguments = [shlex.split(copy) for copy in stage.all_of("COPY") if not copy.startswith("--from=")]
    return [source for words in arguments for source in words[:-1]]


def steps(stage: Stage, program: str) -> list[str]:
    """The commands of a stage that start with a program."""
    commands = [re.sub(r"^(--mount=\S+ +)+", "", step) for step in stage.all_of("RUN")]
    return [command for command in commands if command.startswith(f"{program} ")]


def run_step(command: str, folder: Path) -> None:
    """Runs one of the Dockerfile's commands with this Python."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run("/bin/sh", "-c", command, cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the Dockerfile's own step makes of what the Dockerfile copies."""
    context = tmp_path_factory.mktemp("context")
    for source in (*copied(STAGES["build"]), *copied(STAGES["wheel"])):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, context / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, context / source)
    (command,) = steps(STAGES["wheel"], "python")
    run_step(command, context)
    (wheel,) = (context / "dist").glob("*.whl")
    return wheel


def test_hadolint_has_nothing_to_say() -> None:
    assert run(tool("hadolint"), str(INFRA / "Dockerfile")) == ""


def test_docker_is_sent_what_the_dockerfile_copies_and_no_more() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    sent = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    assert patterns[0] == "*"
    assert sent == {source for stage in STAGES.values() for source in copied(stage)}


def test_the_image_is_that_of_no_root() -> None:
    final = dockerfile_stages()[-1]
    assert final.all_of("USER") == ["1000:1000"]
    assert "useradd --uid 1000 --create-home tagstream" in final.all_of("RUN")
    assert final.all_of("ENTRYPOINT") == ['["tagstream"]']


def test_the_last_stage_takes_the_dependencies_and_the_wheel() -> None:
    final = dockerfile_stages()[-1]
    assert final.base == STAGES["build"].base
    assert "--from=dependencies /usr/local /usr/local" in final.all_of("COPY")
    assert any("from=wheel,source=/build/dist" in step for step in final.all_of("RUN"))


def test_there_is_a_stage_for_each_accelerator() -> None:
    assert STAGES["dependencies"].base == "torch-${ACCELERATOR}"
    assert {name for name in STAGES if name.startswith("torch-")} == {"torch-cpu", "torch-cuda"}


def test_every_installation_is_locked() -> None:
    for stage in STAGES.values():
        for step in steps(stage, "pip"):
            assert "--constraint constraints.txt" in step or "--no-index" in step, step


def test_all_that_the_image_installs_is_pinned(tmp_path: Path) -> None:
    """The closure of the requirements that the Dockerfile's own step writes down, and of what builds the wheel."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (command,) = steps(STAGES["dependencies"], "python")
    run_step(command, tmp_path)
    requirements = (tmp_path / "requirements.txt").read_text().splitlines()
    assert "click>=8.1" in requirements
    assert {"ray[data]>=2.60,<3", "ray[default]>=2.60,<3", "ray[train]>=2.60,<3"} <= set(requirements)
    (builder,) = steps(STAGES["wheel"], "pip")
    assert builder.endswith(" hatchling")
    pinned, seen, open_ends = pins(), set(), [Requirement(line) for line in [*requirements, "hatchling"]]
    while open_ends:
        requirement = open_ends.pop()
        name = canonical(requirement.name)
        # torch pins what CUDA needs itself; none of it is installed beside a torch without CUDA.
        if (name, *sorted(requirement.extras)) in seen or name == "triton" or name.startswith(("nvidia-", "cuda-")):
            continue
        seen.add((name, *sorted(requirement.extras)))
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"{requirement}, but {pinned[name]}"
        for line in metadata.requires(name) or []:
            inner = Requirement(line)
            if any(not inner.marker or inner.marker.evaluate({"extra": extra}) for extra in (*requirement.extras, "")):
                open_ends.append(inner)
    assert len(seen) > 50


def test_the_wheel_holds_all_of_the_packages_and_no_tests(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == tracked
    for kind in ("*.sql", "*.toml", "*.tar", "*.safetensors"):
        assert fnmatch.filter(held, kind), f"no {kind} in the wheel"


def test_the_wheel_installs_as_the_image_installs_it_and_runs(wheel: Path, tmp_path: Path) -> None:
    (step,) = [step for step in steps(dockerfile_stages()[-1], "pip") if "--no-index" in step]
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    pip = f"{sys.executable} -m pip --python {environment}/bin/python"
    run_step(step.replace("pip", pip, 1).replace("/dist/*.whl", str(wheel)), tmp_path)
    # What it depends on comes from here, the packages themselves from the wheel.
    installed = os.pathsep.join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    code = "import jobs.cli, model.folder; print(jobs.__file__); jobs.cli.tagstream(['demo', '--help'])"
    said = subprocess.run(
        [str(environment / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": installed},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    ).stdout
    assert said.startswith(str(environment))
    assert "Usage" in said
    assert (environment / "bin" / "tagstream").is_file()
