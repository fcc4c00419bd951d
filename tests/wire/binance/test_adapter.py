"""Our adapter and Binance's USD-M futures on loopback, with the real client between them, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import (
    AccountSpec,
    CredentialsRefusedError,
    OrderRejectedError,
    OrderRequest,
    Push,
    RateLimitedError,
    VenueDownError,
)
from killswitch.ratelimit.budget import RequestBudgets
from killswitch_ccxt import adapter
from killswitch_ccxt.venue import CcxtVenue
from tests.faults.exchange import Exchange, Key, Mode
from tests.faults.scene import Scene, long
from tests.virtual_time import VirtualTime
from tests.wire.adapter_wire import closing_over
from tests.wire.binance.venue import BinanceWire
from tests.wire.server import KEY, SECRET

D = Decimal
BTC: Key = ("BTC", "long")
SYMBOL = "BTC/USDT:USDT"
MANY = dict.fromkeys(long(*(f"S{number}" for number in range(60))), 10)
Scenario = Callable[[BinanceWire, CcxtVenue], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario, *, mode: Mode = "one_way", book: dict[Key, int] | None = None, secret: str = SECRET
) -> None:
    """Run a scenario; a request for a missing route fails it."""
    time = VirtualTime()

    async def main() -> None:
        held = {key: D(amount) for key, amount in (book or {BTC: 10}).items()}
        wire = BinanceWire(Exchange(held, lambda: (time.elapsed, time.now()), mode=mode), latency=0.02)
        await wire.start()
        venue = adapter(
            AccountSpec(
                "main", "ccxt", "swap", "USDT", wire.address, {"clock": time}, {"key": KEY, "secret": secret},
                exchange="binanceusdm", endpoint_ws=wire.address_ws,
            )
        )  # fmt: skip
        assert isinstance(venue, CcxtVenue)
        try:
            await scenario(wire, venue)
        finally:
            await venue.close()
            await wire.stop()
        assert wire.refusals == []

    time.run(main())


def order(name: str, amount: int = 1, **more: Any) -> OrderRequest:
    return OrderRequest(name, SYMBOL, "sell", "long", D(amount), reduce_only=True, **more)


def test_a_snapshot_each_second_leaves_half_of_the_address_weight() -> None:
    """60 positions: less than 1000 of 2400 in the second minute, by the documented weights."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        for _ in range(120):
            assert (await venue.snapshot()).quality == "ok"
            await asyncio.sleep(1.0)
        in_a_minute = wire.taken(since=60.0)["weight"]
        assert in_a_minute < 1000
        # The declared weight is no less than the used one.
        declared = sum(cost.units for cost in venue.traits.costs if (cost.call, cost.limit) == ("snapshot", "weight"))
        polls = sum("positionRisk" in it.ask.path for it in wire.seen if it.at >= 60.0)
        assert in_a_minute <= declared * polls

    play(scenario, book=dict(MANY))


def test_sixty_positions_are_closed_within_the_documented_limits() -> None:
    """The venue enforces them, the close keeps to its half of them: nothing is refused."""
    with closing_over("binanceusdm"):
        traits = adapter(AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="binanceusdm")).traits
        budget = RequestBudgets().of("main", "binance", traits, D("0.5"))
        scene = Scene(MANY, traits=traits, closing={"budget": budget})
        scene.decide(dict.fromkeys(MANY, 0))
        assert scene.play() == {"d1": "flat"}
        assert scene.wire.server.taken()["orders-1m"] == 60
        assert scene.wire.server.taken()["weight"] < 1200


def test_the_stream_pushes_orders_and_foreign_trades() -> None:
    """An order of ours, and a foreign trade."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        pushes: list[Push] = []
        listener = asyncio.ensure_future(venue.listen(pushes.append))
        await asyncio.sleep(2.0)
        await venue.submit(order("ks1"))
        await asyncio.sleep(1.0)
        assert {it.kind for it in pushes} >= {"orders", "positions"}
        pushes.clear()
        wire.exchange.trade(BTC, D(-2))
        await asyncio.sleep(1.0)
        assert [it.kind for it in pushes] == ["positions"]
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    play(scenario)


def test_the_dead_man_timer_cancels_resting_orders_unless_it_is_armed_again() -> None:
    """Armed for 10 s, again after 8; it fires after 10 more; disarmed, nothing happens."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        wire.exchange.rest("BTC", "buy", D(1), type="limit", price=D(50))
        await venue.dead_man.arm(10.0, [SYMBOL])
        await asyncio.sleep(8.0)
        await venue.dead_man.arm(10.0, [SYMBOL])
        await asyncio.sleep(9.0)
        assert len(await venue.open_orders()) == 1
        await asyncio.sleep(2.0)
        assert await venue.open_orders() == ()
        wire.exchange.rest("BTC", "buy", D(1), type="limit", price=D(50))
        await venue.dead_man.arm(5.0, [SYMBOL])
        await venue.dead_man.disarm([SYMBOL])
        await asyncio.sleep(30.0)
        assert len(await venue.open_orders()) == 1

    play(scenario)


