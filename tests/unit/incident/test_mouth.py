"""Lines to a stream that somebody may have stopped reading."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from killswitch.incident.notify.targets import NonBlockingWriter, UnreadOutputError


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def drained(reading: int) -> bytes:
    """All that is in the pipe."""
    os.set_blocking(reading, False)
    found = b""
    while True:
        try:
            found += os.read(reading, 65_536)
        except BlockingIOError:
            return found


def test_a_line_arrives_whole_however_long_it_is(pipe: tuple[int, int]) -> None:
    """Longer than what is written at once, and shorter than what the pipe holds."""
    mouth, line = NonBlockingWriter(pipe[1]), b"x" * 20_000 + b"\n"
    mouth.write(line, 0.0)
    mouth.write(b"y\n", 0.0)
    assert drained(pipe[0]) == line + b"y\n"


def test_a_reader_that_stops_loses_lines_and_the_next_one_begins_anew(pipe: tuple[int, int]) -> None:
    """A megabyte does not fit: it breaks off with an error, at once, and what is said later is a line of its own."""
    mouth = NonBlockingWriter(pipe[1])
    with pytest.raises(UnreadOutputError, match="its reader does not read"):
        mouth.write(b"x" * 1_000_000 + b"\n", 0.0)
    with pytest.raises(UnreadOutputError):
        mouth.write(b"lost\n", 3600.0)  # who did not listen is not waited for
    torn = drained(pipe[0])
    assert set(torn) == {ord("x")}
    mouth.write(b"heard\n", 0.0)
    mouth.write(b"again\n", 0.0)
    assert drained(pipe[0]) == b"\nheard\nagain\n"


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


def test_a_stderr_that_nobody_reads_is_a_target_that_takes_nothing() -> None:
    """The message is not sent, its thread is free again, and the process ends."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=writing, text=True, check=True, timeout=90
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.stdout == "stderr cannot be written: its reader does not read\n"
