"""`tagstream compact`: merges files into fewer and larger ones, with the same rows."""

from __future__ import annotations

import click

from jobs.console.live_line import LiveLine, clock
from jobs.console.options import only_run_option, store_argument, vocabulary_option
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.run_choice import match_run
from pipeline.store.store import Store
from pipeline.upkeep.compaction import compact_run


@click.command
@store_argument
@only_run_option
@vocabulary_option
def compact(store: str, run: str | None, vocabulary: str | None) -> None:
    """Merge the shard files of STORE into larger ones, sorted by label. The rows stay exactly the same.

    Jobs may label at the same time, and can be resumed later. A compaction that is killed leaves the store whole. Each
    label's name in the vocabulary is stored too; queries with another vocabulary take a little longer.

    \b
    tagstream compact s3://bucket/tags
    """
    words = read_vocabulary(vocabulary)
    opened = Store(store)
    if not opened.exists():
        raise click.ClickException(f"there is no store at {store}")
    names = opened.run_names()
    for name in names if run is None else [match_run(opened, names, run)]:
        line = _FilesLine(name)
        with LiveLine(line.describe):
            compacted = compact_run(opened.run(name), words, line.note)
        click.echo(
            f"run {name}: {compacted.n_shards:,} shards in {compacted.n_files_after:,} files, before in "
            f"{compacted.n_files_before:,}; labels take {compacted.label_bytes_after / 1e6:,.1f} MB, before "
            f"{compacted.label_bytes_before / 1e6:,.1f} MB; {compacted.seconds:.1f} s"
        )
        if compacted.n_listed_before:
            click.echo(
                f"  lists of names in {compacted.n_listed_after:,} files, before in {compacted.n_listed_before:,}"
            )
        if compacted.n_skipped:
            click.echo(
                f"  {compacted.n_skipped} files changed meanwhile and were left; run the command again", err=True
            )


class _FilesLine:
    """The live line of a run's compaction."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._done = self._total = 0

    def note(self, done: int, total: int) -> None:
        self._done, self._total = done, total

    def describe(self, elapsed_s: float) -> str:
        return f"run {self._run}: {self._done:,} of {self._total:,} new files · {clock(elapsed_s)} elapsed"
