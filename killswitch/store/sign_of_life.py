"""The last sign of life of a run whose store takes no writes: the file `STORE.alive`.

While a run keeps its records in memory, the store shows an old tick and an expired lease, and a supervisor that reads
them would end a process that closes positions. A locked or damaged database prevents no other file next to it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


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
