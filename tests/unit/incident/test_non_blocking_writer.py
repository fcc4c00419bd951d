"""The non-blocking writer: lines to a stream whose reader may have stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from killswitch.incident.notify.targets import NonBlockingWriter, UnreadOutputError


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def drain(read_end: int) -> bytes:
    """Everything in the pipe."""
    os.set_blocking(read_end, False)
    content = b""
    while True:
        try:
            content += os.read(read_end, 65_536)
        except BlockingIOError:
            return content


def test_a_long_line_arrives_whole(pipe: tuple[int, int]) -> None:
    """The line is longer than one write, and shorter than the pipe's capacity."""
    writer, line = NonBlockingWriter(pipe[1]), b"x" * 20_000 + b"\n"
    writer.write(line, 0.0)
    writer.write(b"y\n", 0.0)
    assert drain(pipe[0]) == line + b"y\n"


def test_lines_for_a_stopped_reader_are_lost_and_the_next_one_starts_a_new_line(pipe: tuple[int, int]) -> None:
    """A megabyte does not fit: the write fails at once, and the next write starts a new line."""
    writer = NonBlockingWriter(pipe[1])
    with pytest.raises(UnreadOutputError, match="its reader does not read"):
        writer.write(b"x" * 1_000_000 + b"\n", 0.0)
    with pytest.raises(UnreadOutputError):
        writer.write(b"lost\n", 3600.0)  # a reader that did not read is not waited for
    torn = drain(pipe[0])
    assert set(torn) == {ord("x")}
    writer.write(b"heard\n", 0.0)
    writer.write(b"again\n", 0.0)
    assert drain(pipe[0]) == b"\nheard\nagain\n"


PROGRAM = """
import os, sys
from killswitch.incident.notify.targets import LogSender, NotSentError
from tests.outboxes import message
os.set_blocking(2, False)
try:
    while True: os.write(2, b"x")
except BlockingIOError:
    os.set_blocking(2, True)
try:
    LogSender("error").send(message("m1"))
except NotSentError as error:
    print(error)
"""


def test_an_unread_stderr_is_a_target_that_fails() -> None:
    """The message is not sent, its thread is free again, and the process ends."""
    read_end, write_end = os.pipe()
    try:
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=write_end, text=True, check=True, timeout=90
        )
    finally:
        os.close(read_end)
        os.close(write_end)
    assert result.stdout == "stderr cannot be written: its reader does not read\n"
