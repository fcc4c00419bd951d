"""Where messages go: the log and a file. Sending returns when the message is there, or raises NotSentError."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
from pathlib import Path
from time import monotonic
from typing import Protocol, TextIO

from killswitch.incident.notify.message import Message, encode_message, plain
from killswitch.render.formats import instant

LOGGER = "killswitch.notifications"
STDERR_PATIENCE = 1.0
"""Seconds after which a stderr that nobody reads has not taken a message."""
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class NotSentError(Exception):
    """A target did not take a message, as far as is known; the text says why and holds no secret."""


class StalledError(NotSentError):
    """A target neither took a message nor refused it in time. Whether it has arrived is unknown."""


class Sender(Protocol):
    """One target. `send` may block. It is called again from another thread where one call goes on for too long."""

    def send(self, message: Message) -> str | None:
        """NotSentError if the target did not take it; otherwise what is wrong with the target all the same, or None."""
        ...

    def check(self) -> None:
        """NotSentError if no message could be sent from here, as far as that shows without sending one."""
        ...


class LogSender:
    """The program's log; a line on stderr where nobody has configured one."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._mouth: Mouth | None = None

    def check(self) -> None:
        """There is always a log, or stderr."""

    def send(self, message: Message) -> None:
        """NotSentError if stderr takes no words. What a configured handler does with it is its own affair."""
        line = plain_line(message)
        logger = logging.getLogger(LOGGER)
        if logger.hasHandlers():
            logger.log(_LEVELS[self._level], "%s", line)
            return
        words = f"{instant(message.at)}  {line}\n"
        # Past Python's own stream: whoever is stopped in it keeps its lock, and with it the process's end.
        descriptor = descriptor_of(sys.stderr)
        try:
            if descriptor is None:
                sys.stderr.write(words)
            else:
                self._mouth = self._mouth or Mouth(descriptor)
                self._mouth.say(words.encode(errors="backslashreplace"), STDERR_PATIENCE)
        except (OSError, ValueError) as error:
            raise NotSentError(f"stderr takes no words: {error}") from error


def plain_line(message: Message) -> str:
    """The whole message as one line."""
    return f"{message.title}: {message.body.replace(chr(10), '; ')} [notification {message.id}]"


class FileSender:
    """A file of JSON Lines, one message a line, on disk when `send` returns."""

    def __init__(self, path: str) -> None:
        self._path = path

    def check(self) -> None:
        """NotSentError if the file could not be opened, or made. Nothing is made or written yet."""
        path = Path(self._path)
        if not os.path.lexists(path):
            if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
                raise NotSentError(f"{plain(self._path)}: it is not there, and cannot be made in its folder")
            return
        try:
            os.close(_opened(self._path, os.O_WRONLY))
        except OSError as error:
            raise NotSentError(f"{plain(self._path)}: {error.strerror or error}") from error

    def send(self, message: Message) -> None:
        """NotSentError if the file cannot be opened or takes no more; what was written of the line is taken back."""
        try:
            self._append(encode_message(message) + b"\n")
        except OSError as error:
            raise NotSentError(f"{plain(self._path)}: {error.strerror or error}") from error

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
    """A descriptor of a regular file. OSError for anything else."""
    # O_NONBLOCK: a pipe that nobody reads must not hold the thread for ever.
    descriptor = os.open(path, how | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "is not a regular file")
    return descriptor


def _write_whole(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


_SURE = 512
"""Bytes that a pipe takes at once when it says that it takes any (POSIX; Linux takes 4,096)."""


class UnheardError(OSError):
    """The reader did not take the line in time. It is lost, and the next one begins a line of its own."""


def descriptor_of(stream: TextIO) -> int | None:
    """The descriptor of `stream`; None for one that is not the system's."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


class Mouth:
    """One open file descriptor, and whether the last line that went into it is whole."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False
        self._heard = True

    def say(self, line: bytes, patience: float) -> None:
        """Write `line`, which ends itself, within `patience` seconds; UnheardError, or the OSError of a write.

        A regular file and a device take it at once; a pipe and a terminal may be full. Who did not read the line
        before is not waited for again.
        """
        until = monotonic() + (patience if self._heard else 0.0)
        left = memoryview(b"\n" * self._torn + line)
        while left:
            self._heard = self._takes(max(0.0, until - monotonic()))
            if not self._heard:
                raise UnheardError("nobody reads it")
            count = os.write(self._descriptor, left[:_SURE])
            left = left[count:]
            self._torn = bool(left)

    def _takes(self, seconds: float) -> bool:
        asked = select.poll()
        asked.register(self._descriptor, select.POLLOUT)
        return bool(asked.poll(seconds * 1000))
