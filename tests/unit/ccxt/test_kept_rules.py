"""Rules of an earlier run: a close that begins in a crash does not wait for the rules of all markets."""

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


def _runs(course: Callable[[VirtualTime, list[BinanceWire], list[CcxtVenue]], Awaitable[None]]) -> None:
    """Two runs, each at an address of its own, so that they share nothing but what is kept; a long of 2 BTC."""
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
            await course(time, wires, venues)
        finally:
            for venue in venues:
                await venue.close()
            for wire in wires:
                await wire.stop()

    time.run(play())


def _without_rules(wire: BinanceWire) -> Callable[[], None]:
    """The venue does not tell its rules until what is given is called."""
    answer, is_silent = wire.answer, [True]

    def silent(ask: Any) -> Any:
        if is_silent and ask.path.endswith("/exchangeInfo"):
            raise NotImplementedError
        return answer(ask)

    wire.answer = silent  # type: ignore[method-assign] # for this test
    return is_silent.clear


def test_a_run_begins_with_the_rules_of_the_one_before_and_goes_on_with_the_venues_own() -> None:
    """Reading and closing work while the venue does not tell its rules; once it does, all of them are there."""

    async def course(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        before, after = venues
        await before.snapshot()
        kept = before.rules_to_keep()
        assert kept is not None
        assert before.rules_to_keep() is None
        speak = _without_rules(wires[1])
        after.use_rules(kept)
        seen = await after.snapshot()
        assert (seen.quality, [it.symbol for it in seen.positions or ()]) == ("ok", [BTC])
        assert [(it.symbol, it.amount_step) for it in seen.instruments or ()] == [(BTC, Decimal("0.001"))]
        sold = await after.submit(OrderRequest("ks1", BTC, "sell", "long", Decimal(2), reduce_only=True))
        assert (sold.state, sold.filled) == ("filled", 2)
        assert after.rules_to_keep() is None
        await after._rules.wait_for_renewal()
        assert "rules: they are from an earlier run" in ((await after.snapshot()).reason or "")
        speak()
        await time.sleep(61.0)
        await after.snapshot()
        await after._rules.wait_for_renewal()
        seen = await after.snapshot()
        assert (seen.reason, {it.symbol for it in seen.instruments or ()}) == (None, {ETH})

    _runs(course)


def test_a_symbol_that_is_not_among_kept_rules_waits_for_the_venues_own() -> None:
    """What was opened while no runner looked is never passed over."""

    async def course(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        before, after = venues
        await before.snapshot()
        after.use_rules(before.rules_to_keep() or b"")
        wires[1].exchange.trade((ETH, "short"), Decimal(3))
        seen = await after.snapshot()
        assert sorted(it.symbol for it in seen.positions or ()) == [BTC, ETH]

    _runs(course)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"exchange": "okx"}, {"at": "2021-05-18T11:00:00Z"}, {"markets": 1}]
)
def test_kept_rules_that_are_another_versions_foreign_or_too_old_are_not_used(change: dict[str, Any]) -> None:
    """The venue is asked, as without them; the story begins on 2021-05-19 at noon."""

    async def course(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        before, after = venues
        await before.snapshot()
        kept = msgspec.json.decode(before.rules_to_keep() or b"") | change
        after.use_rules(msgspec.json.encode(kept))
        seen = await after.snapshot()
        assert {it.symbol for it in seen.instruments or ()} == {BTC, ETH}

    _runs(course)


def test_rules_are_kept_anew_when_another_symbol_is_held() -> None:
    """Of what is held, and was in the last five minutes."""

    async def course(time: VirtualTime, wires: list[BinanceWire], venues: list[CcxtVenue]) -> None:
        venue = venues[0]
        await venue.snapshot()
        venue.rules_to_keep()
        wires[0].exchange.trade((ETH, "short"), Decimal(3))
        await asyncio.sleep(1)
        await venue.snapshot()
        kept = msgspec.json.decode(venue.rules_to_keep() or b"{}")
        assert sorted(it["symbol"] for it in kept["markets"]) == [BTC, ETH]

    _runs(course)
