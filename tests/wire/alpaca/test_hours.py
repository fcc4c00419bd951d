"""The hours of the stock market, at Alpaca on loopback: when nothing is sent, and what is sent otherwise."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal

import pytest

from killswitch.model.venue import (
    OrderRejectedError,
    VenueDownError,
)
from killswitch_alpaca.venue import AlpacaVenue
from tests.wire.alpaca.scene import AAPL, BTC, EVENING, NIGHT, REGULAR, SPY, run, sale
from tests.wire.alpaca.venue import AlpacaWire

D = Decimal


def test_outside_hours_nothing_is_sent_unless_the_account_declares_how() -> None:
    """Without outside_hours a close is refused with the time of the opening; coins are sold all the same."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        states = {it.symbol: it.state for it in seen.instruments or ()}
        assert states == {AAPL: "halted", SPY: "halted", BTC: "open"}
        with pytest.raises(OrderRejectedError, match=r"closed until 2021-05-20 13:30 UTC.*outside_hours") as caught:
            await venue.submit(sale())
        assert caught.value.reason == "market_closed"
        assert wire.bodies == []
        assert (await venue.submit(sale("0.5", BTC))).state == "filled"

    run(case, start=EVENING)


def test_queued_orders_are_held_by_alpaca_until_the_opening() -> None:
    """A market order for the day rests for the night and fills at the opening; a limit order is not queued."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        report = await venue.submit(sale())
        assert (report.state, report.filled) == ("open", 0)
        assert wire.bodies[0]["time_in_force"] == "day"
        assert "extended_hours" not in wire.bodies[0]
        with pytest.raises(OrderRejectedError, match="only market orders are queued"):
            await venue.submit(sale(client_order_id="ks2", type="limit", price=D(99)))
        await asyncio.sleep(13 * 3600)
        found = await venue.find_order(AAPL, "ks1")
        assert found is not None
        assert (found.state, found.filled) == ("filled", 10)

    run(case, start=NIGHT, outside_hours="queue")


def test_the_extended_session_gets_a_limit_within_the_band_of_the_quote() -> None:
    """A sale without a price is bounded at 1% below the bid of 99.90: 98.901, on the tick and never beyond: 98.91."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.exchange.markets[AAPL].slip = D("0.001")
        seen = await venue.snapshot()
        states = {it.symbol: it.state for it in seen.instruments or ()}
        books = {p.symbol: (p.bid, p.ask) for p in seen.positions or ()}
        assert books[AAPL] == (D("99.9"), D("100.1"))
        assert books[BTC] == (None, None)
        assert (states[AAPL], states[BTC]) == ("limit_only", "open")
        report = await venue.submit(sale())
        assert report.state == "filled"
        body = wire.bodies[0]
        assert (body["type"], body["limit_price"], body["extended_hours"], body["time_in_force"]) == (
            "limit", "98.91", True, "day",
        )  # fmt: skip
        with pytest.raises(OrderRejectedError, match="accepts no ioc orders"):
            await venue.submit(sale(client_order_id="ks2", type="limit", price=D(99), time_in_force="ioc"))

    run(case, start=EVENING, outside_hours="extended")


def test_after_the_extended_session_the_refusal_names_the_next_one() -> None:
    """At 21:00 in New York the next session begins at 04:00: 08:00 UTC."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(OrderRejectedError, match="closed until 2021-05-20 08:00 UTC; the extended session is over"):
            await venue.submit(sale())
        assert wire.bodies == []

    run(case, start=NIGHT, outside_hours="extended")


def test_the_state_of_a_market_changes_at_the_opening() -> None:
    """Halted before 13:30 UTC, open after it, without another query of the clock."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        before = await venue.snapshot()
        await asyncio.sleep(20)
        after = await venue.snapshot()
        states_by_poll = [{it.symbol: it.state for it in seen.instruments or ()} for seen in (before, after)]
        assert [states.get(AAPL) for states in states_by_poll] == ["halted", "open"]
        assert sum(it.ask.path == "/v2/clock" for it in wire.seen) == 1

    run(case, start=datetime(2021, 5, 19, 13, 29, 50, tzinfo=REGULAR.tzinfo))


def test_a_stale_clock_leaves_the_state_of_shares_unknown() -> None:
    """Two hours after the last readable clock the state of shares is unknown; coins are not affected."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.clock_answer = lambda: {"timestamp": "noon"}  # type: ignore[method-assign]  # an unreadable clock
        await asyncio.sleep(1800)
        assert (await venue.snapshot()).instruments is None
        await asyncio.sleep(5400)
        seen = await venue.snapshot()
        assert {it.symbol: it.state for it in seen.instruments or ()} == {AAPL: None, SPY: None}
        assert "the clock" in (seen.reason or "")

    run(case)


def test_without_a_clock_no_share_is_sold() -> None:
    """The adapter does not guess whether the market is open: VenueDownError, and nothing is sent."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.clock_answer = lambda: {"timestamp": "noon"}  # type: ignore[method-assign]  # an unreadable clock
        seen = await venue.snapshot()
        assert {it.symbol: it.state for it in seen.instruments or ()}[AAPL] is None
        with pytest.raises(VenueDownError, match="no order was sent"):
            await venue.submit(sale())
        assert wire.bodies == []

    run(case)
