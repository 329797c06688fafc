"""The command `tagstream`: which modules it imports, and what its help lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from jobs import verbs
from jobs.cli import tagstream

ROOT = Path(__file__).parents[3]
FAULT = (
    "import sys, jobs.cli, jobs.verbs.status\n"
    "def fail(*_, **__): raise KeyError('a bug')\n"
    "jobs.verbs.status.status.callback = fail\n"
    "sys.argv = ['tagstream', *{arguments}]\n"
    "jobs.cli.main()"
)
HEAVY = {"ray", "torch", "transformers"}
# Modules of jobs/verbs that hold a part of another verb.
PARTS = {"sql_prompt", "sql_query", "status_since", "status_verify"}


def run(program: str) -> list[str]:
    """What a Python process of its own prints, line by line."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_its_help_imports_no_verb() -> None:
    usage, *_, imported = run(
        "import sys; from jobs.cli import tagstream\n"
        "tagstream(['--help'], prog_name='tagstream', standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    assert usage.startswith("Usage: tagstream")
    assert not [name for name in imported.split() if name.startswith("jobs.verbs.")]
    assert not set(imported.split()) & {*HEAVY, "duckdb", "pyarrow"}


def test_no_verb_imports_ray_or_torch_before_it_runs() -> None:
    lines = run(
        "import sys; from jobs.cli import tagstream\n"
        "for verb, command in tagstream.commands.items():\n"
        f"    print(command.name, sorted({HEAVY} & set(sys.modules)))"
    )
    assert lines == [f"{verb} []" for verb in tagstream.commands]


def test_its_help_lists_every_verb_of_the_folder() -> None:
    names = {path.stem for path in Path(str(verbs.__file__)).parent.glob("*.py")} - {"__init__", *PARTS}
    shown = CliRunner().invoke(tagstream, ["--help"]).output.partition("Commands:\n")[2]
    listed = [line.split()[0] for line in shown.splitlines() if line[2:3].strip()]
    assert listed == sorted(name.replace("_", "-") for name in names)


def test_every_verb_has_the_name_that_it_is_listed_by() -> None:
    assert {verb: command.name for verb, command in tagstream.commands.items()} == {
        verb: verb for verb in tagstream.commands
    }


def test_a_fault_in_the_code_is_one_sentence_and_its_traceback_is_in_a_file() -> None:
    program = FAULT.format(arguments=["status", "store"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    sentence, _, file = line.partition("; its traceback is in ")
    assert sentence == "Error: this is a fault of tagstream: KeyError: 'a bug'"
    kept = Path(file).read_text()
    Path(file).unlink()
    assert kept.startswith("tagstream status store\n")
    assert "in fail" in kept


def test_a_working_directory_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", 'rmdir "$0" && exec "$@"', gone, sys.executable, "-P", "-m", "jobs.cli", "status", tmp_path]
    done = subprocess.run(
        command, cwd=gone, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "Error: the working directory does not exist any more; change to one that does\n"


def test_the_command_waits_for_no_thread_that_was_left_behind_and_tells_a_workers_story_if_asked() -> None:
    program = (
        "import sys, threading, time, jobs.cli, jobs.verbs.label\n"
        "from pipeline.background import abandon_threads\n"
        "from pipeline.errors import worker_failed\n"
        "def fail(**_):\n"
        "    threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "    abandon_threads()\n"
        "    raise worker_failed('KeyError: 7') from KeyError(7)\n"
        "jobs.verbs.label.label.callback = fail\n"
        "sys.argv = ['tagstream', 'label', 'photos', '--store', 'tags', '--verbose']\n"
        "jobs.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr.startswith("KeyError: 7\n")
    assert done.stderr.endswith("Error: a worker failed: KeyError: 7; run with --verbose for its whole story\n")
