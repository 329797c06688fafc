"""The prompt of `tagstream sql`, typed at."""

from __future__ import annotations

import io
import re
import stat
from pathlib import Path

import click
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output.plain_text import PlainTextOutput

from jobs.verbs.sql import sql
from jobs.verbs.sql_prompt import completions, history_path, is_complete, run_prompt
from pipeline.catalog.views import open_store
from pipeline.store.store import Store
from tests.fixtures.stored.tables import commit_shard, run_record

ENTER, CTRL_C, CTRL_D = "\r", "\x03", "\x04"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of programs' state, the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def store(tmp_path: Path) -> str:
    store = Store(str(tmp_path / "store"))
    store.create_run(run_record("run-1"))
    commit_shard(store, "run-1", "0")
    return store.url


class Prompt:
    """A prompt that is typed at until Ctrl-D, and what it wrote meanwhile."""

    def __init__(self, store: str, capture: pytest.CaptureFixture[str]) -> None:
        self._store = store
        self._capture = capture

    def __call__(self, keys: str, output: str = "table") -> tuple[list[str], list[str]]:
        """Lines on stdout, but for the greeting, and on stderr."""
        self._capture.readouterr()
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(keys + CTRL_D)
            run_prompt(open_store(self._store), self._store, output)
        written = self._capture.readouterr()
        return written.out.splitlines()[1:], written.err.splitlines()


def test_ctrl_d_leaves_on_an_empty_line_that_continues_a_query(store: str) -> None:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(f"SELECT 1{ENTER}{CTRL_D}")
        # It would wait for ever.
        run_prompt(open_store(store), store, "table")


@pytest.fixture
def prompt(store: str, capsys: pytest.CaptureFixture[str]) -> Prompt:
    return Prompt(store, capsys)


