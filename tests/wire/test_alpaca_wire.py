"""Our adapter through the real alpaca-py against Alpaca on loopback: what is sent is taken, what is told is true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.inspection import Bar
from killswitch.model.snapshot import Flow
from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderRequest,
    Push,
    RateLimitedError,
    VenueDownError,
)
from killswitch_alpaca.family import family
from killswitch_alpaca.venue import AlpacaVenue
from tests.faults.exchange import Market
from tests.faults.mishaps import Rule, Script
from tests.virtual_time import VirtualTime
from tests.wire.alpaca import AlpacaWire
from tests.wire.alpaca_scene import AAPL, BTC, EVENING, NIGHT, REGULAR, SPY, alpaca
from tests.wire.server import KEY, SECRET

pytest.importorskip("alpaca")
D = Decimal
Case = Callable[[AlpacaWire, AlpacaVenue], Awaitable[None]]


def run(case: Case, start: datetime = REGULAR, **more: Any) -> None:
    """The case on a timeline of its own, which begins at `start`."""
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


# Snapshots


def test_a_snapshot_tells_the_whole_account() -> None:
    """Longs, shorts and coins by our names, equity and margin, open orders, and the rules of what is held."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.exchange.rest(AAPL, "sell", D(3), trigger_price=D(80), trigger_when="falls")
        seen = await venue.snapshot()
        assert (seen.quality, seen.reason) == ("ok", None)
        held = {(p.symbol, p.side, p.contracts, p.mark_price, p.notional) for p in seen.positions or ()}
        assert held == {
            (AAPL, "long", 10, 100, 1000), (SPY, "short", 4, 400, 1600), (BTC, "long", D("0.5"), 50000, 25000),
        }  # fmt: skip
        assert seen.equity == 100_000
        # Half, and three tenths, of 1,000 − 1,600 + 25,000.
        assert (seen.margin_used, seen.maintenance_margin) == (12_200, 7_320)
        (order,) = seen.orders or ()
        assert (order.symbol, order.side, order.amount, order.trigger_price, order.type) == (
            AAPL,
            "sell",
            3,
            80,
            "stop",
        )
        rules = {it.symbol: (it.state, it.amount_step) for it in seen.instruments or ()}
        fraction = D("0.000000001")
        assert rules == {AAPL: ("open", fraction), SPY: ("open", D(1)), BTC: ("open", fraction)}
        assert (seen.fills, seen.flows) == ((), ())
        assert seen.health is not None
        assert seen.health.clock_skew_ms == 0

    run(case)


def test_equity_follows_prices_between_two_readings_of_the_account() -> None:
    """Ten shares that rise by 5 are 50 more, though the account itself is not asked in the same second."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        asked = sum(it.ask.path == "/v2/account" for it in wire.seen)
        wire.exchange.markets[AAPL].price = D(105)
        wire.exchange.markets[SPY].price = D(410)
        seen = await venue.snapshot()
        assert seen.equity == 100_000 + 50 - 40
        assert sum(it.ask.path == "/v2/account" for it in wire.seen) == asked

    run(case)


def test_another_quantity_has_the_account_read_at_once() -> None:
    """A purchase of five at 100 by somebody else leaves the equity as it was, and is not counted as a gain."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.exchange.place(sale("5", side="buy", client_order_id="theirs"), by="hand")
        seen = await venue.snapshot()
        assert seen.equity == 100_000
        assert {(p.symbol, p.contracts) for p in seen.positions or ()} >= {(AAPL, 15)}

    run(case)


def test_a_snapshot_each_second_takes_half_of_the_limit() -> None:
    """Over five minutes of quiet at a tick a second a minute holds 84 of the 200 requests, the first one 8 more."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for _ in range(300):
            await venue.snapshot()
            await asyncio.sleep(1)
        times = [it.at for it in wire.seen]
        busiest = max(sum(at <= it < at + 60 for it in times) for at in times)
        assert busiest <= 92  # the first minute has the first reading of every part in it
        assert sum(60 <= it < 300 for it in times) / 4 <= 84
        assert venue.used() == {"requests": 5 * wire._now_used()["requests"]}

    run(case)


def test_money_and_trades_are_told_once_when_they_become_known() -> None:
    """What happened before we looked is not told; a deposit, a dividend and a trade after that are, once each."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.moves.insert(0, {"id": "1", "activity_type": "CSD", "net_amount": "7", "date": "2021-05-18"})
        assert (await venue.snapshot()).flows == ()
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


