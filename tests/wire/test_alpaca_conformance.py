"""Our adapter for Alpaca, held against every guarantee of a venue adapter over the real alpaca-py."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

import pytest

from killswitch.conformance import AdapterGuarantees, Mishap
from killswitch.model.snapshot import OrderSide
from killswitch.model.venue import Call, VenueAdapter
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Rule, Script
from tests.virtual_time import VirtualTime
from tests.wire.alpaca import AlpacaWire
from tests.wire.alpaca_scene import REGULAR, alpaca
from tests.wire.server import KEY, SECRET

pytest.importorskip("alpaca")
T = TypeVar("T")
FIRST, SECOND = "AAPL", "MSFT"


class AlpacaStand:
    """Shares of two companies at 100, in the regular session, on Alpaca's server of ours."""

    offers: ClassVar[frozenset[Any]] = frozenset({"faults", "stops", "flows", "minimum", "maximum"})
    symbols = (FIRST, SECOND)
    more = tuple(f"S{chr(65 + number // 26)}{chr(65 + number % 26)}" for number in range(130))
    contract_size, amount_step = Decimal(1), Decimal("1E-9")
    secrets = (KEY, SECRET)
    patience = 40.0

    def __init__(self) -> None:
        self._timeline = VirtualTime(REGULAR)
        self._stack = AsyncExitStack()
        self._script = Script()
        self._wire: AlpacaWire | None = None

    @property
    def wire(self) -> AlpacaWire:
        assert self._wire is not None
        return self._wire

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self._timeline.run(main)

    async def open(self, book: Mapping[Key, Decimal], *, hedge: bool = False) -> VenueAdapter:
        step, least, most = Decimal("0.001"), Decimal("0.002"), Decimal(200)
        markets = tuple(
            Market(it, Decimal(100), step=step, minimum=least, maximum=most) for it in (*self.symbols, *self.more)
        )
        opened = alpaca(self._timeline, book, markets=markets, mishaps=self._script)
        self._wire, venue = await self._stack.enter_async_context(opened)
        return venue

    async def close(self) -> None:
        await self._stack.aclose()

    def now(self) -> datetime:
        return self._timeline.now()

    def equity(self) -> Decimal:
        return self.wire.equity

    def held(self, key: Key) -> Decimal:
        return self.wire.exchange.held.get(key, Decimal(0))

    def taken(self, client_order_id: str) -> int:
        return sum(order.name == client_order_id for order in self.wire.exchange.orders.values())

    def resting(self) -> int:
        return len(self.wire.exchange.resting())

    async def trade(self, key: Key, contracts: Decimal) -> None:
        self.wire.exchange.trade(key, contracts)

    async def rest(self, symbol: str, side: OrderSide, contracts: Decimal, *, trigger: Decimal | None = None) -> None:
        if trigger is None:
            self.wire.exchange.rest(symbol, side, contracts, type="limit", price=Decimal(10))
        else:
            when = "falls" if side == "sell" else "rises"
            self.wire.exchange.rest(
                symbol, side, contracts, trigger_price=trigger, trigger_when=when, key=(symbol, "long")
            )

    async def flow(self, amount: Decimal) -> None:
        kind = "CSD" if amount > 0 else "CSW"
        row = {"id": f"n{len(self.wire.moves)}", "activity_type": kind, "net_amount": str(amount), "date": "2021-05-19"}
        self.wire.moves.insert(0, row)

    def breaks(self, call: Call, mishap: Mishap) -> None:
        if mishap == "held_long":
            self.wire.held_for, mishap = 40.0, "held"
        self._script.rules.append(Rule(call, mishap))


class TestAlpaca(AdapterGuarantees):
    @pytest.fixture
    def stand(self) -> AlpacaStand:
        return AlpacaStand()
