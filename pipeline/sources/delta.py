"""Which files of a Delta table are part of it now.

A Delta table's folder holds the files of its former versions, too, until they are vacuumed. Its log says which ones
count: a checkpoint lists all files at one version, and each commit after it adds and removes some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.storage.files import Filesystem

_LOG = "_delta_log"
_COMMIT = re.compile(
    rf"(?P<table>(?:.*/)?){_LOG}/(?P<version>\d{{20}})(?P<checkpoint>\.checkpoint\b.*)?\.(json|parquet)"
)


def superseded_files(filesystem: Filesystem, root: str, names: Iterable[str]) -> set[str]:
    """Parquet files that no Delta table counts any more, among the names of files below a root.

    Raises SourceError where a table's log cannot be read, or marks single rows of a file as removed.
    """
    names = list(names)
    tables: dict[str, dict[str, re.Match[str]]] = {}
    for name in names:
        if (match := _COMMIT.fullmatch(name)) is not None:
            tables.setdefault(match["table"], {})[name] = match
    superseded = set()
    for table, log in tables.items():
        live = {table + path for path in _live_files(filesystem, root, table, log)}
        of_table = (name for name in names if name.startswith(table) and not name.startswith(f"{table}{_LOG}/"))
        superseded |= {name for name in of_table if name.endswith(".parquet") and name not in live}
    return superseded


def _live_files(filesystem: Filesystem, root: str, table: str, log: dict[str, re.Match[str]]) -> set[str]:
    """The files of a table at its newest version, relative to the table."""
    checkpoint = max((match["version"] for match in log.values() if match["checkpoint"]), default="")
    live: set[str] = set()
    try:
        for name, match in sorted(log.items()):
            if match["checkpoint"] and match["version"] == checkpoint:
                live |= set(_added(_read_checkpoint(filesystem, f"{root}/{name}"), table))
        for name, match in sorted(log.items()):
            if not match["checkpoint"] and match["version"] > checkpoint:
                actions = [json.loads(line) for line in filesystem.cat_file(f"{root}/{name}").splitlines() if line]
                live -= {unquote(action["remove"]["path"]) for action in actions if action.get("remove")}
                live |= set(_added((action.get("add") for action in actions), table))
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise SourceError(f"the log of the Delta table {root}/{table} cannot be read: {error}") from error
    return live


def _read_checkpoint(filesystem: Filesystem, path: str) -> list[Any]:
    if not path.endswith(".parquet"):
        raise ValueError(f"{path} is a checkpoint in JSON")
    with filesystem.open(path, "rb") as stream:
        added: list[Any] = pq.read_table(stream, columns=["add"]).column("add").to_pylist()
    return added


def _added(actions: Iterable[Any], table: str) -> Iterable[str]:
    for action in actions:
        if not action or not action.get("path"):
            continue
        if action.get("deletionVector"):
            raise SourceError(
                f"the Delta table {table or 'of the source'} marks rows of {action['path']} as removed, which is not "
                "read; rewrite it (REORG TABLE ... APPLY (PURGE)), or label an export"
            )
        yield unquote(action["path"])
