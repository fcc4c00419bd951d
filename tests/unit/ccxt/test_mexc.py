"""MEXC through the adapter, against the wire-level venue."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    OrderRejectedError,
    OrderRequest,
    RateLimitedError,
    VenueDownError,
)
from killswitch_ccxt import adapter
from killswitch_ccxt.errors import GoneError, as_venue_error
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.mexc_rows import CODES
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Rule
from tests.virtual_time import VirtualTime
from tests.wire.krakenfutures_desk import Account
from tests.wire.mexc import MexcWire
from tests.wire.server import KEY, SECRET

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
D = Decimal


def spec(address: str | None, time: VirtualTime | None = None, **more: Any) -> AccountSpec:
    options: dict[str, object] = {"timeout": 5, **more}
    if time is not None:
        options["clock"] = time
    keys = {"key": KEY, "secret": SECRET}
    return AccountSpec("main", "ccxt", "swap", "USDT", address, options, keys, exchange="mexc")


def account(*rules: Rule, mode: Any = "hedge", **more: Any) -> Account:
    """BTC 30 long at 100 (and 10 short in hedge mode), ETH 5 short at 10; sizes 0.0001 and 0.01."""
    held: dict[Key, Decimal] = {(BTC, "long"): D(30), (ETH, "short"): D(5)}
    if mode == "hedge":
        held[BTC, "short"] = D(10)

    def sized(venue: Any) -> None:
        venue.sizes = {BTC: D("0.0001"), ETH: D("0.01")}
        venue.exchange.resting_exits_block = True

    return Account(
        MexcWire, held, more.pop("spec", spec), mode=mode, rules=rules, change=sized,
        markets=[Market(it, price, step=D(1), minimum=D(1)) for it, price in ((BTC, D(100)), (ETH, D(10)))], **more,
    )  # fmt: skip


def order(name: str = "kswa1", symbol: str = BTC, side: Any = "sell", amount: str = "30", **more: Any) -> OrderRequest:
    position_side: Any = "long" if side == "sell" else "short"
    return OrderRequest(name, symbol, side, position_side, D(amount), reduce_only=True, **more)


def test_a_snapshot_counts_contracts_of_their_own_size() -> None:
    """30 contracts of 0.0001 BTC at 100 are worth 0.3; three lists bring what rests, a row with two stops is two."""
    desk = account()
    waits: dict[str, Any] = {"reduce_only": True, "trigger_price": D(90), "trigger_when": "falls"}
    desk.exchange.rest(BTC, "sell", D(7), reduce_only=True, price=D(120), type="limit")
    desk.exchange.rest(BTC, "sell", D(8), **waits)
    desk.venue.attached.add(desk.exchange.rest(BTC, "sell", D(9), **waits))
    seen = desk.run(lambda made, venue: made.snapshot())
    assert (seen.quality, seen.reason, seen.equity, seen.position_mode) == ("ok", None, 100_000, "hedge")
    held = {it.key: (it.contracts, it.mark_price, it.notional) for it in seen.positions}
    assert held == {
        (BTC, "long"): (30, 100, D("0.3")), (BTC, "short"): (10, 100, D("0.1")), (ETH, "short"): (5, 10, D("0.5")),
    }  # fmt: skip
    resting = {it.amount: (it.side, it.position_side, it.price, it.trigger_price, it.reduce_only) for it in seen.orders}
    assert resting == {
        7: ("sell", "long", 120, None, True), 8: ("sell", "long", None, 90, True), 9: ("sell", "long", None, 90, True),
    }  # fmt: skip
    rules = {it.symbol: (it.contract_size, it.amount_step, it.min_amount) for it in seen.instruments}
    assert rules == {BTC: (D("0.0001"), 1, 1), ETH: (D("0.01"), 1, 1)}
    assert desk.venue.refusals == []


def test_two_hundred_resting_orders_come_in_three_pages() -> None:
    """A page is a hundred rows, and a full one is followed by another."""
    desk = account(mode="one_way")
    for number in range(205):
        desk.exchange.rest(BTC, "buy", D(1), price=D(50) + number, type="limit")
    assert len(desk.run(lambda made, venue: made.open_orders())) == 205


def test_a_tick_of_one_second_stays_inside_every_limit() -> None:
    """A minute of snapshots, with the venue's limits enforced."""
    desk = account(enforced=True)

    async def deed(made: CcxtVenue, venue: Any) -> None:
        for _ in range(60):
            assert (await made.snapshot()).reason is None
            await asyncio.sleep(1)

    desk.run(deed)


