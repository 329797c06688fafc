"""The view `confident_labels`: labels of a store that reach their thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.catalog.connection import Connection, add_table, query_rows, read_sql
from pipeline.catalog.label_choice import LISTED_RANKING, label_kinds
from pipeline.errors import TagstreamError
from pipeline.naming.thresholds import Thresholds
from pipeline.naming.vocabulary import Vocabulary

_THRESHOLDS = pa.schema([("name", pa.string()), ("threshold", pa.float32())])
_RUNS = pa.schema([("run", pa.string()), ("common", pa.float32()), ("lowest_first", pa.bool_())])


def create_confident_labels(connection: Connection, thresholds: Thresholds, vocabulary: Vocabulary) -> None:
    """Makes the view `confident_labels`, and the tables `thresholds` and `threshold_runs` that it needs.

    The view holds labels of the runs that have the thresholds' model and ranking. Raises TagstreamError where there is
    no such run, or where the thresholds are for another vocabulary: to believe the wrong labels would go unnoticed.
    """
    kinds = label_kinds(connection)
    if kinds != thresholds.labels:
        raise TagstreamError(
            f"the thresholds are for {thresholds.labels} labels, and the store was opened with {kinds} ones; use "
            f"--labels {thresholds.labels}"
        )
    if vocabulary.version != thresholds.vocabulary:
        raise TagstreamError(
            f"the thresholds are for names of the vocabulary {thresholds.vocabulary}, the store was opened with "
            f"{vocabulary.version}; open it with that one, or learn thresholds anew with `tagstream thresholds`"
        )
    runs = [run["run"] for run in query_rows(connection, "threshold_runs", {}) if _is_meant(thresholds, run, kinds)]
    if not runs:
        raise TagstreamError(
            f"the thresholds are for labels of the model {thresholds.model_fingerprint} ranked by "
            f"{thresholds.ranking}, as of run {thresholds.run}; the store has no such run: learn thresholds of its own "
            "with `tagstream thresholds`"
        )
    by_name = pa.table([list(thresholds.thresholds), list(thresholds.thresholds.values())], schema=_THRESHOLDS)
    add_table(connection, "thresholds", by_name)
    n_runs = len(runs)
    of_runs = pa.table([runs, [thresholds.common] * n_runs, [thresholds.lowest_first] * n_runs], schema=_RUNS)
    add_table(connection, "threshold_runs", of_runs)
    connection.execute(read_sql("confident_labels"))


def _is_meant(thresholds: Thresholds, run: Mapping[str, Any], kinds: str) -> bool:
    of_run = (run["model_fingerprint"], run["labelling"]["ranking"] if kinds == "open" else LISTED_RANKING)
    return of_run == (thresholds.model_fingerprint, thresholds.ranking)
