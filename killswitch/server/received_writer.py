"""Keeps what other programs report to the server in one file, which the runner reads.

An alert is on disk when its sender is answered. Heartbeats are many, so that they are written at most once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from killswitch.gate.files import replace_file
from killswitch.model.snapshot import ExternalAlert
from killswitch.server.rates import ServerCounters
from killswitch.store.received import (
    ReceivedState,
    encode_received,
    read_received,
    received_file,
    with_alerts,
    with_beat,
)

BEATS_EVERY: Final = 1.0
"""Seconds between two writes of heartbeats."""
MOST_NAMES: Final = 10_000
"""Names of heartbeats; one more is refused, because a flood of names must not push a real one out."""


class FullError(Exception):
    """More names than `MOST_NAMES`."""


class ReceivedWriter:
    """The state that is received. All calls come from one loop."""

    def __init__(self, store: Path, now: Callable[[], datetime], counters: ServerCounters) -> None:
        self._path = received_file(store)
        self._now = now
        self._counters = counters
        self._writing = asyncio.Lock()
        self._later: asyncio.Task[None] | None = None
        self.state = read_received(self._path) or ReceivedState()

    async def alerts(self, found: Iterable[ExternalAlert]) -> None:
        """Keep the alerts of a notification, on disk when this returns. TooManyAlertsError, or OSError."""
        self.state = with_alerts(self.state, found, self._now())
        # Where that fails its sender tries again; to take it back would take what came meanwhile with it.
        await self._write()

    def beat(self, name: str, progress: int | None) -> None:
        """Keep a heartbeat, on disk within a second. FullError for a further name when there are too many."""
        if name not in self.state.heartbeats and len(self.state.heartbeats) >= MOST_NAMES:
            raise FullError(f"{MOST_NAMES} names beat already: send fewer names, or remove {self._path}")
        self.state = with_beat(self.state, name, progress, self._now())
        if self._later is None or self._later.done():
            self._later = asyncio.get_running_loop().create_task(self._write_beats())

    def age(self, name: str) -> tuple[float, int | None] | None:
        """Seconds since the newest heartbeat, and its progress; None if there was none."""
        found = self.state.heartbeats.get(name)
        return None if found is None else (max(0.0, (self._now() - found.at).total_seconds()), found.progress)

    async def _write_beats(self) -> None:
        is_kept = False
        while not is_kept:
            written = self.state
            with suppress(OSError):  # the beat is old then, as it is for a runner that reads no file
                await self._write()
                is_kept = True
            await asyncio.sleep(BEATS_EVERY)
            is_kept &= self.state is written  # what came since is written, too

    async def _write(self) -> None:
        async with self._writing:
            content = encode_received(self.state)
            try:
                await asyncio.to_thread(replace_file, self._path, content)
            except OSError:
                self._counters.count("failed_writes", "received")
                raise
