"""Notification targets: the log and a file. Sending returns when the message is written, or raises NotSentError."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
from pathlib import Path
from time import monotonic
from typing import Protocol, TextIO

from killswitch.incident.notify.message import Message, encode_message, safe_line
from killswitch.render.formats import instant
from killswitch.render.layout import fit

LOGGER = "killswitch.notifications"
ENTRY_WIDTH = 78
"""Columns of a line of an entry in the log without its indent: a terminal of 80 columns shows it on one line."""
STDERR_TIMEOUT = 1.0
"""Seconds after which a write to a blocked stderr counts as failed."""
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class NotSentError(Exception):
    """A target did not accept a message, as far as is known; the text gives the reason and contains no secret."""


class RejectedError(NotSentError):
    """A target has refused a message for certain: it has not arrived, and another attempt would not help."""


class StalledError(NotSentError):
    """A target neither accepted nor refused a message in time. Whether it has arrived is unknown."""


class Sender(Protocol):
    """One target. `send` may block; it is called again from another thread where one call takes too long."""

    def send(self, message: Message) -> str | None:
        """Raise NotSentError if the target refuses the message; return a remark about a target that accepts it, or
        None."""
        ...

    def check(self) -> None:
        """Raise NotSentError if sending would fail, as far as that shows without sending a message."""
        ...


def log_entry(message: Message) -> str:
    """Return a message as one entry of a log: its time and title, and below it its text and its id, indented.

    The time is that of the message, which may be delivered later. Long lines continue below their beginning. Only the
    first line of an entry begins at the left: a text cannot pass for an entry of its own.
    """
    # A line with a command is not broken, so that it can be copied.
    lines = (line if "ksctl " in line else fit(line, ENTRY_WIDTH) for line in message.body.split("\n"))
    text = (f"  {line}".rstrip() for lines in lines for line in lines.split("\n"))
    return "\n".join((f"{instant(message.at)}  {message.title}", *text, f"  notification {message.id}"))


class LogSender:
    """Writes to the program's log; to stderr where no log handler is configured."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._writer: NonBlockingWriter | None = None

    def check(self) -> None:
        """Succeed: the log or stderr always exists."""

    def send(self, message: Message) -> None:
        """Raise NotSentError if stderr cannot be written. A configured handler is responsible for itself."""
        entry = log_entry(message)
        logger = logging.getLogger(LOGGER)
        if logger.hasHandlers():
            logger.log(_LEVELS[self._level], "%s", entry)
            return
        text = f"{entry}\n"
        # Past Python's own stream: a thread that blocks in it keeps its lock and prevents the end of the process.
        descriptor = descriptor_of(sys.stderr)
        try:
            if descriptor is None:
                sys.stderr.write(text)
            else:
                self._writer = self._writer or NonBlockingWriter(descriptor)
                self._writer.write(text.encode(errors="backslashreplace"), STDERR_TIMEOUT)
        except (OSError, ValueError) as error:
            raise NotSentError(f"stderr cannot be written: {error}") from error


class FileSender:
    """Appends to a file of JSON Lines, one message a line, synced when `send` returns."""

    def __init__(self, path: str) -> None:
        self._path, self._shown = path, safe_line(path)

    def check(self) -> None:
        """Raise NotSentError if the file could not be opened or created. Nothing is created or written yet."""
        path = Path(self._path)
        if not os.path.lexists(path):
            if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
                raise NotSentError(f"{self._shown}: the file does not exist and cannot be created in its folder")
            return
        try:
            os.close(_opened(self._path, os.O_WRONLY))
        except OSError as error:
            raise NotSentError(f"{self._shown}: {error.strerror or error}") from error

    def send(self, message: Message) -> None:
        """Raise NotSentError if the file cannot be opened or written; a partly written line is removed."""
        try:
            self._append(encode_message(message) + b"\n")
        except OSError as error:
            raise NotSentError(f"{self._shown}: {error.strerror or error}") from error

    def _append(self, line: bytes) -> None:
        descriptor = _opened(self._path, os.O_RDWR | os.O_CREAT)
        try:
            found = os.fstat(descriptor)
            torn = found.st_size > 0 and os.pread(descriptor, 1, found.st_size - 1) != b"\n"
            try:
                _write_whole(descriptor, b"\n" * torn + line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, found.st_size)
                raise
        finally:
            os.close(descriptor)


def _opened(path: str, how: int) -> int:
    """Return the descriptor of a regular file; OSError for anything else."""
    # O_NONBLOCK: a pipe without a reader must not block the thread forever.
    descriptor = os.open(path, how | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "is not a regular file")
    return descriptor


def _write_whole(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


_PIPE_CHUNK = 512
"""Bytes that a writable pipe accepts at once (POSIX; Linux accepts 4,096)."""


class UnreadOutputError(OSError):
    """The reader did not read the line in time. The line is lost, and the next one begins a new line."""


def descriptor_of(stream: TextIO) -> int | None:
    """Return the descriptor of `stream`; None for a stream without one."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


class NonBlockingWriter:
    """Writes lines to one open file descriptor without blocking, and remembers whether the last line is whole."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False
        self._is_read = True

    def write(self, line: bytes, timeout: float) -> None:
        """Write `line`, including its line end. Raise UnreadOutputError after `timeout` seconds, or the OSError of the
        write.

        A regular file and a device accept it immediately; a pipe and a terminal may be full. A reader that missed the
        previous line is not waited for again.
        """
        until = monotonic() + (timeout if self._is_read else 0.0)
        left = memoryview(b"\n" * self._torn + line)
        while left:
            self._is_read = self._is_writable(max(0.0, until - monotonic()))
            if not self._is_read:
                raise UnreadOutputError("its reader does not read")
            count = os.write(self._descriptor, left[:_PIPE_CHUNK])
            left = left[count:]
            self._torn = bool(left)

    def _is_writable(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        return bool(poller.poll(seconds * 1000))
