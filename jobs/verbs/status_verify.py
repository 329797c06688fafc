"""`tagstream status --verify` and `--repair`: finds and repairs damage in a store."""

from __future__ import annotations

import shlex

import click

from jobs.console.live_line import LiveLine, clock
from pipeline.errors import StoreError
from pipeline.labelling.source_status import labelling_command
from pipeline.store.run_choice import match_run
from pipeline.store.store import Store, no_store
from pipeline.text import printable
from pipeline.upkeep.findings import Finding, Mend, Verification
from pipeline.upkeep.repair import repair_run
from pipeline.upkeep.verification import runs_to_verify, verify_run

EXIT_DAMAGED = 1
_MAX_FINDINGS = 200


def verify_store(url: str, run: str | None, repair: bool) -> int:
    """Verifies a store and prints the findings.

    Args:
        url: the store, a directory or s3://bucket/prefix.
        run: the one run to verify, as `match_run` takes it; None verifies all.
        repair: whether to repair what was found.

    Returns: the exit code, 1 where damage is left. Damage that was repaired does not count.
    """
    store = Store(url)
    runs = runs_to_verify(store)
    if not runs:
        raise no_store(url)
    is_left = False
    for name in runs if run is None else [match_run(store, runs, run)]:
        verification = _verify(store, name)
        _print_verification(verification)
        if repair:
            is_left |= not _repair(store, verification)
            is_left |= any(finding.is_damage and finding.mend is Mend.BY_HAND for finding in verification.findings)
        else:
            is_left |= not verification.is_whole
    return EXIT_DAMAGED if is_left else 0


def _verify(store: Store, run: str) -> Verification:
    done = [0, 0]

    def note(n_read: int, n_files: int) -> None:
        done[:] = [n_read, n_files]

    def describe(elapsed_s: float) -> str:
        return f"run {run}: {done[0]:,} of {done[1]:,} files of images read · {clock(elapsed_s)} elapsed"

    with LiveLine(describe):
        return verify_run(store.run(run), note)


def _print_verification(verification: Verification) -> None:
    findings = verification.findings
    n_damaged = sum(finding.is_damage for finding in findings)
    read = (
        f"{verification.n_files:,} files of images with their labels read, {verification.n_images:,} images, "
        f"{verification.n_labels:,} labels" + (f", {verification.n_listed:,} listed" if verification.n_listed else "")
    )
    verdict = f"{n_damaged:,} damaged" if n_damaged else "all whole"
    if n_notes := len(findings) - n_damaged:
        verdict += f", {n_notes:,} left behind or foreign"
    click.echo(f"run {verification.run}: {read}: {verdict}")
    for finding in findings[:_MAX_FINDINGS]:
        click.echo(f"  {_line(finding)}")
    if len(findings) > _MAX_FINDINGS:
        click.echo(f"  (the first {_MAX_FINDINGS} of {len(findings):,})")


def _line(finding: Finding) -> str:
    return printable(f"{finding.kind:<11} {finding.path} {finding.message}; {finding.mend}")


def _repair(store: Store, verification: Verification) -> bool:
    """Repairs what can be repaired; returns whether every repair succeeded."""
    n_opened = n_done = n_left = 0
    for repaired in repair_run(store.run(verification.run), verification):
        opened = f", {repaired.n_opened:,} shards open now" if repaired.n_opened else ""
        click.echo(f"  {repaired.what:<11} {printable(repaired.path)}{opened}")
        n_opened += repaired.n_opened
        n_done += 1
        n_left += not repaired.is_mended
    if not n_done:
        click.echo("  nothing to repair")
    if n_opened:
        click.echo(f"  to complete the run: {_command(store, verification.run)}")
    return not n_left


def _command(store: Store, run: str) -> str:
    """The command that completes a run: that of its last job, or one made from its record."""
    try:
        command = labelling_command(store.run(run).read_jobs())
        record = store.run(run).read_record()
    except StoreError:
        return "the command that made it"
    if command:
        return printable(command)
    source = record.source if record else "SOURCE"
    return shlex.join(["tagstream", "label", source, "--store", store.url, "--run", run]) + " ..."
