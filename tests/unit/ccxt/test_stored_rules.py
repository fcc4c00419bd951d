"""Rules stored by an earlier run: a close that begins in a crash does not wait for the rules of all markets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from killswitch.model.venue import AccountSpec, OrderRequest
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues import dialect_of
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.binance.venue import BinanceWire
from tests.wire.server import KEY, SECRET

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
MARKETS = tuple(Market(symbol) for symbol in (BTC, ETH))


def _runs(scenario: Callable[[VirtualTime, list[BinanceWire], list[CcxtVenue]], Awaitable[None]]) -> None:
    """Two runs, each at its own address, so that they share only the stored rules; a long of 2 BTC."""
    time = VirtualTime()

    async def play() -> None:
        wires, venues = [], []
        for _ in range(2):
            exchange = Exchange({(BTC, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()), markets=list(MARKETS))
            wires.append(BinanceWire(exchange))
            await wires[-1].start()
            credentials, options = {"key": KEY, "secret": SECRET}, {"clock": time}
            spec = AccountSpec(
                "main", "ccxt", "swap", "USDT", wires[-1].address, options, credentials, exchange="binanceusdm"
            )
            venues.append(CcxtVenue(spec, dialect_of("binanceusdm")))
        try:
            await scenario(time, wires, venues)
        finally:
            for venue in venues:
                await venue.close()
            for wire in wires:
                await wire.stop()

    time.run(play())


def _without_rules(wire: BinanceWire) -> Callable[[], None]:
    """Make the venue refuse to return its rules; calling the result makes it answer again."""
    answer, is_silent = wire.answer, [True]

    def silent(ask: Any) -> Any:
        if is_silent and ask.path.endswith("/exchangeInfo"):
            raise NotImplementedError
        return answer(ask)

    wire.answer = silent  # type: ignore[method-assign] # for this test
    return is_silent.clear


def test_a_run_starts_with_the_stored_rules_and_continues_with_the_venues_own() -> None:
    """Polling and closing work while the venue does not return its rules; once it does, all of them are available."""

    async def scenario(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        before, after = venues
        await before.snapshot()
        stored = before.kept_rules.to_keep()
        assert stored is not None
        assert before.kept_rules.to_keep() is None
        answer_again = _without_rules(wires[1])
        after.kept_rules.use(stored)
        seen = await after.snapshot()
        assert (seen.quality, [it.symbol for it in seen.positions or ()]) == ("ok", [BTC])
        assert [(it.symbol, it.amount_step) for it in seen.instruments or ()] == [(BTC, Decimal("0.001"))]
        sold = await after.submit(OrderRequest("ks1", BTC, "sell", "long", Decimal(2), reduce_only=True))
        assert (sold.state, sold.filled) == ("filled", 2)
        assert after.kept_rules.to_keep() is None
        await after.rules.wait_for_renewal()
        assert "rules: they are from an earlier run" in ((await after.snapshot()).reason or "")
        answer_again()
        await time.sleep(61.0)
        await after.snapshot()
        await after.rules.wait_for_renewal()
        seen = await after.snapshot()
        assert (seen.reason, {it.symbol for it in seen.instruments or ()}) == (None, {ETH})

    _runs(scenario)


def test_a_symbol_without_stored_rules_waits_for_the_venues_own() -> None:
    """A position that was opened while no runner polled is never omitted."""

    async def scenario(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        before, after = venues
        await before.snapshot()
        after.kept_rules.use(before.kept_rules.to_keep() or b"")
        wires[1].exchange.trade((ETH, "short"), Decimal(3))
        seen = await after.snapshot()
        assert sorted(it.symbol for it in seen.positions or ()) == [BTC, ETH]

    _runs(scenario)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"exchange": "okx"}, {"at": "2021-05-18T11:00:00Z"}, {"markets": 1}]
)
def test_stored_rules_of_another_version_or_exchange_or_too_old_are_not_used(change: dict[str, Any]) -> None:
    """The rules are loaded from the venue, as without stored ones; virtual time begins on 2021-05-19 at noon."""

    async def scenario(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        before, after = venues
        await before.snapshot()
        stored = msgspec.json.decode(before.kept_rules.to_keep() or b"") | change
        after.kept_rules.use(msgspec.json.encode(stored))
        seen = await after.snapshot()
        assert {it.symbol for it in seen.instruments or ()} == {BTC, ETH}

    _runs(scenario)


def test_rules_are_stored_again_when_another_symbol_is_held() -> None:
    """Rules are stored for symbols that are held, or were in the last five minutes."""

    async def scenario(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        venue = venues[0]
        await venue.snapshot()
        venue.kept_rules.to_keep()
        wires[0].exchange.trade((ETH, "short"), Decimal(3))
        await asyncio.sleep(1)
        await venue.snapshot()
        stored = msgspec.json.decode(venue.kept_rules.to_keep() or b"{}")
        assert sorted(it["symbol"] for it in stored["markets"]) == [BTC, ETH]

    _runs(scenario)
