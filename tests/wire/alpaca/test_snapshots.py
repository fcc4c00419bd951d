"""Snapshots of accounts at Alpaca on loopback, through our adapter."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.snapshot import Flow
from killswitch.model.venue import (
    CredentialsRefusedError,
    OrderRejectedError,
    RateLimitedError,
)
from killswitch_alpaca.venue import AlpacaVenue
from tests.faults.mishaps import Rule, Script
from tests.wire.alpaca.scene import AAPL, BTC, REGULAR, SPY, run, sale
from tests.wire.alpaca.venue import AlpacaWire

D = Decimal


def test_a_snapshot_contains_the_whole_account() -> None:
    """Longs, shorts and coins by our symbols, equity and margin, open orders, and the rules of what is held."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.exchange.rest(AAPL, "sell", D(3), trigger_price=D(80), trigger_when="falls")
        seen = await venue.snapshot()
        assert (seen.quality, seen.reason) == ("ok", None)
        held = {(p.symbol, p.side, p.contracts, p.mark_price, p.notional) for p in seen.positions or ()}
        assert held == {
            (AAPL, "long", 10, 100, 1000), (SPY, "short", 4, 400, 1600), (BTC, "long", D("0.5"), 50000, 25000),
        }  # fmt: skip
        assert seen.equity == 100_000
        # Half, and three tenths, of 1,000 + 1,600 + 25,000: a short position needs margin too.
        assert (seen.margin_used, seen.maintenance_margin) == (13_800, 8_280)
        (order,) = seen.orders or ()
        assert (order.symbol, order.side, order.amount, order.trigger_price, order.type) == (
            AAPL,
            "sell",
            3,
            80,
            "stop_market",
        )
        rules = {it.symbol: (it.state, it.amount_step) for it in seen.instruments or ()}
        fraction = D("0.000000001")
        assert rules == {AAPL: ("open", fraction), SPY: ("open", D(1)), BTC: ("open", fraction)}
        assert (seen.fills, seen.flows) == ((), ())
        assert seen.health is not None
        assert seen.health.clock_skew_ms == 0

    run(case)


def test_equity_follows_prices_between_two_queries_of_the_account() -> None:
    """Ten shares that rise by 5 add 50, though the account itself is not queried in the same second."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        account_queries = sum(it.ask.path == "/v2/account" for it in wire.seen)
        wire.exchange.markets[AAPL].price = D(105)
        wire.exchange.markets[SPY].price = D(410)
        seen = await venue.snapshot()
        assert seen.equity == 100_000 + 50 - 40
        assert sum(it.ask.path == "/v2/account" for it in wire.seen) == account_queries

    run(case)


def test_a_changed_quantity_makes_the_adapter_query_the_account_at_once() -> None:
    """A foreign purchase of five at 100 leaves the equity as it was, and does not count as a gain."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.exchange.place(sale("5", side="buy", client_order_id="theirs"), by="hand")
        seen = await venue.snapshot()
        assert seen.equity == 100_000
        assert {(p.symbol, p.contracts) for p in seen.positions or ()} >= {(AAPL, 15)}

    run(case)


def test_a_snapshot_each_second_takes_half_of_the_limit() -> None:
    """In five quiet minutes at a tick of a second, a minute has 84 of the 200 requests, the first one 8 more."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for _ in range(300):
            await venue.snapshot()
            await asyncio.sleep(1)
        times = [it.at for it in wire.seen]
        busiest = max(sum(at <= it < at + 60 for it in times) for at in times)
        assert busiest <= 92  # the first minute includes the first query of every part
        assert sum(60 <= it < 300 for it in times) / 4 <= 84
        assert venue.used() == {"fifths of requests": 5 * wire._used["requests"]}

    run(case)


def test_flows_and_fills_are_reported_once_when_they_become_known() -> None:
    """What happened before the first poll is dated before it; a later deposit, dividend and trade are reported once."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.moves.insert(0, {"id": "1", "activity_type": "CSD", "net_amount": "7", "date": "2021-05-18"})
        before = datetime(2021, 5, 18, tzinfo=UTC)
        assert (await venue.snapshot()).flows == (Flow("1", before, "deposit", D(7), "USD"),)
        wire.moves.insert(0, {"id": "2", "activity_type": "CSD", "net_amount": "500", "date": "2021-05-19"})
        wire.moves.insert(0, {"id": "3", "activity_type": "DIV", "net_amount": "-1.5", "date": "2021-05-19"})
        wire.exchange.place(sale("4", client_order_id="theirs"), by="hand")
        await asyncio.sleep(31)
        seen = await venue.snapshot()
        at = REGULAR + timedelta(seconds=31)
        assert seen.flows == (Flow("2", at, "deposit", D(500), "USD"), Flow("3", at, "interest", D("-1.5"), "USD"))
        assert [(f.symbol, f.side, f.amount, f.price, f.fee) for f in seen.fills or ()] == [
            (AAPL, "sell", 4, 100, None)
        ]
        again = await venue.snapshot()
        assert (again.flows, again.fills) == ((), ())

    run(case)