class TestRunsInTheViews:
    """The prompt says which run is asked, or how many."""

    def opening(self, store: str, run: str | None, capture: pytest.CaptureFixture[str]) -> tuple[str, str]:
        """The greeting, and what is shown before anything is typed."""
        shown = io.StringIO()
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=PlainTextOutput(shown)):
            pipe.send_text(CTRL_D)
            run_prompt(open_store(store, run=run), store, "table")
        return capture.readouterr().out, shown.getvalue()

    def test_the_prompt_has_the_name_of_the_run(self, store: str, capsys: pytest.CaptureFixture[str]) -> None:
        greeting, shown = self.opening(store, None, capsys)
        assert greeting == f"Store {store}. A query ends with ; and .help tells more.\n"
        assert shown.startswith("run run-1>")

    def test_of_several_runs_it_has_their_number(self, store: str, capsys: pytest.CaptureFixture[str]) -> None:
        Store(store).create_run(run_record("other"))
        greeting, shown = self.opening(store, None, capsys)
        assert " It holds 2 runs; --run narrows the views to one. " in greeting
        assert shown.startswith("2 runs>")

    def test_narrowed_to_a_run_it_has_the_name_of_this_one(
        self, store: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Store(store).create_run(run_record("other"))
        greeting, shown = self.opening(store, "oth", capsys)
        assert "runs" not in greeting
        assert shown.startswith("run other>")

    def test_a_long_name_is_cut(self, store: str, capsys: pytest.CaptureFixture[str]) -> None:
        Store(store).create_run(run_record("x" * 41))
        assert self.opening(store, "x", capsys)[1].startswith("run " + "x" * 37 + "...>")


class TestAnswers:
    """What is printed."""

    def test_a_result_is_followed_by_its_rows_and_time(self, prompt: Prompt) -> None:
        out, err = prompt(f"SELECT key FROM images ORDER BY key;{ENTER}")
        assert out[:-1] == ["key", "---", "0-0", "0-1"]
        assert re.fullmatch(r"2 rows, \d+\.\d{3} s", out[-1])
        assert err == []

    def test_one_row_is_a_row(self, prompt: Prompt) -> None:
        assert prompt(f"SELECT 1;{ENTER}")[0][-1].startswith("1 row, ")

    def test_a_query_may_take_several_lines(self, prompt: Prompt) -> None:
        assert prompt(f"SELECT 1{ENTER}+ 1 AS a{ENTER};{ENTER}")[0][:3] == ["a", "-", "2"]

    def test_queries_of_one_entry_are_answered_one_after_the_other(self, prompt: Prompt) -> None:
        out, _ = prompt(f"SELECT 1 AS a; -- then{ENTER} SELECT 2 AS b;{ENTER}")
        assert [line for line in out if "row" not in line] == ["a", "-", "1", "b", "-", "2"]

    def test_other_formats_are_printed_alone(self, prompt: Prompt) -> None:
        out, err = prompt(f"SELECT 1 AS a;{ENTER}", "csv")
        assert out == ["a", "1"]
        assert err[0].startswith("1 row, ")

    def test_a_failing_query_prints_an_error_and_the_prompt_goes_on(self, prompt: Prompt) -> None:
        out, err = prompt(f"SELECT nothing FROM images;{ENTER}SELEC 1;{ENTER}SELECT 5 AS a;{ENTER}")
        assert [line for line in err if line.startswith("Error: ")] == [
            'Error: the query failed: Binder Error: Referenced column "nothing" not found in FROM clause!',
            'Error: the query failed: Parser Error: syntax error at or near "SELEC"',
        ]
        assert out[:3] == ["a", "-", "5"]

    def test_an_error_while_rows_are_fetched_is_one_too(self, prompt: Prompt) -> None:
        query = "SELECT CASE WHEN range < 500000 THEN 1 ELSE ('x' || range)::INT END FROM range(1000000)"
        _, err = prompt(f"{query};{ENTER}", "csv")
        assert err[0].startswith("Error: the query failed: Conversion Error")

    def test_nothing_is_asked_by_an_empty_line_or_a_lone_semicolon(self, prompt: Prompt) -> None:
        assert prompt(f"{ENTER}  {ENTER};{ENTER}") == ([], [])

    def test_ctrl_c_clears_what_is_typed(self, prompt: Prompt) -> None:
        out, err = prompt(f"SELECT 1 AS{CTRL_C}{CTRL_C}SELECT 2 AS b;{ENTER}")
        assert (out[0], err) == ("b", [])


class TestCommands:
    """What begins with a dot."""

    def test_quit_leaves(self, prompt: Prompt) -> None:
        assert prompt(f".quit{ENTER}SELECT 1;{ENTER}") == ([], [])

    @pytest.mark.parametrize("word", ["exit", "quit", "EXIT;", "\\q", ".exit"])
    def test_it_is_left_as_other_prompts_are(self, prompt: Prompt, word: str) -> None:
        assert prompt(f"{word}{ENTER}SELECT 1;{ENTER}") == ([], [])

    @pytest.mark.parametrize(("word", "command"), [("help", ".help"), ("\\?", ".help"), ("\\d", ".tables")])
    def test_commands_may_be_called_as_in_other_prompts(self, prompt: Prompt, word: str, command: str) -> None:
        assert prompt(f"{word}{ENTER}") == prompt(f"{command}{ENTER}")

    def test_help_names_every_command(self, prompt: Prompt) -> None:
        text = "\n".join(prompt(f".help{ENTER}")[0])
        assert all(word in text for word in (".tables", ".help", ".quit", "Ctrl-C", "Ctrl-D"))

    def test_tables_shows_views_with_their_columns_and_macros_with_their_arguments(self, prompt: Prompt) -> None:
        lines = prompt(f".tables{ENTER}")[0]
        assert any(line.startswith("  labels  ") and "image_id, shard" in line for line in lines)
        assert "  images_with(what, min_score)" in lines

    def test_an_unknown_one_is_told_of(self, prompt: Prompt) -> None:
        assert prompt(f".talbes{ENTER}")[1] == ["Error: there is no .talbes; .help lists what there is"]


class TestConfinement:
    """A query in the prompt reads the store and nothing else."""

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT * FROM read_text('/etc/passwd')",
            "FROM '/etc/passwd.csv'",
            "SELECT * FROM glob('/etc/*')",
            "COPY runs TO '{store}/x.csv'",
            "COPY (SELECT 1) TO 'x.parquet'",
            "CREATE TABLE evil AS SELECT 1",
            "DROP TABLE runs",
            "ATTACH '{store}/x.db'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET threads = 1",
            "SET enable_external_access = true",
            "PRAGMA threads = 1",
            "EXPLAIN ANALYZE DROP TABLE runs",
            "SELECT 1 AS a; DROP TABLE runs",
        ],
    )
    def test_what_does_more_is_refused_in_one_sentence(
        self, prompt: Prompt, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        out, err = prompt(f"{query.replace('{store}', store)};{ENTER}SELECT count(*) AS n FROM runs;{ENTER}")
        assert err[0].startswith("Error: ")
        assert sum(line.startswith("Error: ") for line in err) == 1
        assert out[-4:-1] == ["n", "-", "1"]
        assert not [*tmp_path.rglob("x.*"), *tmp_path.rglob("evil*")]


class TestCompleteness:
    """When Enter runs what is typed."""

    @pytest.mark.parametrize(
        "text", ["", " \n", "SELECT 1;", "SELECT 1; -- so", "FROM x /* ; */ ;\n", "SELECT 'größe' ;", ".help", ";"]
    )
    def test_a_command_or_a_query_up_to_its_semicolon_is_complete(self, text: str) -> None:
        assert is_complete(text)

    @pytest.mark.parametrize(
        "text",
        [
            "SELECT 1",
            "SELECT ';",
            "SELECT ';'",
            "SELECT 1 -- ;",
            "SELECT 1 /* ;",
            'SELECT ";',
            "SELECT 'größe;'",
            "-- ;",
        ],
    )
    def test_a_semicolon_in_text_a_name_or_a_comment_ends_nothing(self, text: str) -> None:
        assert not is_complete(text)


class TestCompletion:
    """What Tab offers."""

    def test_it_knows_views_columns_macros_and_keywords_of_the_connection(self, store: str) -> None:
        connection = open_store(store)
        words = completions(connection)
        assert {"images", "labels", "spellings", "rejects", "truth", "runs", "jobs"} <= set(words)
        assert "stored_labels" not in words
        assert {"image_id", "first_token_prob", "images_with(", "name_of(", "SELECT", "LIMIT", "count("} <= set(words)
        assert len(words) == len(set(words))


class TestHistory:
    """What was asked is kept between sessions."""

    def test_it_holds_what_was_typed_in_every_session(self, prompt: Prompt) -> None:
        prompt(f"SELECT 41{ENTER}+ 1 AS a;{ENTER}.tables{ENTER}")
        prompt(f"SELECT 2;{ENTER}")
        kept = FileHistory(history_path()).load_history_strings()
        assert list(kept) == ["SELECT 2;", ".tables", "SELECT 41\n+ 1 AS a;"]

    def test_nobody_else_may_read_it(self, prompt: Prompt, state: Path) -> None:
        prompt(f"SELECT 1;{ENTER}")
        path = history_path()
        assert path == state / "tagstream" / "sql_history"
        assert "SELECT 1;" in path.read_text()
        assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]

    @pytest.mark.parametrize("folder", ["", "relative"])
    def test_without_a_folder_of_the_users_choice_it_is_kept_where_it_is_customary(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", folder)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert history_path() == tmp_path / ".local" / "state" / "tagstream" / "sql_history"

    def test_where_it_cannot_be_kept_a_note_says_so_and_the_prompt_works(self, prompt: Prompt, state: Path) -> None:
        state.write_text("no folder")
        out, err = prompt(f"SELECT 1 AS a;{ENTER}")
        assert err[0].startswith("Note: what is asked is not kept: ")
        assert out[0] == "a"


@pytest.mark.parametrize("options", [("--out", "x.csv"), ("--format", "parquet"), ()])
def test_what_is_not_for_the_prompt_needs_a_query(
    store: str, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    with pytest.raises(click.UsageError, match="there is no QUERY"):
        sql.main([store, *options], standalone_mode=False)