@pytest.mark.parametrize(
    ("side", "position_side", "mode", "code"),
    [("sell", "long", "hedge", 4), ("buy", "short", "hedge", 2), ("sell", "long", "one_way", 4),
     ("buy", "short", "one_way", 2)],
)  # fmt: skip
def test_a_close_says_which_side_it_closes(side: Any, position_side: str, mode: str, code: int) -> None:
    """4 closes a long, 2 closes a short; in one-way mode reduce-only guards besides, and the mode is named."""
    desk = account(mode=mode)
    symbol, amount = (BTC, "30") if side == "sell" else (ETH, "5")
    desk.run(lambda made, venue: made.submit(order(symbol=symbol, side=side, amount=amount)))
    sent = next(it.ask.params for it in desk.venue.seen if it.call == "submit")
    assert (sent["side"], sent["type"], sent["positionMode"]) == (code, 5, 1 if mode == "hedge" else 2)
    assert sent.get("reduceOnly") is (True if mode == "one_way" else None)
    assert desk.exchange.held[symbol, position_side] == 0  # type: ignore[index] # a side
    assert desk.exchange.turned == []


def test_an_order_is_found_by_its_name_and_one_that_was_never_sent_is_not_there() -> None:
    """What is told when it is sent is only that it was taken."""

    async def deed(made: CcxtVenue, venue: Any) -> Any:
        told = await made.submit(order())
        return (
            told,
            await made.find_order(BTC, "kswa1"),
            await made.find_order(BTC, "kswa2"),
            await made.fills(BTC, "kswa1"),
        )

    told, found, never, fills = account().run(deed)
    assert (told.state, told.filled) == ("open", 0)
    assert (found.id, found.state, found.filled, found.average_price) == (told.id, "filled", 30, 100)
    assert found.fee == D("1.5")  # 30 at 100, and 0.05% of it
    assert never is None
    assert [(it.side, it.position_side, it.amount, it.fee_currency) for it in fills] == [("sell", "long", 30, "USDT")]


def test_a_stop_is_put_back_as_a_plan_order_and_known_by_what_it_says() -> None:
    """It waits for a fall of the fair price, rests for a week, and has no client id at the venue."""
    desk = account(Rule("submit", "done"))

    async def deed(made: CcxtVenue, venue: Any) -> Any:
        stop = order("kswstop", trigger_price=D(90), trigger_when="falls")
        with pytest.raises(FateUnknownError):
            await made.submit(stop)
        found = await made.find_order(BTC, "kswstop")
        assert found is not None
        (resting,) = await made.open_orders()
        await made.cancel(BTC, resting.id)
        return found, resting

    found, resting = desk.run(deed)
    assert (found.id, found.state, found.amount) == (resting.id, "open", 30)
    assert (resting.trigger_price, resting.reduce_only, resting.position_side) == (90, True, "long")
    sent = next(it.ask.params for it in desk.venue.seen if it.call == "submit")
    assert (sent["triggerType"], sent["trend"], sent["executeCycle"], sent["orderType"]) == (2, 2, 2, 5)
    assert not desk.exchange.resting()
    assert desk.exchange.held[BTC, "long"] == 30


def test_each_kind_of_order_is_cancelled_by_its_own_route() -> None:
    """And what is gone already is no error."""
    desk = account()
    waits: dict[str, Any] = {"reduce_only": True, "trigger_price": D(90), "trigger_when": "falls"}
    desk.exchange.rest(BTC, "sell", D(7), reduce_only=True, price=D(120), type="limit")
    desk.exchange.rest(BTC, "sell", D(8), **waits)
    desk.venue.attached.add(desk.exchange.rest(BTC, "sell", D(9), **waits))

    async def deed(made: CcxtVenue, venue: Any) -> None:
        for it in 2 * await made.open_orders():
            await made.cancel(BTC, it.id)

    desk.run(deed)
    assert not desk.exchange.resting()


