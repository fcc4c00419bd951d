"""Console of a verb that acts: non-blocking output streams and signal handlers.

All output to `sys.stdout` and `sys.stderr` goes through them: the verb, click, log lines of libraries, warnings,
tracebacks, and the console exporters of OpenTelemetry.
"""

from __future__ import annotations

import asyncio
import atexit
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Final, TextIO

import click
from msgspec.structs import replace

from killswitch.cli.terminal import print_note, start_log
from killswitch.telemetry.background_writer import CLOSE_TIMEOUT, BackgroundWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from killswitch.execution.effects.performing import RunEnd
    from killswitch.runner.loop import Runner

MAX_PENDING_BYTES = 8 << 20
"""Maximum bytes of pending output."""


class _Bytes(io.RawIOBase):
    """Binary side of a stream, which click writes encoded text to."""

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
    """A text stream that never blocks and never fails; it writes a line when the line is complete, or at `flush`."""

    errors = "backslashreplace"

    def __init__(self, stream: TextIO, writer: BackgroundWriter) -> None:
        """`stream`: the stream that this one replaces, on a file descriptor."""
        self.buffer = _Bytes(writer)
        self._stream = stream
        self._lock = Lock()
        self._line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override] # None is possible for a TextIOBase
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


def write_in_background(drain_seconds: float = CLOSE_TIMEOUT) -> None:
    """Make `sys.stdout` and `sys.stderr` non-blocking until the process ends; a second call does nothing.

    `drain_seconds`: how long the end of the process waits for pending output. A stream without a file descriptor is
    unchanged. Output of both streams to one destination keeps its order.
    """
    if _writers:
        return
    known: dict[tuple[int, int], BackgroundWriter] = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
            status = os.fstat(descriptor)
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
        key = (status.st_dev, status.st_ino)
        if key not in known:
            known[key] = BackgroundWriter(descriptor, "lines", most_bytes=MAX_PENDING_BYTES)
        setattr(sys, name, BackgroundStream(stream, known[key]))
    _writers.extend(known.values())
    if _writers:
        atexit.register(_close, drain_seconds)
    start_log()


def console_problem() -> str | None:
    """Why output of this process is late or lost; None while it is written."""
    return "; ".join(dict.fromkeys(each.problem for each in _writers if each.problem is not None)) or None


def _close(drain_seconds: float) -> None:
    for writer in _writers:
        writer.close(drain_seconds)


def print_memory_entry(line: str) -> None:
    """Print a journal entry that exists in memory only, so that a kept stderr records it."""
    click.echo(f"journal, in memory only: {line}", err=True)


STOP_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGQUIT")
"""Signals that finish the current step, release the lease and exit 0."""
IGNORED_SIGNALS: Final[Mapping[str, str]] = {
    "SIGHUP": "a closed terminal does not stop the run",
    "SIGUSR1": "the signal is ignored",
    "SIGUSR2": "the signal is ignored",
}
"""Signals that would kill the process without a handler, and leave positions open silently."""


def handle_stop_signals(on_signal: Callable[[str], None]) -> None:
    """Call `on_signal` with the name of each signal that stops a run. Needs a running event loop."""
    _handle(STOP_SIGNALS, on_signal)


def ignore_foreign_signals(on_hangup: Callable[[], None] = lambda: None) -> None:
    """Ignore signals that have no meaning for a run, and print a message. Needs a running event loop.

    `on_hangup`: called as well for SIGHUP, by which other programs read their files again.
    """

    def ignore(name: str) -> None:
        _print_ignored(name)
        if name == "SIGHUP":
            on_hangup()

    _handle(IGNORED_SIGNALS, ignore)


async def run_next_to(
    work: Coroutine[None, None, None], runner: Runner, ticks: int | None, on_hangup: Callable[[], None] = lambda: None
) -> RunEnd:
    """Tick until a signal stops the run, next to `work`, which is cancelled at its end.

    A stop by a signal has its name. An error of the work ends the run, and is raised, as one of a tick is.
    """
    stop = asyncio.Event()
    received: list[str] = []

    def on_signal(name: str) -> None:
        received.append(name)
        stop.set()

    handle_stop_signals(on_signal)
    ignore_foreign_signals(on_hangup)
    working = asyncio.ensure_future(work)
    working.add_done_callback(lambda _: stop.set())
    try:
        end = await runner.run(stop, ticks)
    finally:
        working.cancel()
        outcome = (await asyncio.gather(working, return_exceptions=True))[0]
    if isinstance(outcome, Exception):
        raise outcome
    return replace(end, reason=f"stopped by {received[0]}") if end.cause == "stop" and received else end


def _print_ignored(name: str) -> None:
    print_note(f"{name}: {IGNORED_SIGNALS[name]}; the run continues, SIGTERM stops it")


def _handle(names: Mapping[str, str] | tuple[str, ...], on_signal: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    for name in names:
        number = getattr(signal, name, None)  # not every system has each of them
        if number is not None:
            loop.add_signal_handler(number, on_signal, name)
