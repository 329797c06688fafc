"""The prompt of `tagstream sql`: reads queries one after the other and prints their results."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import click
import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from jobs.console.output import print_result
from jobs.verbs.sql_query import run_interruptibly, split_queries
from pipeline.catalog.connection import Connection, query_rows, run_query
from pipeline.errors import TagstreamError
from pipeline.text import one_line, printable

_CONTINUED = "...> "
_MAX_RUN_CHARACTERS = 40
# The commands as other prompts call them.
_ALIASES = {
    **dict.fromkeys((".exit", "exit", "quit", "\\q"), ".quit"),
    **dict.fromkeys(("help", "\\?", "\\h"), ".help"),
    **dict.fromkeys(("\\d", "\\dt", "\\dv"), ".tables"),
}
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE)
_HELP = """\
A query ends with a semicolon and may take several lines; it reads the store as it was when the prompt opened.

  .tables   views and macros, and their columns and arguments
  .help     this text
  .quit     leave, as do exit, quit, \\q and Ctrl-D

Tab completes. Ctrl-C stops a query, or clears what is typed. Ctrl-R searches what was asked before."""


def run_prompt(connection: Connection, store: str, output: str) -> None:
    """Asks for queries until the user leaves, and prints the result of each, its number of rows and its time.

    Args:
        connection: of the open store.
        store: directory or URL, for the greeting.
        output: "table", "csv" or "json".
    """
    runs = [row["run"] for row in query_rows(connection, "records", {"run": None})]
    prompt = _prompt_of(runs)
    session: PromptSession[str] = PromptSession(
        prompt,
        # Enter starts a new line until the query is complete.
        multiline=Condition(lambda: not is_complete(get_app().current_buffer.text)),
        prompt_continuation=_CONTINUED.rjust(len(prompt)),
        completer=WordCompleter(completions(connection), ignore_case=True),
        complete_while_typing=False,
        key_bindings=_leaving(),
        history=_open_history(),
    )
    several = f" It holds {len(runs)} runs; --run narrows the views to one." if len(runs) > 1 else ""
    click.echo(f"Store {store}.{several} A query ends with ; and .help tells more.")
    while True:
        try:
            text = session.prompt().strip()
            if _command(text) == ".quit":
                return
            _obey(connection, text, output)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _leaving() -> KeyBindings:
    """Ctrl-D leaves on every empty line, also on one that continues a query, as other prompts do."""
    bindings = KeyBindings()

    @bindings.add("c-d", filter=Condition(lambda: not get_app().current_buffer.document.current_line.strip()))
    def leave(event: KeyPressEvent) -> None:
        event.app.exit(exception=EOFError)

    return bindings


def _prompt_of(runs: Sequence[str]) -> str:
    """The prompt: the run that the views hold, or how many runs they hold."""
    if len(runs) != 1:
        return f"{len(runs)} runs> "
    (run,) = runs
    shown = run if len(run) <= _MAX_RUN_CHARACTERS else run[: _MAX_RUN_CHARACTERS - 3] + "..."
    return f"run {shown}> "


def is_complete(text: str) -> bool:
    """Whether Enter runs this text: it is empty, a command, or a query that ends with a semicolon."""
    text = text.strip()
    if not text or text.startswith(".") or _command(text).startswith("."):
        return True
    tokens = [(start, kind) for start, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    # Tokens start at byte offsets. A semicolon within a string, a quoted name or a comment is not an operator.
    return bool(tokens) and tokens[-1][1] == duckdb.token_type.operator and text.encode()[tokens[-1][0] :][:1] == b";"


def completions(connection: Connection) -> list[str]:
    """Words that Tab completes: tables, columns and macros of the connection, then SQL's keywords and functions."""
    tables = query_rows(connection, "tables", {})
    functions = [row for row in query_rows(connection, "functions", {}) if _PLAIN_NAME.fullmatch(row["name"])]
    keywords = query_rows(connection, "keywords", {})
    reserved = {row["word"] for row in keywords if row["is_reserved"]}
    names = {row["name"] for row in tables} | {column for row in tables for column in row["columns"]}
    quoted = {name if _PLAIN_NAME.fullmatch(name) and name.upper() not in reserved else f'"{name}"' for name in names}
    macros = [row["name"] + "(" for row in functions if row["is_macro"]]
    others = [row["name"] + "(" for row in functions if not row["is_macro"]]
    return [*sorted(quoted), *macros, *(row["word"] for row in keywords), *others]


def history_path() -> Path:
    """The file of past queries, in the user's state folder (XDG_STATE_HOME)."""
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    # The XDG standard says to ignore relative paths.
    return (folder if folder.is_absolute() else Path.home() / ".local" / "state") / "tagstream" / "sql_history"


def _open_history() -> History:
    try:
        path = history_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(path)
    except (OSError, RuntimeError) as error:
        click.echo(f"Note: what is asked is not kept: {one_line(error)}", err=True)
        return InMemoryHistory()


def _command(text: str) -> str:
    """The command that a text is, or else the text."""
    word = text.strip().rstrip("; ")
    return _ALIASES.get(word.lower(), word)


def _obey(connection: Connection, text: str, output: str) -> None:
    """Runs a command or queries; a failure is printed, and the prompt goes on."""
    command = _command(text)
    try:
        if command == ".help":
            click.echo(_HELP)
        elif command == ".tables":
            _print_tables(connection)
        elif command.startswith("."):
            raise TagstreamError(f"there is no {printable(command)}; .help lists what there is")
        else:
            for query in split_queries(connection, text):
                _answer(connection, query, output)
    except TagstreamError as error:
        click.echo(f"Error: {error}", err=True)


def _answer(connection: Connection, query: str, output: str) -> None:
    started = time.monotonic()
    try:
        n_rows = run_interruptibly(connection, lambda: print_result(run_query(connection, query), output))
    except KeyboardInterrupt:
        click.echo(f"Stopped after {time.monotonic() - started:.3f} s", err=True)
        raise
    took = f"{n_rows:,} row{'' if n_rows == 1 else 's'}, {time.monotonic() - started:.3f} s"
    click.echo(took, err=output != "table")


def _print_tables(connection: Connection) -> None:
    formatter = click.HelpFormatter(width=100)
    with formatter.section("Views"):
        formatter.write_dl([(row["name"], ", ".join(row["columns"])) for row in query_rows(connection, "tables", {})])
    click.echo(formatter.getvalue())
    click.echo("Macros:")
    for row in query_rows(connection, "functions", {}):
        if row["is_macro"]:
            click.echo(f"  {row['name']}({', '.join(row['parameters'])})")
