"""Files next to the store: disk space reserved for it, and the sign of life of a run that cannot write to it.

The reserve lets the journal of a close be written on a full disk. It is released a slice at a time: the process that
has filled the disk may go on writing, and would use all of it at once.

While a run keeps its records in memory, the store shows an old tick and an expired lease, and a supervisor that reads
them would end a process that closes positions. A locked or damaged database prevents no other file next to it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

RESERVE: Final = 16 * 1024 * 1024
"""Bytes. The write-ahead log restarts after 4 MiB, and the journal of a close of 100 positions takes under 1 MiB."""
SLICE: Final = 1024 * 1024


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
    """The file `STORE.alive`. Where it cannot be written or read, there is none."""

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(f"{store.name}.alive")
        self._is_left = False

    def leave(self, blob: bytes) -> None:
        """Replace the sign of life, in one step."""
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            descriptor = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(blob)
            part.replace(self.path)
        except OSError:
            with suppress(OSError):
                part.unlink()
        else:
            self._is_left = True

    def read(self) -> bytes | None:
        """The last sign of life, of whatever age and process; None where there is none."""
        try:
            return self.path.read_bytes()
        except OSError:
            return None

    def remove(self) -> None:
        """Remove the one that this object has left, if it has."""
        if self._is_left:
            with suppress(OSError):
                self.path.unlink()
            self._is_left = False


def in_units(size: int) -> str:
    """Bytes in readable units: `16 MiB`."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
