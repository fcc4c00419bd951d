"""Writes lines to a stream that somebody may have stopped reading, without waiting for them for long."""

from __future__ import annotations

import os
import select
from time import monotonic
from typing import TextIO

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
