"""The examples for cron and systemd are such, and do the same."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from jobs.console.process import EXIT_FAILED, EXIT_LOCKED, EXIT_TERMINATED
from jobs.verbs.label import EXIT_TOO_MANY_REJECTS
from tests.fixtures.infra import INFRA, run

FOLDER = INFRA / "schedule"
COMMAND = "/opt/tagstream/bin/tagstream"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=["="])
    parser.optionxform = str
    parser.read_string((FOLDER / name).read_text().replace("\\\n", " "))
    return parser


def crontab_line() -> str:
    lines = (FOLDER / "crontab").read_text().splitlines()
    (line,) = [line for line in lines if re.match(r"[\d*]", line)]
    return line


def environment() -> set[str]:
    return set(re.findall(r"^([A-Z_]+)=", (FOLDER / "tagstream.env").read_text(), re.MULTILINE))


def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed here")
    for path in FOLDER.glob("tagstream-label.*"):
        # The program has to exist.
        (tmp_path / path.name).write_text(path.read_text().replace(COMMAND, sys.executable))
    run("systemd-analyze", "verify", *map(str, tmp_path.iterdir()))


def test_the_timer_starts_the_service_at_the_hour_of_the_crontab() -> None:
    assert unit("tagstream-label.timer")["Timer"]["OnCalendar"] == "*-*-* 02:00:00 UTC"
    assert crontab_line().split()[:5] == ["0", "2", "*", "*", "*"]
    assert (FOLDER / "tagstream-label.service").is_file()


def test_both_run_the_same_command() -> None:
    by_systemd = shlex.split(
        unit("tagstream-label.service")["Service"]["ExecStart"].replace("${", "$").replace("}", "")
    )
    by_cron = shlex.split(crontab_line()[crontab_line().index(COMMAND) : crontab_line().index(" > ")])
    assert by_systemd == by_cron


@pytest.mark.parametrize(
    ("code", "is_mailed"),
    [(0, False), (EXIT_FAILED, True), (EXIT_TOO_MANY_REJECTS, True), (EXIT_LOCKED, False), (EXIT_TERMINATED, False)],
)
def test_cron_has_something_to_mail_where_the_night_failed(tmp_path: Path, code: int, is_mailed: bool) -> None:
    """The line's command runs in bash, with a tagstream that tells of its progress and exits so."""
    program = tmp_path / "tagstream"
    program.write_text(f"#!/bin/sh\nseq 1 100 >&2; exit {code}\n")
    program.chmod(0o755)
    (tmp_path / "env").write_text((FOLDER / "tagstream.env").read_text())
    command = crontab_line().split(maxsplit=6)[6].replace(COMMAND, str(program))
    command = command.replace("/etc/tagstream/env", str(tmp_path / "env")).replace("/var/lib/tagstream", str(tmp_path))
    printed = run("/bin/bash", "-c", command)
    assert printed.split() == [str(line) for line in range(81, 101) if is_mailed]
    assert (tmp_path / "nightly.log").read_text().split()[-1] == "100"


def test_cron_reads_the_line_to_its_end() -> None:
    # A percent sign ends the command there.
    assert "%" not in crontab_line()


def test_the_readme_makes_what_the_examples_name() -> None:
    """Whom they run as, where they log, what they source and start."""
    page = (INFRA / "README.md").read_text()
    service = unit("tagstream-label.service")["Service"]
    assert crontab_line().split()[5] == service["User"] == "tagstream"
    for made in (
        "useradd --system --user-group --home-dir /var/lib/tagstream tagstream\n",
        "--owner tagstream --group tagstream --mode 750 /var/lib/tagstream\n",
        f"infra/schedule/tagstream.env {service['EnvironmentFile']}\n",
        f"python3 -m venv {Path(COMMAND).parents[1]}\n",
    ):
        assert made in page
    assert all((INFRA.parent / path).is_file() for path in re.findall(r"infra/schedule/\S+", page))


def test_what_the_commands_take_from_the_environment_is_in_it() -> None:
    used = set(re.findall(r"\$\{?([A-Z_]+)", crontab_line() + unit("tagstream-label.service")["Service"]["ExecStart"]))
    assert used == {"NOTIFY_URL"}
    assert used < environment()
    assert unit("tagstream-label.service")["Service"]["EnvironmentFile"] in crontab_line()


def test_a_stopped_service_has_time_to_commit_with_its_ray_alive() -> None:
    service = unit("tagstream-label.service")["Service"]
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) >= 120


def test_too_many_rejects_leave_the_unit_failed_and_neither_a_skipped_night_nor_a_stop_does() -> None:
    codes = {int(code) for code in unit("tagstream-label.service")["Service"]["SuccessExitStatus"].split()}
    assert codes == {EXIT_LOCKED, EXIT_TERMINATED}
