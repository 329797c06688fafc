"""`tagstream sql`: a question to a store."""

from __future__ import annotations

import click


@click.command(short_help="Ask a store in SQL.")
@click.argument("store")
@click.argument("query")
@click.option("--format", "output", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--vocabulary", type=click.Path(exists=True, dir_okay=False), help="TOML or CSV.  [default: built in]")
def sql(store: str, query: str, output: str, vocabulary: str | None) -> None:
    """Run one SQL QUERY (DuckDB's dialect) over STORE, local or s3://, and print what it gives.

    Views: images (one row a sample), labels (one row a label), rejects, truth (given labels), runs, jobs. Macros:
    images_with('dog'), labels_of('key'), cooccurring('dog'), top_labels('run'), recall_at(10). Names fold spellings.

    \b
    tagstream sql STORE "SELECT label, count(*) AS n FROM labels GROUP BY label ORDER BY n DESC LIMIT 10"
    tagstream sql STORE "SELECT shard, key, score FROM images_with('dog', min_score := 0.2)"
    """
    from jobs.output import print_result
    from pipeline.analysis.vocabulary import read_vocabulary
    from pipeline.catalog import open_store, run_query

    print_result(run_query(open_store(store, read_vocabulary(vocabulary)), query), output)
