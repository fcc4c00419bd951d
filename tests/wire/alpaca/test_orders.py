"""Orders at Alpaca on loopback: each is accepted once, and as meant."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderRequest,
    VenueDownError,
)
from killswitch_alpaca.venue import AlpacaVenue
from tests.faults.mishaps import Rule, Script
from tests.wire.alpaca.scene import AAPL, BTC, SPY, run, sale
from tests.wire.alpaca.venue import AlpacaWire

D = Decimal


def test_a_market_order_of_shares_states_its_position_intent() -> None:
    """A day order with sell_to_close; Alpaca refuses to open a short with it once nothing is held."""

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
    ("request_", "expected"),
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
def test_every_kind_of_order_is_sent_as_documented(request_: OrderRequest, expected: dict[str, str]) -> None:
    """Type, time in force and exact numbers as Alpaca's documents require, by asset and by size."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.exchange.trade(("AAPL", "long"), D("0.5"))
        if request_.side == "buy" and request_.position_side == "long":
            wire.exchange.trade(("AAPL", "long"), D("-10.5"))
        report = await venue.submit(request_)
        assert report.client_order_id == "ks1"
        (body,) = wire.bodies
        assert body.items() >= expected.items()
        if request_.symbol == BTC:
            assert "position_intent" not in body

    run(case)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (sale("0.1", BTC, trigger_price=D(40_000), trigger_when="falls"), "only with a limit price"),
        (sale("3", trigger_price=D(80), trigger_when="rises"), "buy on a rising one"),
        (sale("0.5", type="limit", price=D(99), time_in_force="ioc"), "fractional shares"),
    ],
)
def test_an_order_that_alpaca_does_not_support_is_refused_before_it_is_sent(request_: OrderRequest, why: str) -> None:
    """The reason names what is not supported, and nothing is sent."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(OrderRejectedError, match=why) as caught:
            await venue.submit(request_)
        assert caught.value.reason == "other"
        assert wire.bodies == []

    run(case)


def test_a_resting_order_blocks_the_shares_that_it_reserves() -> None:
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
def test_an_accepted_order_without_a_valid_answer_is_found_and_never_sent_again(mishap: Any) -> None:
    """The adapter reports an unknown status; queried by client order id, Alpaca has the one order."""

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
def test_an_order_that_never_arrived_has_unknown_status_until_alpaca_denies_it(mishap: Any) -> None:
    """A broken connection, a missing answer and a 503 do not prove that nothing was done; the query does."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        with pytest.raises(FateUnknownError):
            await venue.submit(sale())
        assert wire.calls("submit") == 1
        assert await venue.find_order(AAPL, "ks1") is None
        assert await venue.fills(AAPL, "ks1") == ()

    run(case, mishaps=Script(Rule("submit", mishap)))


def test_a_refused_connection_means_that_no_order_was_sent() -> None:
    """A connection that is not made is VenueDownError for orders, too."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        await wire.stop()
        await asyncio.sleep(1)  # until the connection's end is noticed
        with pytest.raises(VenueDownError, match="refused the connection"):
            await venue.submit(sale())

    run(case)


def test_a_repeated_client_order_id_is_rejected_as_a_duplicate() -> None:
    """422 with 40010001 is duplicate_client_order_id: the first order stays."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.submit(sale("3"))
        with pytest.raises(OrderRejectedError) as caught:
            await venue.submit(sale("3"))
        assert caught.value.reason == "duplicate_client_order_id"

    run(case)


def test_any_other_404_does_not_deny_an_order() -> None:
    """Only Alpaca's own message for a missing order denies it; a wrong address is a venue that is down."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        wire.answer = lambda ask: (_ for _ in ()).throw(NotImplementedError)  # type: ignore[method-assign]  # a server without the path
        with pytest.raises(VenueDownError):
            await venue.find_order(AAPL, "ks1")
        wire.refusals.clear()

    run(case)
