"""What the tests of bots share: lock files that stay open, bots as processes, and the code of the pages."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from tests.bots.environments import BotEnvironment
from tests.e2e.fork_client import REPOSITORY

PROGRAMS: Final = REPOSITORY / "tests" / "bots" / "programs"
PAGES: Final = REPOSITORY / "docs" / "bots"
WAIT_LIMIT: Final = 120.0
"""Seconds until a wait fails: a deadline for a machine under load, no expectation."""

T = TypeVar("T")


class LockFile:
    """The lock file of an account, as a runner writes it: replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()

    def open(self) -> None:
        """Open trading, for an hour."""
        self._write(locked=False)

    def lock(self, mode: str = "reduce_only") -> None:
        """Lock it."""
        self._write(locked=True, mode=mode)

    def _write(self, **fields: object) -> None:
        record = {"mode": "reduce_only", "scope": "account/main", "alive_until": time.time() + 3600, **fields}
        unfinished = self.path.with_suffix(".new")
        unfinished.write_text(json.dumps(record))
        unfinished.replace(self.path)


class SpokenBot:
    """A bot that takes calls as lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the bot's exchange; what it returned. BotError for what it raised."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"method": method, "args": arguments, "named": named}) + "\n")
        self.process.stdin.flush()
        answer = self.line()
        if "error" in answer:
            raise BotError(answer["error"], answer["text"])
        return answer["ok"]

    def line(self) -> Any:
        """The next line that it prints."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, f"the bot has ended: {self.process.wait(WAIT_LIMIT)}"
        return json.loads(text)


class BotError(Exception):
    """What a bot has raised; `kinds`: the names of its classes, from its own to `object`."""

    def __init__(self, kinds: list[str], text: str) -> None:
        super().__init__(f"{kinds[0]}: {text}")
        self.kinds = kinds


@contextmanager
def running(
    environment: BotEnvironment,
    folder: Path,
    *arguments: str,
    log: IO[str] | None = None,
    errors: IO[str] | None = None,
    token: str | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A program in a bot's environment, ended at the end of the block.

    `log`: takes all that it writes; without it a pipe takes the output, and `errors` the rest.
    `token`: what the page puts into `KILLSWITCH_TOKEN`.
    """
    more = {} if token is None else {"KILLSWITCH_TOKEN": token}
    process = subprocess.Popen(
        [str(environment.python), *arguments], cwd=folder, env=environment.variables(**more), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE if log is None else log,
        stderr=errors if log is None else log,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def blocks(page: str, language: str = "python") -> list[str]:
    """The blocks of code of a page in docs/bots, in their order."""
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def filled_in(code: str, values: Mapping[str, str]) -> str:
    """The page's code with the reader's own values in place of those that it shows. Each must be there."""
    for written, own in values.items():
        assert written in code, f"the page has no {written}"
        code = code.replace(written, own)
    return code


def until(condition: Callable[[], T], what: str, limit: float = WAIT_LIMIT) -> T:
    """Poll until `condition()` is true; its value. Fails with `what` at the deadline."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"within {limit:g} s it was never seen that {what}")


@contextmanager
def allowing_gate() -> Iterator[ThreadingHTTPServer]:
    """A gate that allows everything, until it is shut down; `server.server_port`."""

    class Allowing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """A verdict for a question, 204 for a report."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = b""
            if not self.path.endswith("/result"):
                answer = json.dumps({
                    "format": "killswitch.verdict/v1", "question": body["id"], "allowed": True, "reason": "allowed",
                    "text": "allowed", "valid_for_ms": 2000, "legs": [{"effect": "entry"} for _ in body["orders"]],
                }).encode()  # fmt: skip
            self.send_response(200 if answer else 204)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.close_connection = True  # so that nobody is served after the end

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Allowing)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