def test_legs_of_brackets_are_told_each_once() -> None:
    """A parent with a limit and a held stop below it is three orders."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        parent = wire.exchange.rest(AAPL, "sell", D(3), type="limit", price=D(120))
        stop = wire._row(wire.exchange.orders[parent]) | {
            "id": "11111111-1111-4111-8111-111111111111", "status": "held", "type": "stop", "limit_price": None,
            "stop_price": "85", "position_intent": "sell_to_close",
        }  # fmt: skip
        gone = stop | {"id": "22222222-2222-4222-8222-222222222222", "status": "canceled"}
        wire.rows[parent] = {"legs": [stop, gone], "position_intent": "sell_to_close", "order_class": "oco"}
        orders = await venue.open_orders()
        told = [(o.price, o.trigger_price, o.reduce_only, o.position_side) for o in orders]
        assert told == [(120, None, True, "long"), (None, 85, True, "long")]

    run(case)


def test_an_order_that_makes_no_sense_leaves_the_orders_unknown_and_says_which() -> None:
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
def test_a_book_that_cannot_be_read_is_unknown(mishap: Any, quality: str) -> None:
    """No positions, no equity and a reason, and nothing is asked a second time."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        assert (seen.quality, seen.positions, seen.equity) == (quality, None, None)
        assert seen.reason
        assert wire.calls("snapshot") == 1

    run(case, mishaps=Script(Rule("snapshot", mishap)))


def test_too_many_requests_are_said_with_the_time_to_wait() -> None:
    """429 is asked once and not again, and comes out as RateLimitedError."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(RateLimitedError) as caught:
            await venue.snapshot()
        assert caught.value.retry_after == 0.5
        with pytest.raises(RateLimitedError):
            await venue.submit(sale())
        assert (wire.calls("snapshot"), wire.calls("submit")) == (1, 1)

    run(case, mishaps=Script(Rule("snapshot", "limited"), Rule("submit", "limited")))


def test_a_blocked_account_takes_cancels_only() -> None:
    """The state of every market says so, and the reason says what bars it."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.account_flags = {"trading_blocked": True}
        seen = await venue.snapshot()
        assert {it.state for it in seen.instruments or ()} == {"cancel_only"}
        assert seen.reason == "trading is blocked at Alpaca"
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale())
        assert caught.value.reason == "permission"

    run(case)


def test_wrong_keys_are_said_and_not_shown() -> None:
    """401 is a venue that is down for readers and a refused order for orders; neither says the key."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        assert seen.quality == "down"
        assert "request is not authorized" in (seen.reason or "")
        with pytest.raises(VenueDownError):
            await venue.inspect()
        with pytest.raises(VenueDownError) as caught:
            await venue.submit(sale())  # the clock is asked first
        for text in (seen.reason or "", str(caught.value)):
            assert "PLANTED" not in text
            assert "another" not in text

    run(case, secret="another")


# Orders


def test_a_market_order_of_shares_says_what_it_is_for() -> None:
    """It goes for the day with sell_to_close, and Alpaca refuses to open a short with it once nothing is held."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        report = await venue.submit(sale())
        assert (report.state, report.filled, report.average_price, report.fee) == ("filled", 10, 100, None)
        assert wire.bodies == [{
            "symbol": AAPL, "qty": "10", "side": "sell", "type": "market", "time_in_force": "day",
            "client_order_id": "ks1", "position_intent": "sell_to_close",
        }]  # fmt: skip
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale(client_order_id="ks2"))
        assert caught.value.reason == "already_flat"
        assert (AAPL, "short") not in wire.exchange.held

    run(case)


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (sale("0.5", BTC), {"type": "market", "time_in_force": "ioc"}),
        (sale("0.1", BTC, type="limit", price=D("51000.5")), {"time_in_force": "gtc", "limit_price": "51000.5"}),
        (sale("0.123456789"), {"qty": "0.123456789", "time_in_force": "day"}),
        (sale("3", type="limit", price=D("99.5")), {"type": "limit", "time_in_force": "gtc", "limit_price": "99.5"}),
        (sale("3", type="limit", price=D("99.5"), time_in_force="ioc"), {"time_in_force": "ioc"}),
        (sale("3", trigger_price=D(80), trigger_when="falls"), {"type": "stop", "stop_price": "80"}),
        (
            sale("3", trigger_price=D(80), trigger_when="falls", type="limit", price=D(79)),
            {"type": "stop_limit", "stop_price": "80", "limit_price": "79", "time_in_force": "gtc"},
        ),
        (
            sale("4", SPY, side="buy", position_side="short"),
            {"side": "buy", "position_intent": "buy_to_close", "qty": "4"},
        ),
        (sale("2", side="buy", position_side="long"), {"position_intent": "buy_to_open"}),
    ],
)
def test_every_kind_of_order_is_taken_as_meant(request_: OrderRequest, wanted: dict[str, str]) -> None:
    """Type, time in force and exact numbers as Alpaca's documents want them, by asset and by size."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.exchange.trade(("AAPL", "long"), D("0.5"))
        if request_.side == "buy" and request_.position_side == "long":
            wire.exchange.trade(("AAPL", "long"), D("-10.5"))
        report = await venue.submit(request_)
        assert report.client_order_id == "ks1"
        (body,) = wire.bodies
        assert body.items() >= wanted.items()
        if request_.symbol == BTC:
            assert "position_intent" not in body

    run(case)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (sale("0.1", BTC, trigger_price=D(40_000), trigger_when="falls"), "only with a limit price"),
        (sale("3", trigger_price=D(80), trigger_when="rises"), "nothing else"),
        (sale("0.5", type="limit", price=D(99), time_in_force="ioc"), "fractions of shares"),
    ],
)
def test_what_alpaca_has_no_order_for_is_refused_before_it_is_sent(request_: OrderRequest, why: str) -> None:
    """The reason says what is not to be had, and nothing arrives."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(OrderRejectedError, match=why) as caught:
            await venue.submit(request_)
        assert caught.value.reason == "other"
        assert wire.bodies == []

    run(case)


