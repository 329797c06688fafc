"""Who is notified gets the whole JSON; who cannot be is named without giving away the address."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.closing import notification
from jobs.closing.notification import find_receiver
from pipeline.errors import TagstreamError

CONTENT = json.dumps({"verb": "label", "message": "größe"}).encode()
SECRET = "T012345-secret"


class Hook(http.server.ThreadingHTTPServer):
    """A web server that answers by a list of codes, then 200, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.codes: list[int] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/{SECRET}?token={SECRET}"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.command, self.path, dict(self.headers), content))
        self.server.may_answer.wait()
        self.send_response(self.server.codes.pop(0) if self.server.codes else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path, {}, b""))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(notification, "_WAITS_S", (0.01, 0.02))
    # On a laden machine the server may take long, and would be asked again.
    monkeypatch.setattr(notification, "_TIMEOUT_S", 240.0)
    server = Hook()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()


def test_a_web_address_gets_one_post_of_json(hook: Hook) -> None:
    find_receiver(hook.url).notify(CONTENT)
    ((method, path, headers, content),) = hook.requests
    assert (method, path, content) == ("POST", f"/services/{SECRET}?token={SECRET}", CONTENT)
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("codes", [[503], [500, 429]])
def test_a_server_in_trouble_is_asked_again(hook: Hook, codes: list[int]) -> None:
    hook.codes = list(codes)
    find_receiver(hook.url).notify(CONTENT)
    assert [content for *_, content in hook.requests] == [CONTENT] * (len(codes) + 1)


@pytest.mark.parametrize(("codes", "n_requests"), [([503] * 9, 3), ([404], 1), ([403], 1)])
def test_it_is_given_up_in_the_end_and_at_once_where_that_is_final(
    hook: Hook, codes: list[int], n_requests: int
) -> None:
    hook.codes = list(codes)
    with pytest.raises(TagstreamError, match=f"was not notified: it answered {codes[0]}") as error_info:
        find_receiver(hook.url).notify(CONTENT)
    assert len(hook.requests) == n_requests
    assert SECRET not in str(error_info.value)


@pytest.mark.parametrize("code", [301, 302, 307])
def test_a_redirection_is_a_failure_and_not_a_get_without_content(hook: Hook, code: int) -> None:
    hook.codes = [code]
    with pytest.raises(TagstreamError, match=f"it answered {code}"):
        find_receiver(hook.url).notify(CONTENT)
    assert [method for method, *_ in hook.requests] == ["POST"]


def test_a_server_that_does_not_answer_costs_a_bounded_time(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification, "_TIMEOUT_S", 0.05)
    hook.may_answer.clear()
    with pytest.raises(TagstreamError, match="TimeoutError") as error_info:
        find_receiver(hook.url).notify(CONTENT)
    assert SECRET not in str(error_info.value)


def test_a_server_that_is_not_there_is_told_without_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification, "_WAITS_S", (0.01, 0.02))
    # A port that is taken, and that nobody listens at.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/services/{SECRET}"
        with pytest.raises(TagstreamError, match=r"^http://127\.0\.0\.1:\d+ was not notified: ConnectionRefusedError$"):
            find_receiver(url).notify(CONTENT)


def test_a_login_in_the_address_is_sent_as_such_and_told_nowhere(hook: Hook) -> None:
    hook.codes = [200, 401]
    receiver = find_receiver(hook.url.replace("http://", f"http://me:{SECRET}%40@"))
    receiver.notify(CONTENT)
    with pytest.raises(TagstreamError, match="it answered 401") as error_info:
        receiver.notify(CONTENT)
    # base64 of me:T012345-secret@
    assert hook.requests[0][2]["Authorization"] == "Basic bWU6VDAxMjM0NS1zZWNyZXRA"
    assert SECRET not in str(error_info.value)


def test_a_command_reads_the_json_and_gets_its_arguments_without_a_shell(tmp_path: Path) -> None:
    find_receiver(f"tee '{tmp_path}/a file' '{tmp_path}/$HOME;x'").notify(CONTENT)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a file": CONTENT, "$HOME;x": CONTENT}


def test_a_command_that_reads_nothing_is_content(tmp_path: Path) -> None:
    find_receiver("true").notify(CONTENT * 100_000)


def test_a_command_that_fails_is_told_with_its_last_line() -> None:
    script = "import sys; print('first', file=sys.stderr); sys.exit('no such room at https://me:pw@chat')"
    with pytest.raises(TagstreamError, match=r"failed with exit code 1: no such room at https://\*\*\*@chat$"):
        find_receiver(f'{sys.executable} -c "{script}"').notify(CONTENT)


def test_a_command_that_does_not_end_is_stopped_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "_COMMAND_TIMEOUT_S", 0.1)
    wait, children = notification._wait, []
    os.mkfifo(tmp_path / "pid")

    def wait_from_its_beginning(process: subprocess.Popen[bytes]) -> int | None:
        # Read when it is written: how long the command takes to start something does not count.
        children.append((tmp_path / "pid").read_text().strip())
        return wait(process)

    monkeypatch.setattr(notification, "_wait", wait_from_its_beginning)
    with pytest.raises(TagstreamError, match="was stopped"):
        find_receiver(f"sh -c 'sleep 600 & echo $! > {tmp_path}/pid; wait'").notify(CONTENT)
    (child,) = children
    deadline = time.monotonic() + 240
    while True:
        state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True).stdout.strip()
        if state in {"", "Z"}:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "'' cannot be notified; expected"),
        ("no-such-command --now", "'no-such-command' cannot be notified"),
        (f"htps://hooks/{SECRET}", "what was given cannot be notified"),
        ("mail 'me", "cannot be read: No closing quotation"),
        (f"http:///{SECRET}", "is no http"),
        (f"https://host:port/{SECRET}", "is no http"),
        (f"https://host/{SECRET} x", "is no http"),
    ],
)
def test_what_cannot_be_notified_is_told_before_the_job_and_without_secrets(given: str, message: str) -> None:
    with pytest.raises(TagstreamError, match=message) as error_info:
        find_receiver(given)
    assert SECRET not in str(error_info.value)


def test_it_is_found_on_the_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "told"
    script.write_text("#!/bin/sh\ncat > /dev/null\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    find_receiver("told").notify(CONTENT)
