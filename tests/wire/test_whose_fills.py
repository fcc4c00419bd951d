"""Whose order a fill is of: by what venues state of fills, and by orders that an adapter has sent or seen resting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from killswitch.execution.client_order_id import client_order_id
from killswitch.model.snapshot import Fill, Order
from killswitch.model.venue import OrderReport, OrderRequest, is_ours
from killswitch.model.venue_orders import MOST, KnownOrders
from tests.conformance.harnesses import PaperHarness, WireHarness
from tests.conformance.wires import WIRES
from tests.rotation import taking_turns
from tests.worlds import START, fill

TEN = Decimal(10)
STATED = ("bybit", "krakenfutures", "mexc", "okx")
"""The venues on loopback whose fills state the client order id."""


def with_adapter(harness: Any, scenario: Callable[[Any, str], Awaitable[None]]) -> None:
    """Run the scenario on an account that is long 10 of the venue's first symbol."""
    symbol = harness.symbols[0]

    async def main() -> None:
        adapter: Any = await harness.open({(symbol, "long"): TEN})
        try:
            await scenario(adapter, symbol)
        finally:
            await adapter.close()
            await harness.close()

    harness.run(main())


async def fills_after(adapter: Any, act: Callable[[], Awaitable[object]]) -> list[Fill]:
    """The fills of the snapshots of two minutes after `act`."""
    await adapter.snapshot()
    await act()
    found: list[Fill] = []
    for _ in range(24):
        seen = await adapter.snapshot()
        found += seen.fills or ()
        await asyncio.sleep(5)
    return found


@pytest.mark.parametrize("venue", taking_turns(WIRES, "whose fills, ours"))
def test_a_fill_of_our_own_order_has_its_client_order_id(venue: str) -> None:
    """A market order never rests: without this a close of ours would be a losing trade, and fire the next rule."""
    harness = WireHarness(WIRES[venue])

    async def scenario(adapter: Any, symbol: str) -> None:
        name = client_order_id("0123456789abcdefghij", 0, 0, adapter.traits.client_ids)
        sale = OrderRequest(name, symbol, "sell", "long", Decimal(4), reduce_only=True)
        found = await fills_after(adapter, lambda: adapter.submit(sale))
        own = [each for each in found if each.side == "sell"]
        assert own
        assert {each.client_order_id for each in own} == {name}
        assert all(is_ours(each.client_order_id) for each in own)

    with_adapter(harness, scenario)


@pytest.mark.parametrize("venue", taking_turns(WIRES, "whose fills, theirs"))
def test_a_fill_of_somebody_elses_market_order_is_not_ours(venue: str) -> None:
    """Its id is what the venue states, or unknown."""
    harness = WireHarness(WIRES[venue])

    async def scenario(adapter: Any, symbol: str) -> None:
        sale = OrderRequest("theirs", symbol, "sell", "long", Decimal(3), reduce_only=True)

        async def by_hand() -> None:
            harness.wire.exchange.place(sale, by="hand")

        found = await fills_after(adapter, by_hand)
        (theirs,) = [each for each in found if each.side == "sell"]
        assert theirs.client_order_id == ("theirs" if venue in STATED else None)

    with_adapter(harness, scenario)


@pytest.mark.parametrize("http", [False, True])
def test_the_paper_venue_states_client_order_id_and_trigger(http: bool) -> None:
    """Of each fill, in process and over HTTP; a fill of a plain order has no trigger."""
    harness = PaperHarness(http=http)

    async def scenario(adapter: Any, symbol: str) -> None:
        sale = OrderRequest("ks-plain", symbol, "sell", "long", Decimal(4), reduce_only=True)
        found = await fills_after(adapter, lambda: adapter.submit(sale))
        own = {(each.client_order_id, each.trigger_price) for each in found if each.side == "sell"}
        assert own == {("ks-plain", None)}

    with_adapter(harness, scenario)


def resting(number: str, name: str | None, trigger: str | None) -> Order:
    price = None if trigger is None else Decimal(trigger)
    return Order(number, "A", "sell", Decimal(1), client_order_id=name, trigger_price=price)


def named(known: KnownOrders, **more: Any) -> tuple[str | None, Decimal | None]:
    """Client order id and trigger of a fill of order 1."""
    (found,) = known.named((fill("f", START, more.pop("symbol", "A"), "sell", "1", "90", order="1", **more),)) or ()
    return found.client_order_id, found.trigger_price


def test_a_stop_that_rested_is_known_by_its_fill_after_it_was_triggered() -> None:
    """Also if the venue lists it without its trigger while it fills."""
    known = KnownOrders()
    assert named(known) == (None, None)
    known.rest([resting("1", "bot-1", "90")])
    known.rest([resting("1", "bot-1", None)])
    assert named(known) == ("bot-1", Decimal(90))


def test_what_the_venue_states_of_a_fill_is_kept() -> None:
    """The own row of the fill is the better source."""
    known = KnownOrders()
    known.rest([resting("1", "listed", None)])
    assert named(known, client_order_id="stated") == ("stated", None)


def test_order_ids_are_those_of_a_symbol() -> None:
    """Binance numbers the orders of each symbol separately."""
    known = KnownOrders()
    request = OrderRequest("ks1", "A", "sell", "long", Decimal(1), reduce_only=True)
    known.sent(request, OrderReport("1", "ks1", "A", "filled", Decimal(1), Decimal(1)))
    assert (named(known), named(known, symbol="B")) == (("ks1", None), (None, None))


def test_only_the_newest_orders_are_kept() -> None:
    """The memory of an adapter that runs for a year is bounded."""
    known = KnownOrders()
    known.rest(resting(str(number), "bot", None) for number in range(1, MOST + 2))
    assert named(known) == (None, None)