def test_shares_that_a_resting_order_holds_are_blocked_by_it() -> None:
    """A stop over all ten shares leaves none to sell: blocked_by_order; once it is cancelled they are sold."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.exchange.rest(AAPL, "sell", D(10), trigger_price=D(80), trigger_when="falls")
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale())
        assert caught.value.reason == "blocked_by_order"
        (stop,) = await venue.open_orders()
        await venue.cancel(AAPL, stop.id)
        await venue.cancel(AAPL, stop.id)
        await venue.cancel(AAPL, "00000000-0000-4000-8000-000000000000")
        assert (await venue.submit(sale())).filled == 10

    run(case)


@pytest.mark.parametrize("mishap", ["done", "done_silent", "garbled", "nonsense"])
def test_an_order_that_was_taken_without_a_good_answer_is_found_and_never_sent_again(mishap: Any) -> None:
    """The adapter says that it does not know; asked by name, Alpaca has the one order."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises((FateUnknownError, MalformedAnswerError)):
            await venue.submit(sale())
        assert wire.calls("submit") == 1
        found = await venue.find_order(AAPL, "ks1")
        assert found is not None
        assert (found.state, found.filled) == ("filled", 10)
        assert [(f.amount, f.price) for f in await venue.fills(AAPL, "ks1")] == [(10, 100)]
        assert len(wire.exchange.orders) == 1

    run(case, mishaps=Script(Rule("submit", mishap)))


@pytest.mark.parametrize("mishap", ["lost", "silent", "down"])
def test_an_order_that_never_arrived_is_of_unknown_fate_until_alpaca_denies_it(mishap: Any) -> None:
    """A broken connection, a missing answer and a 503 do not say that nothing was done; the question does."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(FateUnknownError):
            await venue.submit(sale())
        assert wire.calls("submit") == 1
        assert await venue.find_order(AAPL, "ks1") is None
        assert await venue.fills(AAPL, "ks1") == ()

    run(case, mishaps=Script(Rule("submit", mishap)))


def test_where_nobody_listens_surely_nothing_was_done() -> None:
    """A connection that is not made is VenueDownError for orders, too."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        await wire.stop()
        venue._client._trading._session.close()
        with pytest.raises(VenueDownError, match="cannot be reached"):
            await venue.submit(sale())

    run(case)


def test_the_same_name_twice_is_told_as_such() -> None:
    """422 with 40010001 is duplicate_client_order_id: the first one stands."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.submit(sale("3"))
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale("3"))
        assert caught.value.reason == "duplicate_client_order_id"

    run(case)


def test_any_other_404_is_no_denial() -> None:
    """Only Alpaca's own words for an order that is not there deny it; a wrong address is a venue that is down."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.answer = lambda ask: (_ for _ in ()).throw(NotImplementedError)  # type: ignore[method-assign]
        with pytest.raises(VenueDownError):
            await venue.find_order(AAPL, "ks1")
        wire.refusals.clear()

    run(case)


# Hours


