"""Whose turn it is to write: one thread of this process at a time, and who acts goes before who tells.

SQLite lets one writer in and has the others ask again, ever more seldom. A tick that asks in vain for the tenth time
sleeps for a twentieth of a second, while the threads that send notifications pass it by.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Hands the right to write from thread to thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self.urgent = 0
        """How many wait that may not be kept waiting."""
        self.background = 0
        """How many wait until nobody else does."""

    @contextmanager
    def turn(self, *, background: bool = False) -> Iterator[None]:
        """Wait for the turn, and have it. `background`: only once nobody else wants it."""
        with self._changed:
            if background:
                self._wait_for_all()
            else:
                self._wait_for_one()
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def _wait_for_one(self) -> None:
        self.urgent += 1
        try:
            self._changed.wait_for(lambda: not self._taken)
        finally:
            self.urgent -= 1

    def _wait_for_all(self) -> None:
        self.background += 1
        try:
            self._changed.wait_for(lambda: not self._taken and not self.urgent)
        finally:
            self.background -= 1
