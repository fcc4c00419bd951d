"""Reads of the store for the routes: few at a time, each with a limit of time, and never a write.

A read takes a thread and a connection of its own. One more than may wait is refused with 503 and counted: a server that
piled them up would answer all of them late, and the newest, which is a person in front of a screen, last.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import msgspec
from fastapi import HTTPException

from killswitch.limits.view import GateView, decode_gate_view
from killswitch.runner.locks.gate_view import gate_view_file
from killswitch.server.rates import ServerCounters
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

T = TypeVar("T")
AT_ONCE: Final = 4
"""Reads under way."""
MAY_WAIT: Final = 16
"""Reads that may wait for one of them to end."""
WITHIN: Final = 2.0
"""Seconds that a read may take, with its wait. What it does in SQLite is broken off then as well."""


class StoreReads:
    """Reads one store, and what the runner of the store has written next to it.

    All calls come from one loop. What takes longer than `WITHIN` is answered with 503, and a read of SQLite ends; on a
    disk that hangs it goes on in its thread, which counts as under way: that costs `AT_ONCE` threads, and never more.
    """

    def __init__(self, store: Path, counters: ServerCounters, gauge: str = "reads_under_way") -> None:
        """`gauge`: the name under which the reads under way are shown."""
        self.store = store
        self._counters = counters
        self._limiter = anyio.CapacityLimiter(AT_ONCE)
        counters.gauges[gauge] = lambda: float(self._limiter.borrowed_tokens)

    async def read(self, read: Callable[[SqlStore, datetime], T]) -> T:
        """What `read` makes of the store and the present time; 503 if that takes too long, or cannot be done."""

        def reading() -> T:
            store = open_store(str(self.store), read_only=True, within=WITHIN)
            try:
                return read(store, datetime.now(UTC))
            finally:
                store.close()

        return await self.run(reading, "the store cannot be read")

    async def view(self) -> GateView:
        """What the last tick has written for the gate and this server; 409 if no run has ticked on the store."""
        path = gate_view_file(str(self.store))

        def reading() -> GateView | None:
            try:
                return decode_gate_view(path.read_bytes())
            except FileNotFoundError:
                return None

        found = await self.run(reading, f"{path} cannot be read")
        if found is None:
            raise HTTPException(409, "no run has ticked on this store: is `ksctl run` alive?")
        return found

    async def run(self, work: Callable[[], T], cause: str) -> T:
        """What `work` returns, in a thread; 503 with the cause if it fails, or takes too long."""
        if self._limiter.statistics().tasks_waiting >= MAY_WAIT:
            self._counters.count("refused_reads", "busy")
            raise HTTPException(503, "too many reads are under way: come back in a second", {"Retry-After": "1"})
        try:
            with anyio.fail_after(WITHIN):
                return await anyio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        except TimeoutError as error:
            self._counters.count("refused_reads", "slow")
            raise HTTPException(503, "the store takes too long to read", {"Retry-After": "1"}) from error
        except (StoreError, OSError, msgspec.MsgspecError, ValueError) as error:
            self._counters.count("refused_reads", "failed")
            why: Any = error.strerror if isinstance(error, OSError) else error
            raise HTTPException(503, f"{cause}: {why}") from error
