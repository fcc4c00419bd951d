"""An account at a loopback venue with the real adapter on it, in virtual time: for closes from decision to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count
from typing import Any

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.venue import AccountSpec
from killswitch.ratelimit.budget import RequestBudgets
from killswitch_ccxt import adapter
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.faults.journal_checker import MemoryJournal
from tests.faults.mishaps import Rule, Script
from tests.faults.scene import committed, decision_on
from tests.virtual_time import VirtualTime
from tests.wire.server import KEY, PASSPHRASE, SECRET, WireVenue

PLAIN = {"key": KEY, "secret": SECRET}
KEYS = {
    "bybit": PLAIN, "binanceusdm": PLAIN, "bitget": {**PLAIN, "passphrase": PASSPHRASE},
    "okx": {**PLAIN, "passphrase": PASSPHRASE},
}  # fmt: skip
_NUMBERS = count()


class Desk:
    """`wire` is the venue, `venue` our adapter, `exchange` the truth."""

    def __init__(
        self,
        exchange_name: str,
        server: type[WireVenue],
        held: Mapping[Key, str],
        *rules: Rule,
        mode: Mode = "one_way",
        markets: tuple[Market, ...] = (),
        streams: bool = False,
        watch: tuple[str, ...] = (),
        **more: Any,
    ) -> None:
        self.time = VirtualTime()
        book = {key: Decimal(amount) for key, amount in held.items()}
        self.exchange = Exchange(book, lambda: (self.time.elapsed, self.time.now()), mode=mode, markets=markets)
        self.wire: Any = server(self.exchange, mishaps=Script(*rules), **more)
        self.venue: Any = None
        self.journal = MemoryJournal()
        self._name = exchange_name
        self._streams = streams
        self._watch = watch

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Desk]:
        """Serve, and give everything back."""
        await self.wire.start()
        options: dict[str, object] = {"clock": self.time, "ccxt": {"numberOfTheDesk": next(_NUMBERS)}}
        market = "spot" if self.exchange.mode == "spot" else "swap"
        spec = AccountSpec(
            "main", "ccxt", market, "USDT", self.wire.address, options, KEYS[self._name], self._name,
            self.wire.address_ws if self._streams else None, watch=self._watch,
        )  # fmt: skip
        self.venue = adapter(spec)
        try:
            yield self
        finally:
            await self.venue.close()
            await self.wire.stop()
        assert self.wire.refusals == []

    async def close_all(self, patience: float = 300.0) -> str:
        """Level 3: every position to nothing. How it ended."""
        targets = {key: Decimal(0) for key, amount in self.exchange.held.items() if amount}
        reduce_only = self.exchange.mode != "spot"
        plain = decision_on(self.exchange, "d1", self.time.now(), targets, reduce_only=reduce_only)
        decision = committed(self.journal, plain)
        budget = RequestBudgets().of("main", self._name, self.venue.traits)
        closer = AccountExecutor("main", self.venue, self.journal, self.time, budget=budget)
        closer.adopt(decision)
        end = self.time.elapsed + patience
        while await closer.advance() and self.time.elapsed < end:
            await self.time.sleep(min(max(closer.wait, 0.02), 1.0))
        ended = [it.data["status"] for it in self.journal.entries if it.kind == "finished"]
        return str(ended[0]) if ended else "unfinished"
