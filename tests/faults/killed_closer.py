"""Closes a book in a child process that kills itself at one moment, and then, in another child, without a kill.

Run as a program: `python -m tests.faults.killed_closer FOLDER MOMENT [MOMENT …]`. A moment is
`write-N-before`, `write-N-after` (the N-th durable write of the store, the decision's own commit being the first),
`order-N-before`, `order-N-after`, `cancel-N-before` or `cancel-N-after` (the venue has done it, and its answer is
lost), counted anew in each child. With several, each is the end of one child in turn. Prints the moments that one
undisturbed child passes through, where no MOMENT is given; otherwise how each child ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.store import JournalEntry, TickRecord
from killswitch.model.venue import OrderReport, OrderRequest
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import NOW, HonestVenue, VirtualClock


class Death:
    """Kills this process without cleanup at the given moment."""

    def __init__(self, moment: str | None) -> None:
        self._moment = moment
        self._seen: Counter[str] = Counter()
        self.passed: list[str] = []

    def before(self, what: str) -> int:
        """Count it among its kind: of requests that overlap, the answers may arrive in any order."""
        self._seen[what] += 1
        self._pass(f"{what}-{self._seen[what]}-before")
        return self._seen[what]

    def after(self, what: str, number: int | None = None) -> None:
        self._pass(f"{what}-{number or self._seen[what]}-after")

    def _pass(self, moment: str) -> None:
        self.passed.append(moment)
        if moment == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingStore:
    """The real store; its writes are moments."""

    def __init__(self, store: SqlStore, death: Death) -> None:
        self._store = store
        self._death = death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, entry: JournalEntry) -> int:
        self._death.before("write")
        sequence = self._store.append(entry)
        self._death.after("write")
        return sequence

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        self._death.before("write")
        self._store.append_all(entries)
        self._death.after("write")

    def commit_tick(self, record: TickRecord) -> None:
        self._death.before("write")
        self._store.commit_tick(record)
        self._death.after("write")


class DyingVenue(HonestVenue):
    """The honest venue in its file; each request is a moment, before it is executed and before the answer arrives."""

    death: Death

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.death.before("order")
        report = await super().submit(request)
        self.death.after("order")
        return report

    async def cancel(self, symbol: str, order_id: str) -> None:
        self.death.before("cancel")
        await super().cancel(symbol, order_id)
        self.death.after("cancel")


def venue_in(folder: Path) -> DyingVenue:
    """A long to be halved, a short to be closed, an entry and a stop to be cancelled; first orders fill in part."""
    return DyingVenue(
        {"BTC": Decimal(100), "ETH": Decimal(-30)},
        resting={"entry": "BTC", "stop": "BTC"},
        fill_shares=("0.6", "0.5"),
        file=folder / "venue.json",
    )


async def life(folder: Path, death: Death, number: int) -> bool:
    """What a runner does for closing from its start; the decision is made if no earlier life has made it."""
    venue, clock = venue_in(folder), VirtualClock(NOW + timedelta(hours=number))
    venue.death = death
    store = DyingStore(open_store(str(folder / "store.sqlite")), death)
    closer = AccountExecutor("main", venue, store, clock)
    await closer.recover()
    if store.decision("d1") is None:
        cancels = {"entry": ("BTC", "entry"), "stop": ("BTC", "all")}
        decision = decide(venue, {"BTC": Decimal(50), "ETH": Decimal(0)}, cancels=cancels)  # type: ignore[arg-type] # literals
        closer.adopt(commit(store, decision))
    return await drive(closer)


def live_and_die(life: Callable[[Death, int], Coroutine[Any, Any, bool]], moments: Sequence[str]) -> None:
    """Live once for each moment and die at it, then once to the end; each life is a process of its own."""
    if not moments:
        death = Death(None)
        asyncio.run(life(death, 0))
        print(*death.passed, sep="\n")
        return
    for number, moment in enumerate([*moments, None]):
        child = os.fork()
        if child == 0:
            done = asyncio.run(life(Death(moment), number))
            os._exit(0 if done else 1)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}", flush=True)


def main() -> None:
    folder, moments = Path(sys.argv[1]), sys.argv[2:]
    live_and_die(lambda death, number: life(folder, death, number), moments)


if __name__ == "__main__":
    main()