def test_a_batch_tells_of_each_order_in_the_venues_codes() -> None:
    """A resting exit has frozen the long: 2008 says that an order is in the way."""
    desk = account()
    desk.exchange.rest(BTC, "sell", D(20), reduce_only=True, price=D(120), type="limit")

    async def deed(made: CcxtVenue, venue: Any) -> Any:
        batch: Any = made
        return await batch.submit_batch([order("a"), order("b", ETH, "buy", "5")])

    first, second = desk.run(deed)
    assert isinstance(first, OrderRejectedError)
    assert (first.reason, second.client_order_id, second.state) == ("blocked_by_order", "b", "open")


def test_closing_everything_in_one_request_is_a_choice() -> None:
    """It would close what settles in another currency too: only `close_all: true` offers it."""
    assert not hasattr(adapter(spec(None)), "close_book")
    desk = account(mode="one_way", spec=lambda address, time: spec(address, time, close_all=True))

    async def deed(made: CcxtVenue, venue: Any) -> None:
        await made.close_book()

    desk.run(deed)
    assert set(desk.exchange.held.values()) == {0}


def test_a_venue_that_does_not_tell_the_mode_sends_nothing() -> None:
    """Without the position mode no side is sure."""
    desk = account()

    async def deed(made: CcxtVenue, venue: Any) -> None:
        venue.exchange.mode = "one_way"
        made._client.ccxt.contractPrivateGetPositionPositionMode = nothing
        with pytest.raises(VenueDownError, match="position mode of the account is not known"):
            await made.submit(order())

    async def nothing(params: Any = None) -> Any:
        return {"success": True, "code": 0, "data": None}

    desk.run(deed)
    assert desk.venue.calls("submit") == 0


@pytest.mark.parametrize("mode", ["hedge", "one_way"])
@pytest.mark.parametrize("mishap", ["none", "done", "done_silent", "lost", "down", "limited", "late"])
def test_everything_is_closed_once(tmp_path: Path, mode: str, mishap: Any) -> None:
    """Both sides of a symbol in hedge mode too, and where the first order was taken and its answer is lost."""
    desk = account(Rule("submit", mishap), Rule("submit_batch", mishap), mode=mode)
    assert desk.close_all(tmp_path) == "flat"
    assert set(desk.exchange.held.values()) == {0}
    assert desk.exchange.turned == []


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("2009", OrderRejectedError, "already_flat"),
        ("2008", OrderRejectedError, "blocked_by_order"),
        ("2005", OrderRejectedError, "insufficient_margin"),
        ("2011", OrderRejectedError, "other"),
        ("2015", OrderRejectedError, "other"),
        ("2028", OrderRejectedError, "above_maximum"),
        ("2003", OrderRejectedError, "price_band"),
        ("1002", OrderRejectedError, "market_closed"),
        ("600", OrderRejectedError, "other"),
        ("602", OrderRejectedError, "permission"),
        ("401", OrderRejectedError, "permission"),
        ("402", OrderRejectedError, "permission"),
        ("406", OrderRejectedError, "permission"),
        ("510", RateLimitedError, None),
        ("500", FateUnknownError, None),
        ("501", FateUnknownError, None),
        ("801", VenueDownError, None),
        ("513", VenueDownError, None),
        ("2040", GoneError, None),
    ],
)
def test_a_code_of_the_venue_has_one_meaning(code: str, kind: type[Exception], reason: str | None) -> None:
    """Said of an order, as the venue's documents list them."""
    error = as_venue_error(CODES[code], code, changes=True, left=True)
    assert type(error) is kind
    assert getattr(error, "reason", None) == reason


def test_transfers_and_deals_are_told_with_their_signs() -> None:
    """What came in is positive; a transfer under way is none yet."""
    desk = account()

    def moved(number: int, kind: str, state: str = "SUCCESS") -> dict[str, Any]:
        return {"id": number, "txid": f"t{number}", "currency": "USDT", "amount": 200, "type": kind, "state": state,
                "createTime": desk.venue.now_ms()}  # fmt: skip

    desk.venue.transfers = [moved(1, "IN"), moved(2, "OUT"), moved(3, "OUT", "WAIT")]
    seen = desk.run(lambda made, venue: made.snapshot())
    assert [(it.id, it.kind, it.amount, it.currency) for it in seen.flows] == [
        ("t1", "transfer", 200, "USDT"),
        ("t2", "transfer", -200, "USDT"),
    ]
