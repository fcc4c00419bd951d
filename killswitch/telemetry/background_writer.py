"""Writes to a sink from a background thread, so that a disk that hangs or a slow reader delays no tick.

Every output of a run but the store is written through this: the recording, the event stream, stdout and stderr.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from killswitch.worker import Worker

MOST = 10_000
"""Largest number of waiting chunks."""
MOST_BYTES = 64 << 20
"""Largest number of waiting bytes; one chunk may be larger while nothing else waits."""
STALLED_AFTER = 5.0
"""Seconds without progress after which a sink is a problem."""
OPENED_WITHIN = 2.0
"""Seconds that the start waits for a file to open; after that the thread continues alone."""
RETRY_AFTER = 1.0
"""Seconds after a failed write."""
CLOSE_TIMEOUT = 2.0
"""Seconds that the end of a run waits for the remaining writes."""


class Compressor(Protocol):
    """The interface of `zlib.compressobj` and `zstandard` compressors."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class BackgroundWriter:
    """Appends chunks to a file, a pipe or a descriptor, in order. Only `close` waits.

    Chunks that find no room are lost and counted. An accepted chunk is written completely or, where a pipe's reader
    goes away, not at all for the next reader. A failed write to a file is retried.
    """

    def __init__(
        self,
        target: str | int,
        what: str,
        *,
        compressor: Callable[[], Compressor] | None = None,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.target = target
        """A path, or a descriptor that is left open."""
        self.what = what
        """Name of the chunks in the plural, for messages."""
        self.compressor = compressor
        self.most = most
        self.most_bytes = most_bytes
        """Raises OSError for a path that cannot be opened, if that is known in time.

        A named pipe opens when it has a reader.
        """
        target = self.target
        self._name = {1: "stdout", 2: "stderr"}.get(target, str(target)) if isinstance(target, int) else target
        self._flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND
        self._file = target if isinstance(target, int) else -1
        self._compressor = self.compressor() if self.compressor is not None else None
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._torn = False
        self._failure: str | None = None
        self.has_written = False
        """Whether anything has been written completely."""
        self._lost = 0
        """Lost chunks since the last accepted one."""
        self._behind = False
        """Whether chunks were lost since the queue was empty: a slow reader is one problem, not one for each line."""
        self._is_open = isinstance(target, int)
        self._refusal: OSError | None = None
        """Why the first attempt to open the file failed."""
        self._opened = threading.Event()
        """Set once the file is open, refused, or a pipe that waits for its reader."""
        self._worker = Worker(f"write {self.what}", self._step)
        self._worker.wake()
        if not self._is_open:
            self._opened.wait(OPENED_WITHIN)
        if self._refusal is not None:
            self._worker.begin_stop()
            raise self._refusal

    @property
    def problem(self) -> str | None:
        """Why chunks are lost, or delayed for long; None while they are written."""
        if self._failure is not None:
            return f"{self.what} are not written to {self._name}: {self._failure}"
        if self._worker.problem is not None:
            return self._worker.problem
        if self._behind or self._is_stalled:
            return f"{self.what} to {self._name} are late or lost: the reader is too slow, or the disk hangs"
        return None

    @property
    def lost(self) -> int:
        """Lost chunks since the last accepted one."""
        return self._lost

    def put(self, chunk: bytes) -> int | None:
        """Queue `chunk`; None if there is no room. Otherwise the number of chunks that were lost before it."""
        with self._lock:
            full = len(self._chunks) >= self.most or self._bytes + len(chunk) > self.most_bytes
            if self._worker.is_stopping or (full and self._chunks):
                self._lost += 1
                self._behind = True
                return None
            self._chunks.append(chunk)
            self._bytes += len(chunk)
            lost, self._lost = self._lost, 0
        self._worker.wake()
        return lost

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Write the queued chunks, for at most `timeout` seconds; return whether all were written.

        A stalled sink is not waited for again. A second call does nothing.
        """
        with self._lock:  # a chunk that was accepted before is written
            self._worker.begin_stop()
        ended = self._worker.stop(0.0 if self._is_stalled else timeout)
        if ended and self._file >= 0 and not isinstance(self.target, int):
            os.close(self._file)
            self._file = -1
        return ended and not self._chunks and self._failure is None

    @property
    def _is_stalled(self) -> bool:
        return self._worker.hangs_for(STALLED_AFTER)

    def _step(self) -> float | None:
        """Open the file, or write the oldest chunk, which stays in the queue until it is written."""
        if not self._is_open:
            return self._open()
        with self._lock:
            chunk = self._chunks[0] if self._chunks else None
            self._behind = self._behind and chunk is not None
        if chunk is None:
            if self._worker.is_stopping and self._compressor is not None:
                self._write(self._compressor.flush())
                self._compressor = None
            return None
        is_written = self._write(chunk if self._compressor is None else self._compressor.compress(chunk))
        self.has_written |= is_written
        with self._lock:
            self._lost += not is_written
            self._chunks.popleft()
            self._bytes -= len(chunk)
        return 0.0

    def _open(self) -> float | None:
        """Open the file. The constructor raises a failure of the first attempt; later ones are repeated."""
        assert not isinstance(self.target, int)  # a descriptor is open
        if self._refusal is not None:
            return None
        if _is_pipe(self.target):
            self._opened.set()  # opening it waits for a reader
        try:
            self._file = os.open(self.target, self._flags, 0o644)
        except OSError as error:
            if self._opened.is_set():
                self._failure = _reason(error)
                return 0.0 if self._worker.pause(RETRY_AFTER) else None
            self._refusal = error
            self._opened.set()
            return None
        self._is_open, self._failure = True, None
        self._opened.set()
        return 0.0

    def _write(self, data: bytes) -> bool:
        """Write all of `data`, with retries; False if it is given up."""
        if self._torn and self._compressor is None:
            data = b"\n" + data
        left = memoryview(data)
        while left:
            try:
                count = os.write(self._file, left)
            except BlockingIOError:
                _until_writable(self._file)  # its opener has made it non-blocking; it may be shared
                if self._worker.is_stopping:
                    return self._give_up(len(data), len(left))
                continue
            except OSError as error:
                self._failure = _reason(error)
                if error.errno == errno.EPIPE or not self._worker.pause(RETRY_AFTER):
                    return self._give_up(len(data), len(left))
                continue
            self._failure = None
            self._worker.report_progress()
            left = left[count:]
        self._torn = False
        return True

    def _give_up(self, size: int, left: int) -> bool:
        """Drop the rest of a chunk, so that the next reader begins with a whole line or frame."""
        if self.compressor is not None:
            self._compressor = self.compressor()
        elif left < size and not self._cut_back(size - left):
            self._torn = True
        return False

    def _cut_back(self, written: int) -> bool:
        """Remove the written part of a line from a file that nobody else has written to; whether that was possible."""
        try:
            found = os.fstat(self._file)
            if not stat.S_ISREG(found.st_mode) or os.lseek(self._file, 0, os.SEEK_CUR) != found.st_size:
                return False
            os.ftruncate(self._file, found.st_size - written)
        except OSError:
            return False  # its last line stays torn, which a reader sees
        return True


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError:
        return False


def _until_writable(descriptor: int) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    poller.poll(1000)


def _reason(error: OSError) -> str:
    return "its reader has closed it" if error.errno == errno.EPIPE else error.strerror or str(error)
