"""Heartbeats that arrive over HTTP, in memory: a watcher asks for their age, as of the server's own monotonic clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

MOST: Final = 10_000
"""Names that are remembered; one more is refused, because a flood of names must not push a real one out."""


class ReceivedBeat(Struct, frozen=True):
    """The newest heartbeat of a name: when it arrived (monotonic seconds), and its progress."""

    at: float
    progress: int | None


class FullError(Exception):
    """More names than `MOST`."""


class Heartbeats:
    """The newest heartbeat of each name. A server that starts has none, and says so: it answers 404, and no age."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._newest: dict[str, ReceivedBeat] = {}

    def receive(self, name: str, progress: int | None) -> None:
        """Record a heartbeat. FullError for a further name when there are too many."""
        if name not in self._newest and len(self._newest) >= MOST:
            raise FullError(f"{MOST} names beat already: restart the server, or send fewer names")
        self._newest[name] = ReceivedBeat(self._monotonic(), progress)

    def age(self, name: str) -> tuple[float, int | None] | None:
        """Seconds since the newest heartbeat, and its progress; None if there was none since the start."""
        found = self._newest.get(name)
        return None if found is None else (max(0.0, self._monotonic() - found.at), found.progress)
