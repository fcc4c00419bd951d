"""An account at a wire-level venue in virtual time: its adapter, and whole closes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.decision import Decision, Intent, Rung, Unwinding
from killswitch.model.store import JournalEntry
from killswitch.model.venue import AccountSpec
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.store.sqlite import open_store
from killswitch_ccxt import adapter
from killswitch_ccxt.venue import CcxtVenue
from tests.closing_cases import commit
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.faults.mishaps import Rule, Script
from tests.virtual_time import VirtualTime
from tests.wire.server import WireVenue

LADDER = (Rung("limit_ioc"), Rung("market", tries=3))


class Account:
    """One account at a venue. `run` passes its adapter and the venue to an action, and returns the result."""

    def __init__(
        self,
        server: type[WireVenue],
        held: Mapping[Key, Decimal],
        spec: Callable[[str, VirtualTime], AccountSpec],
        *,
        mode: Mode = "one_way",
        markets: Iterable[Market] = (),
        rules: Iterable[Rule] = (),
        change: Callable[[Any], object] = lambda venue: None,
        **more: Any,
    ) -> None:
        self.time = VirtualTime()
        self.exchange = Exchange(held, lambda: (self.time.elapsed, self.time.now()), mode=mode, markets=markets)
        self.venue: Any = server(self.exchange, mishaps=Script(*rules), **more)
        change(self.venue)
        self._spec = spec
        self.journal: tuple[JournalEntry, ...] = ()

    def run(self, action: Callable[[CcxtVenue, Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            await self.venue.start()
            adapter_: Any = adapter(self._spec(self.venue.address, self.time))
            try:
                return await action(adapter_, self.venue)
            finally:
                await adapter_.close()
                await self.venue.stop()

        return self.time.run(main())

    def close_all(self, folder: Path, band: str | None = "0.005", seconds: float = 120.0) -> str | None:
        """Close everything as a level-3 decision does, and return the close's status."""

        async def action(adapter_: CcxtVenue, venue: Any) -> None:
            self.journal = await closed(adapter_, self.time, folder, band=band, seconds=seconds)

        self.run(action)
        ended = [entry.data.get("status") for entry in self.journal if entry.kind == "finished"]
        return ended[0] if ended else None


async def closed(
    adapter_: CcxtVenue, time: VirtualTime, folder: Path, *, band: str | None = None, seconds: float = 120.0
) -> tuple[JournalEntry, ...]:
    """Close every position of a snapshot, and return the journal of the close."""
    seen = await adapter_.snapshot()
    assert seen.positions is not None, seen.reason
    intents = tuple(
        Intent(
            "main", it.symbol, it.side, "sell" if it.side == "long" else "buy", it.contracts, Decimal(0),
            reduce_only=seen.market != "spot", rank=rank, band=None if band is None else Decimal(band),
        )
        for rank, it in enumerate(seen.positions, 1)
    )  # fmt: skip
    decision = Decision(
        id="d" * 20, as_of=time.now(), policy="p", policy_set="sha256:0", scope="account/main", mode="enforce",
        stage="close", level=3, previous_level=0, intents=intents, unwinding=Unwinding("u", LADDER),
    )  # fmt: skip
    store = open_store(str(folder / "store.sqlite"))
    try:
        commit(store, decision)
        closer = AccountExecutor(
            "main", adapter_, store, time, budget=RequestBudgets().of("main", "ccxt", adapter_.traits)
        )
        closer.adopt(decision)
        while await closer.advance() and time.elapsed < seconds:
            await time.sleep(min(max(closer.wait, 0.02), 1.0))
        return tuple(store.journal(decision.id))
    finally:
        store.close()
