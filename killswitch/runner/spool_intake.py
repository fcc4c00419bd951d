"""Takes the commands that a server has left next to the store, and calls a tick for them.

The server is a process of its own that never writes to the store. The intake runs next to the ticks, on their loop, so
that the store has one writer; what it stores is an event like that of `ksctl`, which the next tick processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from killswitch.model.alert import Alerts, alert_if, together
from killswitch.model.store import Store
from killswitch.runner.observers import TickReport
from killswitch.store.command_spool import CommandSpool

EVERY: Final = 0.05
"""Seconds between two looks; one lists a folder that is empty as a rule."""
MOST_NAMED: Final = 3
"""Damaged files that a page names."""


class SpoolIntake:
    """An observer of a run: it reports what of the folder cannot be taken."""

    def __init__(self, spool: CommandSpool, store: Store) -> None:
        self._spool = spool
        self._store = store
        self.call_tick: Callable[[], None] = lambda: None
        """Begins a tick at once."""
        self._unreadable: str | None = None
        self._damaged: list[str] = []

    def take(self) -> None:
        """Store the commands that wait, and call a tick for them. Raises StoreError.

        Called once before the first tick, so that a halt which was given while no runner lived precedes everything.
        """
        try:
            if not self._spool.is_waiting:
                self._unreadable = None
                return
            self._damaged += self._spool.take(self._store)
            self._unreadable = None
        except OSError as error:
            # A folder that takes no renames would have its commands stored again and again, and each counts once.
            self._unreadable = f"commands of the server cannot be taken from {self._spool.folder}: {error.strerror}"
        self.call_tick()

    async def run(self) -> None:
        """Look until cancelled. Raises StoreError."""
        with suppress(asyncio.CancelledError):
            while True:
                self.take()
                await asyncio.sleep(EVERY if self._unreadable is None else 1.0)

    def ticked(self, _report: TickReport) -> None:
        """Commands do not wait for the end of a tick."""

    @property
    def judges(self) -> tuple[str, ...]:
        return ("spool",)

    @property
    def alerts(self) -> Alerts:
        """A page for a folder that cannot be read, and for files that hold no command."""
        named = ", ".join(self._damaged[:MOST_NAMED])
        damaged = f"files that a server left for the runner hold no command, and nothing is done about them: {named}"
        return together(
            (
                alert_if("spool/unreadable", self._unreadable),
                alert_if("spool/damaged", damaged if self._damaged else None),
            )
        )
