"""The soak of random kills, for a minute."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fixtures.checkout import ROOT


# Each job starts a Ray of its own: minutes, where the machine is busy.
@pytest.mark.timeout(900)
@pytest.mark.long
def test_after_a_few_random_kills_the_tables_are_those_of_an_undisturbed_job() -> None:
    command = [sys.executable, "tests/soak/kills.py", "--kills", "2", "--seed", "1"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=840, check=False)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "without saying so: **0**" in finished.stdout
