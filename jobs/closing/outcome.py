"""How a command ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import click

from jobs.console.process import exit_code_of
from pipeline.errors import RunLockedError
from pipeline.text import one_line


@dataclass(slots=True)
class Outcome:
    """How a command ended, as far as that is known."""

    state: str = "running"
    """"running", "done", "failed", "interrupted", or "locked" where another job holds the run."""
    exit_code: int | None = None
    """What the command exits with; None while it runs."""
    message: str = ""
    """What went wrong, in one sentence."""
    alarms: list[str] = field(default_factory=list)
    """Limits that the user set and that the result exceeds, as text: "reject_rate > 0.05"."""

    def succeed(self) -> None:
        """The command went through; an exit code that it chose itself stays."""
        self.state = "done"
        self.exit_code = self.exit_code or 0

    def fail(self, failure: BaseException) -> None:
        """The command ends with this exception."""
        self.exit_code = exit_code_of(failure)
        if isinstance(failure, KeyboardInterrupt | click.Abort):
            self.state = "interrupted"
            return
        self.state = "locked" if isinstance(failure, RunLockedError) else "failed"
        self.message = failure.format_message() if isinstance(failure, click.ClickException) else one_line(failure)
