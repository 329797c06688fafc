"""`tagstream compact`: fewer and larger files, the same rows."""

from __future__ import annotations

import click


@click.command(short_help="Put many files into few: faster answers.")
@click.argument("store")
@click.option("--run", help="Only this run.")
@click.option("--vocabulary", type=click.Path(exists=True, dir_okay=False), help="TOML or CSV.  [default: built in]")
def compact(store: str, run: str | None, vocabulary: str | None) -> None:
    """Put the shard files of STORE together in larger ones, sorted by label. The rows stay exactly the same.

    Jobs may label meanwhile, and go on later: they still know their shards. Killed, it leaves a whole store. The names
    that the vocabulary gives are kept beside the labels; with another one questions take a little longer.

    \b
    tagstream compact s3://bucket/tags
    """
    from jobs.console.live_line import LiveLine
    from pipeline.naming.vocabulary import read_vocabulary
    from pipeline.store.store import Store
    from pipeline.upkeep.compaction import compact_run

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
    """How far the compaction of a run is."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._done = self._total = 0

    def note(self, done: int, total: int) -> None:
        self._done, self._total = done, total

    def describe(self, elapsed_s: float) -> str:
        from jobs.console.live_line import clock

        return f"run {self._run}: {self._done:,} of {self._total:,} new files · {clock(elapsed_s)} gone"
