"""`tagstream demo`: labels sample images, queries them in SQL, and makes a report."""

from __future__ import annotations

import click

from jobs.console.output import print_result
from jobs.console.paste import to_paste
from jobs.demo.shipped import SHARDS
from jobs.verbs.label import report, run_job
from jobs.verbs.report import print_report
from model.folder import DEMO_MODEL
from pipeline.catalog.connection import run_query
from pipeline.catalog.views import open_store
from pipeline.labelling.request import LabelRequest
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.report.job import Report, ReportRequest
from pipeline.settings.labelling import LabelSettings
from pipeline.store.store import Store

_FIRST_LABELS = """
    SELECT i.key, i.caption, string_agg(format('{} {:.3f}', l.label, l.score), ', ' ORDER BY l.rank) AS labels
    FROM images i JOIN labels l USING (run, image_id)
    WHERE l.rank <= 3 AND i.run = $run
    GROUP BY i.key, i.caption ORDER BY i.key LIMIT 5
"""
# recall: the mean share of an image's objects that are found. hit: the share of images with at least one found.
_RECALL = """SELECT 1 AS k, images, recall, hit FROM recall_at(1){which}
UNION ALL SELECT 10, images, recall, hit FROM recall_at(10){which}"""


@click.command
@click.option("--store", default="demo-store", show_default=True, help="Where the tables go.")
def demo(store: str) -> None:
    """Label the scenes that ship with tagstream, print a few labels and the answer to an SQL query, make a report.

    \b
    tagstream demo --store demo-store
    """
    # Brings in Ray, which takes seconds to import.
    from pipeline.labelling.job import LabelJob

    click.echo(f"Labelling the scenes in {SHARDS}")
    request = LabelRequest(source=SHARDS, store=store, model=DEMO_MODEL, settings=LabelSettings(top_k=10))
    outcome = run_job(LabelJob(request))
    report(outcome, store)
    run = outcome.record.run
    connection = open_store(store)
    recall = _RECALL.format(which="" if len(Store(store).run_names()) == 1 else f" WHERE run = '{run}'")
    click.echo("\nThe first images, their captions and best labels:\n")
    print_result(connection.execute(_FIRST_LABELS, {"run": run}))
    click.echo(f"\n{to_paste('sql', store, recall)}\n")
    print_result(run_query(connection, recall))
    click.echo("")
    out = f"{store.rstrip('/')}.html"
    made = Report(ReportRequest(store=store, run=run, out=out, vocabulary=read_vocabulary(None), overwrite=True))
    made.write()
    print_report(made)
    click.echo(
        "\nNext, your own images (a folder, WebDataset tars or Parquet files; local or s3://). The demo model knows"
    )
    click.echo("only scenes like these; photographs need another model:")
    click.echo(f"  {to_paste('models')}")
    click.echo(f"  {to_paste('label', 'FOLDER', '--store', 'my-store', '--model', 'MODEL')}")
    click.echo(f"  {to_paste('--help')}")
