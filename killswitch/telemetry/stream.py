"""Writes the event stream from a thread of its own: a disk that is full or a reader that sleeps delays no tick."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque
from pathlib import Path

MOST = 10_000
"""Lines that wait at most; those that come after are lost, and counted."""
LAST_WORDS = 2.0
"""Seconds that the end of a run waits for lines to be written."""


class Stream:
    """Appends lines to a file, a pipe or stdout, in order. None of its methods waits, but for `close`."""

    def __init__(self, target: str, *, most: int = MOST) -> None:
        """`target` is a path, or `-` for stdout. OSError if it cannot be opened.

        A named pipe is opened by the writing thread, because that waits for a reader.
        """
        self._name = "stdout" if target == "-" else target
        self._path = target
        self._file = -1 if _is_pipe(target) else _open(target)
        self._most = most
        self._lines: deque[bytes] = deque()
        self._wake = threading.Condition()
        self._over = False
        self._torn = False
        self._failure: str | None = None
        self._lost = 0
        """Lines since the last one that was taken up."""
        self._behind = False
        """Whether lines were lost since nothing was waiting: a slow reader is one problem, not one for each line."""
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why lines are lost; None while none is."""
        if self._failure is not None:
            return f"events are not written to {self._name}: {self._failure}"
        if self._behind:
            return f"events to {self._name} are lost: nobody reads them"
        return None

    def put(self, line: bytes) -> int | None:
        """Write `line` soon; None if there is no room. Else how many lines were lost just before it."""
        with self._wake:
            if len(self._lines) >= self._most:
                self._lost += 1
                self._behind = True
                return None
            self._lines.append(line)
            lost, self._lost = self._lost, 0
            self._wake.notify()
            return lost

    def close(self, patience: float = LAST_WORDS) -> bool:
        """Write what waits, for at most `patience` seconds; whether all of it was written."""
        with self._wake:
            self._over = True
            self._wake.notify()
        self._thread.join(patience)
        written = not self._thread.is_alive() and not self._lines and self._failure is None
        if not self._thread.is_alive() and self._file > 2:
            os.close(self._file)
        return written

    def _work(self) -> None:
        while (line := self._next()) is not None:
            try:
                if self._file == -1:
                    self._file = _open(self._path)
                self._write(line)
                self._failure = None
            except OSError as error:
                # Lost, as the lines after it will be until it works again; a closed pipe may find a new reader.
                self._failure = _reason(error)

    def _next(self) -> bytes | None:
        with self._wake:
            while not self._lines and not self._over:
                self._behind = False
                self._wake.wait()
            return self._lines.popleft() if self._lines else None

    def _write(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        left = memoryview(line)
        while left:
            count = os.write(self._file, left)
            # A line that breaks off is ended before the next one, so that only it cannot be read.
            self._torn = count < len(left)
            left = left[count:]


def _open(target: str) -> int:
    if target == "-":
        return 1
    return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _is_pipe(target: str) -> bool:
    try:
        return target != "-" and stat.S_ISFIFO(Path(target).stat().st_mode)
    except OSError:
        return False


def _reason(error: OSError) -> str:
    return "nobody reads it any more" if error.errno == errno.EPIPE else error.strerror or str(error)
