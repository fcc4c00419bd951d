"""Where messages go: the log and a file. Sending returns when the message is there, or raises NotSentError."""

from __future__ import annotations

import logging
import os
import stat
import sys
from typing import Protocol

from killswitch.incident.message import Message, encode_message, plain
from killswitch.incident.mouth import Mouth, descriptor_of
from killswitch.model.spelling import instant

LOGGER = "killswitch.notifications"
STDERR_PATIENCE = 1.0
"""Seconds after which a stderr that nobody reads has not taken a message."""
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class NotSentError(Exception):
    """A target did not take a message, as far as is known; the text says why and holds no secret."""


class Sender(Protocol):
    """One target. `send` may block; it is called by one thread at a time."""

    def send(self, message: Message) -> None: ...


class LogSender:
    """The program's log; a line on stderr where nobody has configured one."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._mouth: Mouth | None = None

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

    def send(self, message: Message) -> None:
        """NotSentError if the file cannot be opened or takes no more; what was written of the line is taken back."""
        try:
            self._append(encode_message(message) + b"\n")
        except OSError as error:
            raise NotSentError(f"{plain(self._path)}: {error.strerror or error}") from error

    def _append(self, line: bytes) -> None:
        # O_NONBLOCK: a pipe that nobody reads must not hold the thread for ever.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(None, "is not a regular file")
            torn = found.st_size > 0 and os.pread(descriptor, 1, found.st_size - 1) != b"\n"
            try:
                _write_whole(descriptor, b"\n" * torn + line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, found.st_size)
                raise
        finally:
            os.close(descriptor)


def _write_whole(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
