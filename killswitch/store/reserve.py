"""Space that a runner keeps beside its store, so that a full disk does not keep a close from being journaled.

It is given up a slice at a time: whatever has filled the disk may go on writing, and would take all of it at once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

RESERVE: Final = 16 * 1024 * 1024
"""Bytes. The write-ahead log begins anew after 4 MiB, and the journal of a close of 100 positions takes under 1 MiB."""
SLICE: Final = 1024 * 1024


class Reserve:
    """The file `STORE.reserve`."""

    def __init__(self, store: Path, size: int = RESERVE) -> None:
        self.path = store.with_name(f"{store.name}.reserve")
        self.size = size

    def left(self) -> int:
        """How many bytes it holds; 0 where there is none."""
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0

    def make(self) -> None:
        """Make it whole where the disk has twice as much to spare. OSError says why it could not be."""
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
        """Give a slice back to the disk; False where nothing is left, or the disk does not even take that."""
        left = self.left()
        if left <= 0:
            return False
        try:
            if left <= SLICE:
                self.path.unlink()  # its inode is worth something too
            else:
                os.truncate(self.path, left - SLICE)
        except OSError:
            return False
        return True


def in_units(size: int) -> str:
    """Bytes as people read them: `16 MiB`."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