def test_outside_hours_nothing_is_sent_unless_the_account_says_how() -> None:
    """Without outside_hours a close is refused with the time of the opening, and coins are sold all the same."""

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
    """It rests for the night as a market order for the day, and fills at the opening; a limit order is not queued."""

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
    """A sale without a price is bounded by 1% below the bid of 99.90: 98.901, on the tick and never beyond: 98.91."""

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
        with pytest.raises(OrderRejectedError, match="immediate-or-cancel"):
            await venue.submit(sale(client_order_id="ks2", type="limit", price=D(99), time_in_force="ioc"))

    run(case, start=EVENING, outside_hours="extended")


def test_when_the_extended_session_is_over_too_the_next_one_is_named() -> None:
    """At 21:00 in New York the next session begins at 04:00: 08:00 UTC."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(OrderRejectedError, match="closed until 2021-05-20 08:00 UTC; the extended session is over"):
            await venue.submit(sale())
        assert wire.bodies == []

    run(case, start=NIGHT, outside_hours="extended")


def test_the_state_of_a_market_turns_with_the_opening() -> None:
    """Halted before 13:30 UTC, open after it, without another look at the clock."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        before = await venue.snapshot()
        await asyncio.sleep(20)
        after = await venue.snapshot()
        told = [{it.symbol: it.state for it in seen.instruments or ()} for seen in (before, after)]
        assert [states.get(AAPL) for states in told] == ["halted", "open"]
        assert sum(it.ask.path == "/v2/clock" for it in wire.seen) == 1

    run(case, start=datetime(2021, 5, 19, 13, 29, 50, tzinfo=REGULAR.tzinfo))


def test_an_old_clock_says_nothing() -> None:
    """Two hours after the last time that it could be read the state of shares is unknown, that of coins is not."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire._clock = lambda: {"timestamp": "noon"}  # type: ignore[method-assign]
        await asyncio.sleep(1800)
        assert (await venue.snapshot()).instruments is None
        await asyncio.sleep(5400)
        seen = await venue.snapshot()
        assert {it.symbol: it.state for it in seen.instruments or ()} == {AAPL: None, SPY: None}
        assert "the clock" in (seen.reason or "")

    run(case)


def test_without_a_clock_no_share_is_sold() -> None:
    """Whether the market is open is not guessed: VenueDownError, and nothing was sent."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire._clock = lambda: {"timestamp": "noon"}  # type: ignore[method-assign]
        seen = await venue.snapshot()
        assert {it.symbol: it.state for it in seen.instruments or ()}[AAPL] is None
        with pytest.raises(VenueDownError, match="nothing was sent"):
            await venue.submit(sale())
        assert wire.bodies == []

    run(case)


# Everything else


def test_suspending_makes_the_broker_refuse_every_order() -> None:
    """Ours too: permission; the snapshot says why, and lifting it lets orders in again."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.suspend_trading(True)
        assert wire.configuration["suspend_trade"] is True
        assert wire.configuration["pdt_check"] == "entry"
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale())
        assert caught.value.reason == "permission"
        assert "suspend_trade" in ((await venue.snapshot()).reason or "")
        await venue.suspend_trading(False)
        assert (await venue.submit(sale())).filled == 10

    run(case)


def test_inspecting_says_what_the_account_may_do() -> None:
    """Status, clock, hours and configuration, and that Alpaca does not tell what a key may do."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.configuration["no_shorting"] = True
        found = await venue.inspect()
        assert (found.status, found.clock_skew_ms, found.position_mode) == ("ok", 0.0, "one_way")
        assert (found.rights.read, found.rights.trade, found.rights.withdraw) == (True, None, None)
        assert any("open until 2021-05-19 20:00 UTC" in note for note in found.notes)
        assert any("no_shorting" in note for note in found.notes)
        wire.account_flags = {"status": "ACCOUNT_UPDATED"}
        passing = await venue.inspect()
        assert passing.status == "ok"
        assert any("ACCOUNT_UPDATED" in note for note in passing.notes)
        wire.account_flags = {"account_blocked": True, "status": "ACCOUNT_CLOSED"}
        blocked = await venue.inspect()
        assert (blocked.status, blocked.rights.trade) == ("account_closed", False)

    run(case)