def test_a_triggered_stop_and_its_fill_are_found_by_client_order_id() -> None:
    """The venue gives the order of a triggered stop a new id; our client order id still finds it."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        sent = await venue.submit(order("stop", 4, trigger_price=D(90), trigger_when="falls"))
        assert (sent.state, wire.exchange.held[BTC]) == ("open", D(10))
        assert [(it.id, it.trigger_price) for it in await venue.open_orders()] == [(sent.id, D(90))]
        wire.exchange.reprice("BTC", D(89))
        found = await venue.find_order(SYMBOL, "stop")
        assert found is not None
        assert (found.state, found.filled, found.client_order_id) == ("filled", D(4), "stop")
        assert [fill.amount for fill in await venue.fills(SYMBOL, "stop")] == [D(4)]
        await venue.cancel(SYMBOL, sent.id)
        assert await venue.find_order(SYMBOL, "never") is None

    play(scenario)


def test_in_hedge_mode_each_side_is_closed_by_position_side() -> None:
    """The adapter knows the mode before the first order; closing more than is held is refused."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        both = [order("a", 4), OrderRequest("b", SYMBOL, "buy", "short", D(6), reduce_only=True)]
        reports = await venue.batches.submit(both)
        assert [getattr(it, "filled", it) for it in reports] == [D(4), D(6)]
        assert wire.exchange.held == {BTC: D(6), ("BTC", "short"): D(0)}
        assert next(it.ask.path for it in wire.seen if it.ask.path.startswith("/fapi/v1/a")).endswith("accountConfig")
        with pytest.raises(OrderRejectedError) as refused:
            await venue.submit(OrderRequest("c", SYMBOL, "buy", "short", D(1), reduce_only=True))
        assert refused.value.reason == "already_flat"

    play(scenario, mode="hedge", book={BTC: 10, ("BTC", "short"): 6})


def test_bad_credentials_bans_and_maintenance_are_distinguished() -> None:
    """A wrong secret raises CredentialsRefusedError with its reason; a ban is a rate limit error."""

    async def wrong(wire: BinanceWire, venue: CcxtVenue) -> None:
        with pytest.raises(CredentialsRefusedError, match="Signature for this request is not valid") as caught:
            await venue.snapshot()
        assert SECRET not in str(caught.value)
        assert "OTHER-PLANTED" not in str(caught.value)

    async def banned(wire: BinanceWire, venue: CcxtVenue) -> None:
        await venue.snapshot()
        wire.answer_next("POST /fapi/v1/order", -1003, "Way too many requests; IP banned", 418)
        with pytest.raises(RateLimitedError):
            await venue.submit(order("a"))
        wire.maintenance = True
        with pytest.raises(VenueDownError):
            await venue.submit(order("b"))
        assert wire.exchange.held[BTC] == 10

    play(wrong, secret="OTHER-PLANTED")
    play(banned)


def test_liquidations_and_deleveragings_are_reported_with_their_cause() -> None:
    """Deleveraging and liquidation, from the venue's own list of forced orders."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        await venue.snapshot()
        wire.exchange.take_away(BTC, D(2), "adl")
        wire.exchange.take_away(BTC, D(3), "liquidation")
        await asyncio.sleep(10.0)  # lists are read no more often, whatever changes
        found = await venue.snapshot()
        assert [(fill.amount, fill.cause) for fill in found.fills or ()] == [(D(2), "adl"), (D(3), "liquidation")]

    play(scenario)


def test_an_inspection_reports_rights_and_clock() -> None:
    """The account's key may read and trade, and not withdraw; the clocks agree."""

    async def scenario(wire: BinanceWire, venue: CcxtVenue) -> None:
        found = await venue.inspect()
        assert (found.status, found.position_mode, found.notes) == ("ok", "one_way", ())
        assert (found.rights.read, found.rights.trade, found.rights.withdraw) == (True, True, False)
        assert found.clock_skew_ms is not None
        assert abs(found.clock_skew_ms) <= 20

    play(scenario)