def test_each_leg_of_a_bracket_is_reported_once() -> None:
    """A parent with a limit and a held stop are two orders; the cancelled leg is none."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        parent = wire.exchange.rest(AAPL, "sell", D(3), type="limit", price=D(120))
        stop = wire.row_of(wire.exchange.orders[parent]) | {
            "id": "11111111-1111-4111-8111-111111111111", "status": "held", "type": "stop", "limit_price": None,
            "stop_price": "85", "position_intent": "sell_to_close",
        }  # fmt: skip
        gone = stop | {"id": "22222222-2222-4222-8222-222222222222", "status": "canceled"}
        wire.rows[parent] = {"legs": [stop, gone], "position_intent": "sell_to_close", "order_class": "oco"}
        orders = await venue.open_orders()
        orders_seen = [(o.price, o.trigger_price, o.reduce_only, o.position_side) for o in orders]
        assert orders_seen == [(120, None, True, "long"), (None, 85, True, "long")]

    run(case)


def test_an_invalid_order_leaves_the_orders_unknown_and_is_named_in_the_reason() -> None:
    """Positions and equity stay; the list of orders is unknown, never shorter."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        order = wire.exchange.rest(AAPL, "sell", D(3), type="limit", price=D(120))
        wire.rows[order] = {"status": "dreaming"}
        seen = await venue.snapshot()
        assert (seen.quality, seen.orders) == ("ok", None)
        assert seen.equity == 100_000
        assert "dreaming" in (seen.reason or "")

    run(case)


@pytest.mark.parametrize(
    ("mishap", "quality"), [("down", "down"), ("lost", "down"), ("silent", "down"), ("garbled", "malformed")]
)
def test_positions_that_cannot_be_read_are_unknown(mishap: Any, quality: str) -> None:
    """No positions, no equity and a reason; nothing is queried a second time."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        assert (seen.quality, seen.positions, seen.equity) == (quality, None, None)
        assert seen.reason
        assert wire.calls("snapshot") == 1

    run(case, mishaps=Script(Rule("snapshot", mishap)))


def test_a_rate_limit_error_gives_the_time_to_wait() -> None:
    """A request answered with 429 is not repeated, and raises RateLimitedError."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(RateLimitedError) as caught:
            await venue.snapshot()
        assert caught.value.retry_after == 0.5
        with pytest.raises(RateLimitedError):
            await venue.submit(sale())
        assert (wire.calls("snapshot"), wire.calls("submit")) == (1, 1)

    run(case, mishaps=Script(Rule("snapshot", "limited"), Rule("submit", "limited")))


def test_a_blocked_account_accepts_cancels_only() -> None:
    """The state of every market shows it, and the reason names what blocks it."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.account_flags = {"trading_blocked": True}
        seen = await venue.snapshot()
        assert {it.state for it in seen.instruments or ()} == {"cancel_only"}
        assert seen.reason == "trading is blocked at Alpaca"
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale())
        assert caught.value.reason == "permission"

    run(case)


def test_wrong_keys_are_reported_and_not_shown() -> None:
    """A retry fails in the same way, so an operator is notified at once: of snapshots, inspections and orders."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for request in (venue.snapshot(), venue.inspect(), venue.submit(sale())):  # which queries the clock first
            with pytest.raises(CredentialsRefusedError, match="request is not authorized") as caught:
                await request
            assert "PLANTED" not in str(caught.value)
            assert "another" not in str(caught.value)

    run(case, secret="another")


def test_a_foreign_trade_without_a_fill_does_not_change_the_servers_equity() -> None:
    """Ten shares that fell by 15 each are 150 less, and not 850 less again once another client has sold them."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.exchange.reprice(AAPL, D(85))
        assert (await venue.snapshot()).equity == 99_850
        wire.exchange.trade((AAPL, "long"), D(-10))
        assert (await venue.snapshot()).equity == 99_850
        wire.set_equity(D(50_000))
        assert D(wire._account()["equity"]) == 50_000

    run(case)
