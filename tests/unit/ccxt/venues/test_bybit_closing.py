"""Bybit from a decision to a flat account over its wire, and its dead-man timer, streams and settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from killswitch.model.venue import FateUnknownError, OrderRequest, Push, VenueDownError
from tests.faults.exchange import Market
from tests.faults.mishaps import Rule
from tests.wire.bybit.desk import Desk
from tests.wire.bybit.venue import BybitWire

D = Decimal
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
COIN = "BTC/USD:BTC"
STOP = OrderRequest("stop", BTC, "sell", "long", D("0.1"), reduce_only=True, trigger_price=D(90), trigger_when="falls")


def _try(desk: Desk, trial: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        async with desk.open():
            await trial(desk)

    desk.time.run(main())


def test_a_level_three_close_leaves_nothing_and_batches_what_it_sends() -> None:
    """Thirty positions, long and short, linear and inverse: flat, in batches of at most ten, and none rejected."""
    held = {(f"S{n}/USDT:USDT", "long" if n % 2 else "short"): "2" for n in range(28)}
    held |= {(BTC, "long"): "0.5", (COIN, "short"): "100"}
    desk = Desk("bybit", BybitWire, held, enforced=True)  # type: ignore[arg-type] # sides

    async def trial(desk: Desk) -> None:
        assert await desk.close_all() == "flat"
        assert not any(desk.exchange.held.values())
        assert desk.exchange.turned == []
        batches = [it.ask for it in desk.wire.seen if it.ask.path == "/v5/order/create-batch"]
        assert max(len(it.params["request"]) for it in batches) <= 10
        assert {it.params["category"] for it in batches} == {"linear", "inverse"} or len(batches) >= 3

    _try(desk, trial)


@pytest.mark.parametrize("mishap", ["done", "done_silent", "garbled", "lost", "limited", "down"])
def test_an_order_whose_answer_is_lost_is_queried_and_never_sent_twice(mishap: str) -> None:
    """Whatever happened to the request, exactly the held amount is closed."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "0.5"}, Rule("submit", mishap))  # type: ignore[arg-type] # a mishap

    async def trial(desk: Desk) -> None:
        assert await desk.close_all() == "flat"
        closed = [it for it in desk.exchange.deeds if it.actor == "ours"]
        assert sum(it.closed for it in closed) == D("0.5")
        assert desk.exchange.turned == []

    _try(desk, trial)


def test_a_timeout_after_acceptance_is_an_unknown_status_resolved_by_the_client_id() -> None:
    """Without an answer the status is unknown; the order is found by its client id, filled."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "0.5"}, Rule("submit", "done_silent"))

    async def trial(desk: Desk) -> None:
        order = OrderRequest("ks1", BTC, "sell", "long", D("0.5"), reduce_only=True)
        with pytest.raises(FateUnknownError):
            await desk.venue.submit(order)
        found = await desk.venue.find_order(BTC, "ks1")
        assert (found.state, found.filled) == ("filled", D("0.5"))
        assert await desk.venue.find_order(BTC, "ks2") is None

    _try(desk, trial)


def test_in_hedge_mode_each_side_is_closed_by_its_own_order() -> None:
    """Both sides of one symbol are closed; orders name the position and are also reduce-only."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "0.5", (BTC, "short"): "0.2"}, mode="hedge")

    async def trial(desk: Desk) -> None:
        seen = await desk.venue.snapshot()
        assert seen.position_mode == "hedge"
        assert await desk.close_all() == "flat"
        assert not any(desk.exchange.held.values())
        sent = [row for it in desk.wire.seen for row in it.ask.params.get("request", [it.ask.params]) if "qty" in row]
        assert {(it["side"], it["positionIdx"], it["reduceOnly"]) for it in sent} == {
            ("Sell", 1, True),
            ("Buy", 2, True),
        }

    _try(desk, trial)


def test_the_mode_of_a_flat_account_is_read_from_a_symbol() -> None:
    """Without positions a flat row states it: two rows with an index each mean hedge mode."""
    desk = Desk("bybit", BybitWire, {}, mode="hedge", markets=(Market(BTC),))

    async def trial(desk: Desk) -> None:
        assert (await desk.venue.snapshot()).position_mode == "hedge"

    _try(desk, trial)


