"""`tagstream compact`: merges files into fewer and larger ones, with the same rows."""

from __future__ import annotations

import click

from jobs.console.live_line import LiveLine, clock
from jobs.console.options import only_run_option, store_argument, vocabulary_option
from pipeline.naming.vocabulary import read_vocabulary
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
    names = read_vocabulary(vocabulary)
    place = Store(store)
    if not place.exists():
        raise click.ClickException(f"there is no store at {store}")
    for name in [run] if run else place.run_names():
        line = _FilesLine(name)
        with LiveLine(line.describe):
            outcome = compact_run(place.run(name), names, line.note)
        click.echo(
            f"run {name}: {outcome.n_shards:,} shards in {outcome.n_files_after:,} files, before in "
            f"{outcome.n_files_before:,}; labels take {outcome.label_bytes_after / 1e6:,.1f} MB, before "
            f"{outcome.label_bytes_before / 1e6:,.1f} MB; {outcome.seconds:.1f} s"
        )
        if outcome.n_put_off:
            click.echo(f"  {outcome.n_put_off} files changed meanwhile and were left; run the command again", err=True)


class _FilesLine:
    """The live line of a run's compaction."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._done = self._total = 0

    def note(self, done: int, total: int) -> None:
        self._done, self._total = done, total

    def describe(self, elapsed_s: float) -> str:
        return f"run {self._run}: {self._done:,} of {self._total:,} new files · {clock(elapsed_s)} gone"
