"""An account at Alpaca on loopback: our adapter in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from killswitch.model.venue import AccountSpec, OrderRequest
from killswitch_alpaca import adapter
from killswitch_alpaca.venue import AlpacaVenue
from tests.faults.exchange import Exchange, Key, Market
from tests.virtual_time import VirtualTime
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.server import KEY, SECRET

D = Decimal
AAPL, SPY, BTC = "AAPL", "SPY", "BTC/USD"
REGULAR = datetime(2021, 5, 19, 15, 0, tzinfo=UTC)
"""A Wednesday, 11:00 in New York."""
EVENING = datetime(2021, 5, 19, 21, 0, tzinfo=UTC)
"""17:00 in New York: the extended session is open."""
NIGHT = datetime(2021, 5, 20, 1, 0, tzinfo=UTC)
"""21:00 in New York: no session is open until 04:00 there."""
TIMEOUT = 0.4
"""Seconds for an answer that never comes."""
HELD: Mapping[Key, Decimal] = {(AAPL, "long"): D(10), (SPY, "short"): D(4), (BTC, "long"): D("0.5")}


def spec_of(wire: AlpacaWire | None, **more: Any) -> AccountSpec:
    """An account of the server. `options`, `credentials` and all other fields of the document as given."""
    base: dict[str, Any] = {
        "account": "main", "adapter": "alpaca", "market": "equity", "currency": "USD", "environment": "sandbox",
        "endpoint": wire.address if wire else None, "endpoint_ws": wire.address_ws + "/stream" if wire else None,
        "options": {}, "credentials": {"key": KEY, "secret": SECRET},
    }  # fmt: skip
    return AccountSpec(**(base | more))


@asynccontextmanager
async def alpaca(
    timeline: VirtualTime,
    held: Mapping[Key, Decimal] = HELD,
    *,
    outside_hours: Literal["queue", "extended"] | None = None,
    options: Mapping[str, object] | None = None,
    secret: str = SECRET,
    markets: tuple[Market, ...] = (),
    **more: Any,
) -> AsyncIterator[tuple[AlpacaWire, AlpacaVenue]]:
    """`markets` in addition to AAPL at 100, SPY at 400 and BTC/USD at 50,000. A request for a missing route fails the
    test.
    """
    known = {AAPL: Market(AAPL, D(100), step=D("0.000000001"), minimum=D("0.000000001")),
             SPY: Market(SPY, D(400), step=D("0.000000001"), minimum=D("0.000000001")),
             BTC: Market(BTC, D(50_000), step=D("0.000000001"), minimum=D("0.00002"))}  # fmt: skip
    known |= {market.symbol: market for market in markets}
    exchange = Exchange(dict(held), lambda: (timeline.elapsed, timeline.now()), markets=known.values())
    wire = AlpacaWire(exchange, **more)
    await wire.start()
    spec = spec_of(
        wire,
        outside_hours=outside_hours,
        options={"clock": timeline, "timeout": TIMEOUT, **(options or {})},
        credentials={"key": KEY, "secret": secret},
    )
    venue = adapter(spec)
    assert isinstance(venue, AlpacaVenue)
    try:
        yield wire, venue
    finally:
        await venue.close()
        await wire.stop()
    assert wire.refusals == []


Case = Callable[[AlpacaWire, AlpacaVenue], Awaitable[None]]


def run(case: Case, start: datetime = REGULAR, **more: Any) -> None:
    """Run the case on a timeline of its own, which begins at `start`."""
    timeline = VirtualTime(start)

    async def main() -> None:
        async with alpaca(timeline, **more) as (wire, venue):
            await case(wire, venue)

    timeline.run(main())


def sale(amount: str = "10", symbol: str = AAPL, **more: Any) -> OrderRequest:
    request: dict[str, Any] = {
        "client_order_id": "ks1", "symbol": symbol, "side": "sell", "position_side": "long", "amount": D(amount),
        "reduce_only": False,
    }  # fmt: skip
    return OrderRequest(**(request | more))
