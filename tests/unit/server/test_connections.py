"""Clients that are slow, many, or go away, over real connections; and the server of a run that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.server.access import TokenFile, issue, write_tokens
from killswitch.server.connections import FOR_COMMANDS, MOST, ConnectionTimes
from tests.unit.server.conftest import CREATED, Served

PATIENCE = 30.0
"""Seconds after which a test gives up."""


@pytest.fixture
def hasty(store_path: Path, tmp_path: Path) -> Iterator[Served]:
    """A server that gives its clients tenths of a second."""
    server = Served(store_path, tmp_path, times=ConnectionTimes(headers=0.3, body=0.3, reading=0.3))
    try:
        yield server
    finally:
        server.stop()


def connect(served: Served) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the server ends the connection, also by a reset."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def request(served: Served, path: str = "/v1/status", length: int = 0, more: str = "") -> bytes:
    token = served.tokens["risk portfolio"]
    return (
        f"POST {path} HTTP/1.1\r\nHost: {served.host}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()


def test_headers_that_come_byte_by_byte_end_the_connection(hasty: Served) -> None:
    """Each byte in time, all together not."""
    ended = False
    deadline = time.monotonic() + PATIENCE
    with connect(hasty) as connection:
        connection.sendall(b"GET /")
        while not ended and time.monotonic() < deadline:
            try:
                connection.sendall(b"x")
                time.sleep(0.05)
            except OSError:
                ended = True
    assert ended
    assert hasty.counters.of("closed_connections", "slow_headers") == 1


def test_a_body_that_does_not_come_ends_the_connection_and_does_nothing(hasty: Served) -> None:
    """What came of it would be a whole command."""
    whole = b'{"kind": "close", "scope": "account/main", "reason": "x"}'
    with connect(hasty) as connection:
        more = "Idempotency-Key: half-a-command\r\n"
        connection.sendall(request(hasty, "/v1/commands", len(whole) + 10, more) + whole)
        assert answer_of(connection) == b""
    assert hasty.counters.of("closed_connections", "slow_body") == 1
    assert not hasty.spool.is_waiting


def test_a_client_that_goes_away_in_its_body_gives_no_command(served: Served) -> None:
    """Also if what came is valid."""
    whole = b'{"kind": "close", "scope": "account/main", "reason": "x"}'
    with connect(served) as connection:
        more = "Idempotency-Key: half-a-command\r\n"
        connection.sendall(request(served, "/v1/commands", len(whole) + 10, more) + whole)
        connection.shutdown(socket.SHUT_WR)
    assert served.ask("GET", "/healthz").status_code == 200  # the loop has seen the end by now
    assert not served.spool.is_waiting


def test_a_client_that_reads_nothing_ends(hasty: Served) -> None:
    """Its answers pile up, until they may not any more."""
    asked = f"GET /v1/openapi.json HTTP/1.1\r\nHost: {hasty.host}\r\n\r\n".encode()
    deadline = time.monotonic() + PATIENCE
    with connect(hasty) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while not hasty.counters.of("closed_connections", "slow_reader") and time.monotonic() < deadline:
            try:
                connection.sendall(asked)
            except OSError:
                break
    assert hasty.counters.of("closed_connections", "slow_reader") == 1


@pytest.mark.parametrize("size", [17_000, 100_000, 10_000_000])
def test_headers_that_are_too_long_are_refused(served: Served, size: int) -> None:
    """Whole or not, in one piece or in many."""
    with connect(served) as connection:
        try:
            connection.sendall(b"GET /v1/status HTTP/1.1\r\nX: " + b"a" * size)
            connection.sendall(b"\r\n\r\n")
        except OSError:
            return  # the server has ended the connection while the headers were being sent
        found = answer_of(connection)
    assert found.startswith(b"HTTP/1.1 431 ") or found == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_ten_megabytes_is_refused_with_what_was_asked_for_in_its_beginning(
    served: Served, chunked: bool
) -> None:
    """Its first 64 KiB are a whole command, and nothing is done."""
    body = b'{"kind": "close", "scope": "account/main", "reason": "x"}' + b" " * 10_000_000
    more = "Idempotency-Key: a-very-long-one\r\n"
    head = request(served, "/v1/commands", len(body), more)
    if chunked:
        head = head.replace(f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked")
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    with connect(served) as connection:
        try:
            connection.sendall(head + body)
        except OSError:
            pass
        else:
            connection.settimeout(PATIENCE)
            assert b" 413 " in connection.recv(65536)
    assert not served.spool.is_waiting


def test_a_thousand_idle_connections_keep_nobody_out(served: Served) -> None:
    """Each new one takes the place of the oldest idle one."""
    crowd = []
    for _ in range(1_000):
        crowd.append(connect(served))
    assert served.give("trader account/main", "in-the-crowd", kind="close", scope="account/main", reason="x").ok
    assert served.ask("GET", "/v1/status", "viewer portfolio").status_code == 200
    assert served.counters.of("closed_connections", "idle") >= 1_000 - MOST
    for each in crowd:
        each.close()


def test_when_requests_wait_on_every_connection_commands_are_still_served(served: Served) -> None:
    """Readers that hold all places get 503 for a further one, and the desk its close."""
    crowd = [connect(served) for _ in range(MOST)]
    token = served.tokens["viewer portfolio"]
    asked = f"GET /held HTTP/1.1\r\nHost: {served.host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    try:
        for each in crowd:
            each.sendall(asked)
        deadline = time.monotonic() + PATIENCE
        while served.held < MOST and time.monotonic() < deadline:
            time.sleep(0.01)
        refused = served.ask("GET", "/v1/heartbeats/x", "viewer portfolio")
        assert (refused.status_code, refused.headers["Connection"]) == (503, "close")
        assert served.give("trader account/main", "among-readers", kind="close", scope="account/main", reason="x").ok
    finally:
        served.release()
        for each in crowd:
            each.close()
    assert FOR_COMMANDS > 0


def test_garbage_is_answered_with_400(served: Served) -> None:
    """And the server goes on."""
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with connect(served) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            found = answer_of(connection)
        assert found == b"" or found.startswith(b"HTTP/1.1 4"), garbage
    assert served.ask("GET", "/healthz").status_code == 200


def test_two_requests_in_one_piece_are_both_answered(served: Served) -> None:
    """Pipelined, as some proxies send them."""
    asked = f"GET /healthz HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode()
    with connect(served) as connection:
        connection.sendall(asked * 2)
        found = b""
        while found.count(b"HTTP/1.1 200 OK") < 2 or not found.endswith(b'{"status":"ok"}'):
            part = connection.recv(65536)
            assert part
            found += part


RUN = """
import sys, time
from pathlib import Path
from killswitch.server.child import ServerProcess
child = ServerProcess(sys.argv[2:], Path(sys.argv[1]))
child.start()
print("up", flush=True)
time.sleep(600)
"""


def test_the_server_of_a_run_that_is_killed_ends_and_frees_the_port(store_path: Path, tmp_path: Path) -> None:
    """By SIGKILL, of which no program hears: a server left behind would answer by a view that nobody writes.

    A file of the working folder with the name of a module of the program is not run.
    """
    (tmp_path / "secrets.py").write_text("raise SystemExit('a file of the desk was run')")
    _, record = issue("ann", "risk", ("portfolio",), CREATED, None)
    write_tokens(tmp_path / "tokens.json", TokenFile((record,)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--store", str(store_path), "--tokens", str(tmp_path / "tokens.json"), "--listen", f"127.0.0.1:{port}")
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", RUN, str(store_path), *options], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        assert _becomes(port, is_open=True)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        assert _becomes(port, is_open=False)
    finally:
        run.kill()


def _becomes(port: int, *, is_open: bool) -> bool:
    """Whether the port is open, or closed, before long."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if (probe.connect_ex(("127.0.0.1", port)) == 0) is is_open:
                return True
        time.sleep(0.05)
    return False
