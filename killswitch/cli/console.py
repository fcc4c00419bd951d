"""The console of a verb that acts: its two streams, and the signals that end it.

Everything that writes to `sys.stdout` or `sys.stderr` goes this way: the verb, click, log lines of libraries, warnings,
tracebacks, and OpenTelemetry's console exporters.
"""

from __future__ import annotations

import asyncio
import atexit
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Final, TextIO

import click

from killswitch.cli.terminal import mention
from killswitch.telemetry.background_writer import LAST_WORDS, BackgroundWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

MOST_BYTES = 8 << 20
"""Bytes that wait at most for somebody who does not read."""


class _Bytes(io.RawIOBase):
    """Where click writes what is encoded already."""

    def __init__(self, writer: BackgroundWriter) -> None:
        self._writer = writer

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        chunk = bytes(data)
        if chunk:
            self._writer.put(chunk)
        return len(chunk)


class BackgroundStream(io.TextIOBase):
    """A text stream that never waits and never fails. A line goes on its way when it ends, or at `flush`."""

    errors = "backslashreplace"

    def __init__(self, stream: TextIO, writer: BackgroundWriter) -> None:
        """`stream`: what it stands for, on a descriptor of the system."""
        self.buffer = _Bytes(writer)
        self._stream = stream
        self._lock = Lock()
        self._line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override] # of TextIOBase it may be None
        return self._stream.encoding or "utf-8"

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        with self._lock:
            lines, newline, self._line = (self._line + text).rpartition("\n")
            self._put(lines + newline)
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._put(self._line)
            self._line = ""

    def _put(self, text: str) -> None:
        self.buffer.write(text.encode(self.encoding, self.errors))


_writers: list[BackgroundWriter] = []


def write_in_background(last_words: float = LAST_WORDS) -> None:
    """From here on to the end of the process, `sys.stdout` and `sys.stderr` never wait. A second call does nothing.

    `last_words`: seconds that the end of the process waits for what is still to be written. A stream that is none of
    the system's is left as it is. What both lead to the same place is written in order.
    """
    if _writers:
        return
    known: dict[tuple[int, int], BackgroundWriter] = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
            place = os.fstat(descriptor)
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
        key = (place.st_dev, place.st_ino)
        if key not in known:
            known[key] = BackgroundWriter(descriptor, "lines", most_bytes=MOST_BYTES)
        setattr(sys, name, BackgroundStream(stream, known[key]))
    _writers.extend(known.values())
    if _writers:
        atexit.register(_close, last_words)


def console_problem() -> str | None:
    """Why lines of this process are late or lost; None while they are written."""
    return "; ".join(dict.fromkeys(each.problem for each in _writers if each.problem is not None)) or None


def _close(patience: float) -> None:
    for writer in _writers:
        writer.close(patience)


def mention_journaled(line: str) -> None:
    """Say a journal entry that is in memory only: where stderr is kept, it is on record."""
    click.echo(f"journal, in memory only: {line}", err=True)


ENDING: Final = ("SIGTERM", "SIGINT", "SIGQUIT")
"""The step under way ends, the lease is given back, exit 0."""
OUTLIVED: Final[Mapping[str, str]] = {
    "SIGHUP": "a closed terminal does not stop the run",
    "SIGUSR1": "the signal is ignored",
    "SIGUSR2": "the signal is ignored",
}
"""Without a handler each of them would end the process at once, and leave positions open without a word."""


def end_well(hear: Callable[[str], None]) -> None:
    """Call `hear` with the name of a signal that ends a run. In a running event loop."""
    _at(ENDING, hear)


def outlive() -> None:
    """Go on over signals that are not meant for this program, and say so. In a running event loop."""
    _at(OUTLIVED, _mention)


def _mention(name: str) -> None:
    mention(f"{name}: {OUTLIVED[name]}; the run continues, SIGTERM stops it")


def _at(names: Mapping[str, str] | tuple[str, ...], hear: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    for name in names:
        number = getattr(signal, name, None)  # not every system has each of them
        if number is not None:
            loop.add_signal_handler(number, hear, name)
