"""What is next to the store: disk space reserved for it, and the socket at which its run answers.

The reserve lets the journal of a close be written on a full disk. It is released a slice at a time: the process that
has filled the disk may go on writing, and would use all of it at once.

While a run keeps its records in memory, the store shows an old tick and an expired lease, and a supervisor that reads
them would end a process that closes positions. So the process itself answers at a socket next to the store.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from killswitch.worker import Worker

RESERVE: Final = 16 * 1024 * 1024
"""Bytes. The write-ahead log restarts after 4 MiB, and the journal of a close of 100 positions takes under 1 MiB."""
SLICE: Final = 1024 * 1024

ANSWER_SECONDS: Final = 1.0
LONGEST_ADDRESS: Final = 100
"""Bytes of the path of a socket: systems allow 103 to 107."""


class Reserve:
    """The file `STORE.reserve`."""

    def __init__(self, store: Path, size: int = RESERVE) -> None:
        self.path = store.with_name(f"{store.name}.reserve")
        self.size = size

    def left(self) -> int:
        """Bytes in the reserve; 0 where there is none."""
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0

    def make(self) -> None:
        """Restore the reserve where the disk has twice as much free space. Raises OSError with the reason."""
        if self.left() >= self.size:
            return
        room = os.statvfs(self.path.parent)
        if room.f_bavail * room.f_frsize < 2 * self.size:
            raise OSError(f"less than {in_units(2 * self.size)} are free on {self.path.parent}")
        descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.size)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            raise
        finally:
            os.close(descriptor)

    def give_slice(self) -> bool:
        """Release a slice; False where nothing is left, or the disk does not even accept that."""
        left = self.left()
        if left <= 0:
            return False
        try:
            if left <= SLICE:
                self.path.unlink()  # frees its inode too
            else:
                os.truncate(self.path, left - SLICE)
        except OSError:
            return False
        return True


class SignOfLife:
    """The socket `STORE.alive`, by which a process answers when it last ticked, whatever its disk does.

    A full, read-only or locked disk prevents no answer, as it would a file. Without a socket there is no answer.
    """

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(f"{store.name}.alive")
        self._blob = b""
        self._listener: socket.socket | None = None
        self._worker: Worker | None = None

    def leave(self, blob: bytes) -> None:
        """Answer with `blob` from now on."""
        self._blob = blob
        if self._listener is None and hasattr(socket, "AF_UNIX"):
            with suppress(OSError):  # also where the system refuses a thread
                self._listen()

    def read(self) -> bytes | None:
        """The answer of the process; None where there is none within a second."""
        if not hasattr(socket, "AF_UNIX"):
            return None
        try:
            with _address(self.path) as address, socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(ANSWER_SECONDS)
                caller.connect(address)
                return b"".join(iter(lambda: caller.recv(4096), b"")) or None
        except OSError:
            return None

    def remove(self) -> None:
        """Answer no more."""
        listener, self._listener = self._listener, None
        if listener is not None and self._worker is not None:
            self._worker.begin_stop()
            with suppress(OSError):
                self.path.unlink()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread
            listener.close()

    def _listen(self) -> None:
        """Replace the socket of an earlier process: the caller holds the lease of the store."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _address(self.path) as address:
                listener.bind(address)
            self.path.chmod(0o600)
            listener.listen()
            self._worker = Worker("sign-of-life", lambda: self._answer(listener))
            self._worker.wake()
        except OSError:
            listener.close()
            raise
        self._listener = listener

    def _answer(self, listener: socket.socket) -> float:
        """Wait for a caller, and answer. OSError if none can be accepted, as after `remove`."""
        caller, _ = listener.accept()
        with caller, suppress(OSError):
            caller.settimeout(ANSWER_SECONDS)
            caller.sendall(self._blob)
        return 0.0


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The address of the socket at `path`. A long path is reached through its folder: an address has 107 bytes."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def in_units(size: int) -> str:
    """Bytes in readable units: `16 MiB`."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