def test_a_snapshot_includes_inverse_and_usdc_positions() -> None:
    """One unified account holds them all, and its equity is that of all of them."""
    desk = Desk("bybit", BybitWire, {(COIN, "long"): "100", ("ETH/USDC:USDC", "short"): "3", (BTC, "long"): "1"})

    async def trial(desk: Desk) -> None:
        seen = await desk.venue.snapshot()
        assert {it.symbol for it in seen.positions} == {COIN, "ETH/USDC:USDC", BTC}

    _try(desk, trial)


def test_stops_are_triggered_by_the_mark_and_cancelled_once() -> None:
    """They are shown as conditional; a second cancel of one that is gone is no error."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "0.5"})

    async def trial(desk: Desk) -> None:
        await desk.venue.submit(STOP)
        sent = next(it.ask.params for it in desk.wire.seen if it.ask.path == "/v5/order/create")
        assert (sent["triggerBy"], sent["triggerDirection"], sent["triggerPrice"]) == ("MarkPrice", 2, "90")
        (order,) = await desk.venue.open_orders()
        assert (order.trigger_price, order.reduce_only, order.client_order_id) == (D(90), True, "stop")
        await desk.venue.cancel(BTC, order.id)
        await desk.venue.cancel(BTC, order.id)
        assert await desk.venue.open_orders() == ()

    _try(desk, trial)


# The dead-man timer


def _armed(**more: object) -> Desk:
    return Desk("bybit", BybitWire, {(BTC, "long"): "0.5"}, streams=True, **more)  # type: ignore[arg-type] # for the wire


def test_the_timer_fires_when_it_is_not_renewed() -> None:
    """Renewed in time nothing happens; without renewal the orders are cancelled after twenty seconds."""

    async def trial(desk: Desk) -> None:
        await desk.venue.submit(STOP)
        await desk.venue.dead_man.arm(20.0, ())
        assert desk.wire.windows == {"DERIVATIVES": 10}
        for _ in range(5):
            await asyncio.sleep(8.0)
            await desk.venue.dead_man.arm(20.0, ())
        assert len(desk.exchange.resting()) == 1
        await asyncio.sleep(19.0)
        assert len(desk.exchange.resting()) == 1
        await asyncio.sleep(2.0)
        assert desk.exchange.resting() == ()

    _try(_armed(), trial)


def test_the_timer_survives_a_short_loss_of_the_stream() -> None:
    """A broken connection is re-established within the venue's window, and nothing is cancelled."""

    async def trial(desk: Desk) -> None:
        await desk.venue.submit(STOP)
        await desk.venue.dead_man.arm(20.0, ())
        for socket in list(desk.wire.sockets):
            await socket.close()
        await asyncio.sleep(8.0)
        assert desk.wire.streams.protected == 1
        await desk.venue.dead_man.arm(20.0, ())
        await asyncio.sleep(9.0)
        assert len(desk.exchange.resting()) == 1

    _try(_armed(), trial)


def test_disarming_unsubscribes_so_that_the_timer_does_not_fire() -> None:
    """After unsubscribing, the end of the stream has no effect; disarming twice is no error."""

    async def trial(desk: Desk) -> None:
        await desk.venue.submit(STOP)
        await desk.venue.dead_man.arm(20.0, ())
        await desk.venue.dead_man.disarm(())
        await desk.venue.dead_man.disarm(())
        await asyncio.sleep(60.0)
        assert (desk.wire.streams.protected, len(desk.exchange.resting())) == (0, 1)

    _try(_armed(), trial)


def test_disconnect_protection_that_bybit_has_disabled_is_reported() -> None:
    """No timer is armed that would never fire."""

    async def trial(desk: Desk) -> None:
        desk.wire.protects = False
        with pytest.raises(VenueDownError, match="client manager"):
            await desk.venue.dead_man.arm(20.0, ())

    _try(_armed(), trial)


# Streams