def test_the_stream_tells_of_orders_and_fills_and_has_the_parts_read_again() -> None:
    """A fill is `positions`, a new order `orders`; the next snapshot reads the orders before their time has come."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        heard: list[Push] = []
        listening = asyncio.create_task(venue.listen(heard.append))
        await venue.snapshot()
        await asyncio.sleep(0.5)
        assert heard == [Push("alive")]
        await venue.snapshot()
        wire.exchange.place(sale("1", client_order_id="theirs"), by="hand")
        wire.exchange.rest(AAPL, "sell", D(2), type="limit", price=D(130))
        wire.exchange._changed()
        await asyncio.sleep(0.5)
        assert [push.kind for push in heard] == ["alive", "positions", "orders"]
        seen = await venue.snapshot()
        assert len(seen.orders or ()) == 1
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    run(case)


def test_a_stream_without_a_sign_of_life_is_lost_and_connected_anew() -> None:
    """Twenty seconds of silence after a ping: lost, with the reason, and soon alive again."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        heard: list[Push] = []
        wire.mute = True
        listening = asyncio.create_task(venue.listen(heard.append))
        await asyncio.sleep(19)
        assert [push.kind for push in heard] == ["alive"]
        wire.mute = False
        await asyncio.sleep(15)
        assert [push.kind for push in heard][:3] == ["alive", "lost", "alive"]
        assert "no sign of life" in (heard[1].why or "")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    run(case)


def test_refused_keys_end_the_listening() -> None:
    """Connecting anew with them will never work."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(VenueDownError, match="refuses the keys"):
            await venue.listen(lambda _: None)

    run(case, secret="another")


def test_many_assets_are_asked_for_in_one_request() -> None:
    """Thirty symbols are not thirty requests."""
    names = [f"S{number}" for number in range(30)]

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        seen = await venue.snapshot()
        assert len(seen.instruments or ()) == 30
        assert len(wire.seen) <= 7

    run(case, held={(name, "long"): D(10) for name in names}, markets=tuple(Market(name) for name in names))


def test_bars_of_coins_need_no_keys_and_come_oldest_first() -> None:
    """From the time asked for, as many as asked for, in milliseconds and exact numbers."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.revoked = True
        wire.bars[BTC] = [
            {"t": f"2021-05-19T00:0{minute}:00Z", "o": 1.1, "h": 2, "l": 0.1, "c": 1.3, "v": 7.25, "n": 3, "vw": 1.2}
            for minute in range(5)
        ]
        history = family.history("alpaca", wire.address)
        assert history is not None
        since = int(datetime(2021, 5, 19, 0, 2, tzinfo=REGULAR.tzinfo).timestamp() * 1000)
        found = await history.bars(BTC, "1m", since, 2)
        numbers = (D("1.1"), D(2), D("0.1"), D("1.3"), D("7.25"))
        assert found == [Bar(since, *numbers), Bar(since + 60_000, *numbers)]
        assert await history.bars(BTC, "1m", since + 3_600_000) == []
        await history.close()

    run(case)


def test_bars_of_stocks_are_asked_for_with_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Good keys get bars; others are told so, without being shown."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.bars[AAPL] = [{"t": "2021-05-19T00:00:00Z", "o": 1, "h": 2, "l": 1, "c": 2, "v": 7}]
        monkeypatch.setenv("APCA_API_KEY_ID", KEY)
        monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
        history = family.history("alpaca", wire.address)
        assert history is not None
        assert len(await history.bars(AAPL, "1d", 0)) == 1
        wire.revoked = True
        with pytest.raises(VenueDownError, match="not authorized") as caught:
            await history.bars(AAPL, "1d", 0)
        assert "PLANTED" not in str(caught.value)
        await history.close()

    run(case)


def test_a_page_full_of_trades_is_followed_by_the_next() -> None:
    """Of 130 trades between two readings none is lost."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        for number in range(130):
            await asyncio.sleep(0.01)
            wire.exchange.place(sale("0.01", client_order_id=f"theirs{number}"), by="hand")
        await asyncio.sleep(61)
        seen = await venue.snapshot()
        assert len({fill.id for fill in seen.fills or ()}) == 130

    run(case)


def test_orders_of_a_long_list_are_read_page_by_page() -> None:
    """1,100 open orders are three answers."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for number in range(1100):
            order = wire.exchange.rest(AAPL, "buy", D(1), type="limit", price=D(50))
            wire.placed_at[order] = REGULAR - timedelta(seconds=number)
        assert len(await venue.open_orders()) == 1100
        assert wire.calls("open_orders") == 3

    run(case)


def test_requests_of_one_account_go_side_by_side_and_orders_never_wait_for_readings() -> None:
    """Four readings that hang leave an order its way."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        wire.mishaps = Script(Rule("find_order", "silent", times=4))
        hanging = [asyncio.create_task(venue.find_order(AAPL, f"ks{number}")) for number in range(4)]
        await asyncio.sleep(0)
        report = await venue.submit(sale())
        assert report.state == "filled"
        assert not any(each.done() for each in hanging)
        found = await asyncio.gather(*hanging, return_exceptions=True)
        assert all(isinstance(each, VenueDownError) for each in found)

    run(case)
