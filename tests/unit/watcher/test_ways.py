"""What arrives on a way: files that are written, touched, old or damaged, and addresses with every kind of answer."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from killswitch.client.heartbeat import monotonic_seconds, write_file
from killswitch.engine.silence import Beat
from killswitch.watcher.ways import LONGEST_READ, AddressReader, FileReader, WayListener


def test_a_written_heartbeat_is_dated_by_its_own_stamp(tmp_path: Path) -> None:
    """A watcher that reads it late does not make it younger."""
    sent = monotonic_seconds()
    write_file(str(tmp_path), "maker", 17, sent)
    assert FileReader(str(tmp_path), "maker").read(sent + 40.0) == Beat(sent, 17)


def test_a_stamp_of_the_future_is_dated_by_the_read(tmp_path: Path) -> None:
    """No heartbeat is younger than now."""
    write_file(str(tmp_path), "maker", None, 1e12)
    assert FileReader(str(tmp_path), "maker").read(100.0) == Beat(100.0)


def test_a_heartbeat_of_another_boot_is_dated_by_the_read_that_sees_it(tmp_path: Path) -> None:
    """The monotonic time of another machine compares with nothing."""
    reader = FileReader(str(tmp_path), "maker")
    assert reader.read(100.0) is None
    body = {"format": "killswitch.heartbeat/v1", "boot": "another", "monotonic": 5.0, "progress": 3, "pid": 1}
    (tmp_path / "maker").write_text(json.dumps(body))
    assert reader.read(105.0) == Beat(105.0, 3)
    assert reader.read(110.0) == Beat(105.0, 3)


def test_touch_is_a_heartbeat_and_the_file_as_it_was_found_is_none(tmp_path: Path) -> None:
    """The file may be of last week; only a change after the first read was heard."""
    path = tmp_path / "night-desk"
    path.touch()
    reader = FileReader(str(tmp_path), "night-desk")
    assert reader.read(100.0) is None
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))
    assert reader.read(110.0) == Beat(110.0)


def test_a_folder_that_is_gone_is_an_error_and_a_missing_file_is_not(tmp_path: Path) -> None:
    """An unmounted disk says nothing about the bot."""
    assert FileReader(str(tmp_path), "maker").read(1.0) is None
    with pytest.raises(FileNotFoundError):
        FileReader(str(tmp_path / "gone"), "maker").read(1.0)


def test_an_address_is_dated_from_before_the_request() -> None:
    """The age that the server states is counted back from there."""
    with serving(200, b'{"age": 12.5, "progress": 4}') as address:
        assert AddressReader(address, "maker").read(1000.0) == Beat(987.5, 4)


def test_an_address_that_never_heard_of_it_answers_404() -> None:
    """That is an answer, and no error."""
    with serving(404, b"") as address:
        assert AddressReader(address, "maker").read(1000.0) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (200, b"<html>"), (200, b"{}"), (200, b'{"age": -1}'), (200, b'{"age": NaN}'), (401, b"")],
)
def test_every_other_answer_is_an_error(status: int, body: bytes) -> None:
    """A login page of a proxy is no heartbeat, and no silence."""
    with serving(status, body) as address:
        listener = WayListener(AddressReader(address, "maker"), 1.0, lambda: 5.0)
        listener.read()
    answer = listener.answer(5.0)
    assert answer is not None
    assert answer.error
    assert answer.beat is None


def test_a_redirect_is_not_followed_with_the_token() -> None:
    """It would carry the token to whom the redirect names."""
    with serving(200, b'{"age": 1}') as elsewhere, serving(302, b"", {"Location": f"{elsewhere}/maker"}) as address:
        listener = WayListener(AddressReader(address, "maker"), 1.0, lambda: 5.0)
        listener.read()
    answer = listener.answer(5.0)
    assert answer is not None
    assert "302" in (answer.error or "")


def test_an_answer_that_is_no_http_is_an_error_and_ends_no_listener() -> None:
    """Another program may listen on the port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer_once() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer_once)
        thread.start()
        listener = WayListener(AddressReader(f"http://127.0.0.1:{other.getsockname()[1]}", "maker"), 1.0, lambda: 5.0)
        listener.read()
        thread.join()
    answer = listener.answer(5.0)
    assert answer is not None
    assert answer.error


def test_a_read_that_hangs_is_an_error_and_keeps_what_was_heard() -> None:
    """A disk that does not answer says nothing about the bot, and blocks no check."""
    now, release, begun = [10.0], threading.Event(), threading.Event()

    class Hanging:
        def __init__(self) -> None:
            self.reads = 0

        def read(self, at: float) -> Beat | None:
            self.reads += 1
            if self.reads > 1:
                begun.set()
                release.wait(30.0)
            return Beat(at)

    listener = WayListener(Hanging(), 0.0, lambda: now[0])
    listener.read()
    thread = threading.Thread(target=listener.read)
    thread.start()
    assert begun.wait(30.0)
    found = listener.answer(10.0 + LONGEST_READ + 1)
    release.set()
    thread.join()
    assert found is not None
    assert found.error == "no answer for 11 s"
    assert found.beat == Beat(10.0)


@contextmanager
def serving(status: int, body: bytes, headers: dict[str, str] | None = None) -> Iterator[str]:
    """A server on loopback with one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/beats"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