def test_a_position_that_changes_is_pushed() -> None:
    """Changes of positions and of the wallet are pushed at once."""

    async def trial(desk: Desk) -> None:
        heard: list[Push] = []
        listening = asyncio.ensure_future(desk.venue.listen(heard.append))
        await asyncio.sleep(3.0)
        assert {"position", "order", "wallet"} <= desk.wire.streams.topics
        desk.exchange.trade((BTC, "long"), D(1))
        await asyncio.sleep(1.0)
        assert {"positions", "balance"} <= {it.kind for it in heard}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert [it for it in heard if it.kind == "lost"] == []

    _try(_armed(), trial)


def test_inspection_reports_rights_mode_and_margin() -> None:
    """A key that trades and cannot withdraw; one-way, cross margin, a clock that agrees."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "0.5"})

    async def trial(desk: Desk) -> None:
        found = await desk.venue.inspect()
        assert (found.rights.trade, found.rights.withdraw, found.rights.bound_to_addresses) == (True, False, True)
        assert (found.status, found.position_mode, found.margin_mode, found.clock_skew_ms) == (
            "ok",
            "one_way",
            "cross",
            0,
        )
        assert found.notes == ()
        assert len(found.capabilities) == 22

    _try(desk, trial)


def test_the_maximum_amount_is_that_of_market_orders() -> None:
    """Bybit's maximum is lower for market orders than for limit orders; the instrument has the lower one."""
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "9"}, markets=(Market(BTC, maximum=D(4)),))

    async def trial(desk: Desk) -> None:
        rules = (await desk.venue.snapshot()).instruments
        assert [it.max_amount for it in rules if it.symbol == BTC] == [D(4)]
        assert await desk.close_all() == "flat"

    _try(desk, trial)


def test_spot_holdings_are_positions_and_are_sold() -> None:
    """Each coin except the currency is a position; fees of a sale are paid in the received currency."""
    desk = Desk("bybit", BybitWire, {("BTC/USDT", "long"): "0.5", ("ETH/USDT", "long"): "3"}, mode="spot")

    async def trial(desk: Desk) -> None:
        seen = await desk.venue.snapshot()
        assert (seen.equity, len(seen.positions)) == (D(100_000) + D(50) + D(300), 2)
        assert await desk.close_all() == "flat"
        assert not any(desk.exchange.held.values())
        (name, *_) = (it.name for it in desk.exchange.orders.values() if it.symbol == "BTC/USDT")
        assert {it.fee_currency for it in await desk.venue.fills("BTC/USDT", name)} == {"USDT"}

    _try(desk, trial)


def test_a_stop_at_spot_is_found_shown_and_cancelled() -> None:
    """At spot, conditional orders are stored separately."""
    desk = Desk("bybit", BybitWire, {("BTC/USDT", "long"): "0.5"}, mode="spot")
    stop = OrderRequest(
        "stop", "BTC/USDT", "sell", "long", D("0.1"), reduce_only=False, trigger_price=D(90), trigger_when="falls"
    )

    async def trial(desk: Desk) -> None:
        await desk.venue.submit(stop)
        (order,) = await desk.venue.open_orders()
        assert (order.trigger_price, order.client_order_id) == (D(90), "stop")
        assert (await desk.venue.find_order("BTC/USDT", "stop")).state == "open"
        await desk.venue.cancel("BTC/USDT", order.id)
        assert await desk.venue.open_orders() == ()

    _try(desk, trial)


def test_a_position_in_a_delisted_symbol_is_read_and_marked_as_delisted() -> None:
    """Its rules are requested by symbol: one such row does not hide the others."""
    markets = (Market(BTC, state="delisted"), Market(ETH))
    desk = Desk("bybit", BybitWire, {(BTC, "long"): "0.5", (ETH, "long"): "1"}, markets=markets)

    async def trial(desk: Desk) -> None:
        seen = await desk.venue.snapshot()
        assert {it.symbol for it in seen.positions} == {BTC, ETH}
        assert {it.symbol: it.state for it in seen.instruments} == {BTC: "delisted", ETH: "open"}

    _try(desk, trial)
