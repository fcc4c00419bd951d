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
    MalformedAnswerError,
    OrderRejectedError,
    OrderRequest,
    RateLimit,
    RateLimitedError,
    RequestExpiredError,
    VenueDownError,
)
from killswitch_ccxt import adapter
from killswitch_ccxt.errors import GoneError, as_venue_error
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.mexc.rows import CODES
from tests.faults.exchange import Key, Market
from tests.faults.mishaps import Rule
from tests.virtual_time import VirtualTime
from tests.wire.krakenfutures.desk import Account
from tests.wire.mexc.venue import MexcWire
from tests.wire.server import KEY, SECRET

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
D = Decimal


def spec(address: str | None, time: VirtualTime | None = None, **more: Any) -> AccountSpec:
    options: dict[str, object] = {"timeout": 5, **more}
    if time is not None:
        options["clock"] = time
    keys = {"key": KEY, "secret": SECRET}
    return AccountSpec("main", "ccxt", "swap", "USDT", address, options, keys, exchange="mexc")


def batching(address: str | None, time: VirtualTime | None = None) -> AccountSpec:
    return spec(address, time, batch_orders=True)


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
    """30 contracts of 0.0001 BTC at 100 are 0.3; three lists have the resting orders, a row with two stops is two."""
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


def test_a_tick_of_one_second_stays_within_every_limit() -> None:
    """A minute of snapshots, with the venue's limits enforced."""
    desk = account(enforced=True)

    async def scenario(made: CcxtVenue, venue: Any) -> None:
        for _ in range(60):
            assert (await made.snapshot()).reason is None
            await asyncio.sleep(1)

    desk.run(scenario)


@pytest.mark.parametrize(
    ("side", "position_side", "mode", "code"),
    [("sell", "long", "hedge", 4), ("buy", "short", "hedge", 2), ("sell", "long", "one_way", 4),
     ("buy", "short", "one_way", 2)],
)  # fmt: skip
def test_a_close_states_the_side_that_it_closes(side: Any, position_side: str, mode: str, code: int) -> None:
    """4 closes a long, 2 closes a short; in one-way mode the order is also reduce-only, and names the mode."""
    desk = account(mode=mode)
    symbol, amount = (BTC, "30") if side == "sell" else (ETH, "5")
    desk.run(lambda made, venue: made.submit(order(symbol=symbol, side=side, amount=amount)))
    sent = next(it.ask.params for it in desk.venue.seen if it.call == "submit")
    assert (sent["side"], sent["type"], sent["positionMode"]) == (code, 5, 1 if mode == "hedge" else 2)
    assert sent.get("reduceOnly") is (True if mode == "one_way" else None)
    assert desk.exchange.held[symbol, position_side] == 0  # type: ignore[index] # a side
    assert desk.exchange.turned == []


def test_an_order_is_found_by_its_client_id_and_an_unsent_one_is_absent() -> None:
    """The answer to sending states only that it was accepted."""

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        told = await made.submit(order())
        return (
            told,
            await made.find_order(BTC, "kswa1"),
            await made.find_order(BTC, "kswa2"),
            await made.fills(BTC, "kswa1"),
        )

    told, found, never, fills = account().run(scenario)
    assert (told.state, told.filled) == ("open", 0)
    assert (found.id, found.state, found.filled, found.average_price) == (told.id, "filled", 30, 100)
    # 30 contracts of 0.0001 at 100, and 0.05% of it
    assert found.fee == D("0.00015")
    assert never is None
    assert [(it.side, it.position_side, it.amount, it.fee_currency) for it in fills] == [("sell", "long", 30, "USDT")]


def test_a_stop_is_restored_as_a_plan_order_and_recognised_by_its_fields() -> None:
    """It is triggered by a fall of the fair price, rests for a week, and has no client id at the venue."""
    desk = account(Rule("submit", "done"))

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        stop = order("kswstop", trigger_price=D(90), trigger_when="falls")
        with pytest.raises(FateUnknownError):
            await made.submit(stop)
        found = await made.find_order(BTC, "kswstop")
        assert found is not None
        (resting,) = await made.open_orders()
        await made.cancel(BTC, resting.id)
        return found, resting

    found, resting = desk.run(scenario)
    assert (found.id, found.state, found.amount) == (resting.id, "open", 30)
    assert (resting.trigger_price, resting.reduce_only, resting.position_side) == (90, True, "long")
    sent = next(it.ask.params for it in desk.venue.seen if it.call == "submit")
    assert (sent["triggerType"], sent["trend"], sent["executeCycle"], sent["orderType"]) == (2, 2, 2, 5)
    assert not desk.exchange.resting()
    assert desk.exchange.held[BTC, "long"] == 30


STOP = order("kswstop", trigger_price=D(90), trigger_when="falls")


def plan(number: str, state: int, venue: Any, **more: Any) -> dict[str, Any]:
    """A row of the list of conditional orders, from the venue's documentation."""
    return {
        "id": number, "symbol": "BTC_USDT", "leverage": 20, "side": 4, "triggerPrice": 90, "price": 0, "vol": 30,
        "openType": 2, "triggerType": 2, "state": state, "executeCycle": 2, "trend": 2, "errorCode": 0, "orderType": 5,
        "createTime": venue.now_ms(), "updateTime": venue.now_ms(), "positionMode": 1, "reduceOnly": False, **more,
    }  # fmt: skip


def listed(made: Any, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Let the venue list these conditional orders by their states; returns the requested states."""
    asked: list[dict[str, Any]] = []

    async def orders(params: Any) -> Any:
        asked.append(params)
        wanted = str(params["states"]).split(",")
        return {"success": True, "code": 0, "data": [it for it in rows if str(it["state"]) in wanted]}

    made.client.ccxt.contractPrivateGetPlanorderListOrders = orders
    return asked


def test_a_triggered_stop_is_reported_as_the_order_that_it_sent() -> None:
    """The conditional order names it: state, filled amount and fills are those of that order."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        sent = await made.submit(STOP)
        venue.exchange.resting_exits_block = False
        sold = await made.submit(order("kswsold"))
        asked = listed(made, plan(sent.id, 3, venue, orderId=sold.id))
        return sold, await made.find_order(BTC, "kswstop"), await made.fills(BTC, "kswstop"), asked

    sold, found, fills, asked = desk.run(scenario)
    assert (found.id, found.client_order_id, found.state, found.filled) == (sold.id, "kswstop", "filled", 30)
    assert [(it.order, it.amount) for it in fills] == [(sold.id, 30)]
    assert sorted(asked[0]["states"].split(",")) == ["1", "2", "3", "4", "5"]
    assert asked[0]["symbol"] == "BTC_USDT"


@pytest.mark.parametrize(("code", "state"), [(1, "open"), (2, "canceled"), (4, "expired"), (5, "rejected")])
@pytest.mark.parametrize("known", [True, False])
def test_a_stop_that_has_not_triggered_has_its_state(code: int, state: str, known: bool) -> None:
    """It is unfilled, however it ended; also if the answer to sending it was lost."""
    desk = account(*(() if known else (Rule("submit", "done"),)))

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        if known:
            await made.submit(STOP)
        else:
            with pytest.raises(FateUnknownError):
                await made.submit(STOP)
        listed(made, plan("x1", code, venue), plan("x2", 1, venue, vol=7), plan("x3", 3, venue, createTime=1))
        return await made.find_order(BTC, "kswstop"), await made.fills(BTC, "kswstop")

    found, fills = desk.run(scenario)
    assert (found.id, found.state, found.amount, found.filled, fills) == ("x1", state, 30, 0, ())


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "0 plan orders in the list"),
        ([(3, {"orderId": "0"})], "lacks the resulting order"),
        ([(3, {"orderId": "gone"})], "which the venue does not have"),
        ([(9, {})], "unknown value '9'"),
    ],
)
def test_a_stop_is_not_reported_as_absent_without_proof(rows: Any, why: str) -> None:
    """The venue accepted it: it is no longer listed, or its outcome is not stated."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> None:
        sent = await made.submit(STOP)

        async def orders(params: Any) -> Any:
            return {"data": [plan(sent.id, state, venue, **more) for state, more in rows]}

        made.client.ccxt.contractPrivateGetPlanorderListOrders = orders
        with pytest.raises(MalformedAnswerError, match=why):
            await made.find_order(BTC, "kswstop")

    desk.run(scenario)


def test_two_equal_stops_are_not_confused() -> None:
    """A stop with an unknown id may be either of them; one with a known id is that one."""
    desk = account(Rule("submit", "done"))

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        with pytest.raises(FateUnknownError):
            await made.submit(STOP)
        listed(made, plan("x1", 1, venue), plan("x2", 1, venue))
        with pytest.raises(MalformedAnswerError, match="2 plan orders in the list"):
            await made.find_order(BTC, "kswstop")
        again = await made.submit(order("kswother", trigger_price=D(90), trigger_when="falls"))
        listed(made, plan("x1", 1, venue), plan(again.id, 1, venue))
        return again, await made.find_order(BTC, "kswother"), await made.find_order(BTC, "kswstop")

    again, other, first = desk.run(scenario)
    assert (other.id, first.id) == (again.id, "x1")


def test_after_a_restart_a_client_id_may_be_that_of_a_stop() -> None:
    """The venue stores no client id of a stop: while it lists one of the last seven days, absence is unproven."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        listed(made, plan("p1", 3, venue, orderId="77"))
        with pytest.raises(MalformedAnswerError, match="it may be a plan order, which MEXC stores without one: p1"):
            await made.find_order(BTC, "kswearlier")
        with pytest.raises(MalformedAnswerError, match="it may be a plan order"):
            await made.fills(BTC, "kswearlier")
        of_another = await made.find_order(ETH, "kswearlier")
        asked = listed(made)
        none = await made.find_order(BTC, "kswearlier")
        return of_another, none, asked, venue.now_ms()

    of_another, none, asked, now = desk.run(scenario)
    assert (of_another, none) == (None, None)
    assert asked[0]["start_time"] == now - 7 * 86_400_000


def test_a_market_order_of_this_process_that_never_arrived_is_absent_despite_stops() -> None:
    """It was a market order, so none of the conditional orders can be it."""
    desk = account(Rule("submit", "lost"))

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        with pytest.raises(FateUnknownError):
            await made.submit(order())
        listed(made, plan("p1", 1, venue))
        return await made.find_order(BTC, "kswa1")

    assert desk.run(scenario) is None


def test_each_kind_of_order_is_cancelled_through_its_own_route() -> None:
    """An order that is already gone is no error."""
    desk = account()
    waits: dict[str, Any] = {"reduce_only": True, "trigger_price": D(90), "trigger_when": "falls"}
    desk.exchange.rest(BTC, "sell", D(7), reduce_only=True, price=D(120), type="limit")
    desk.exchange.rest(BTC, "sell", D(8), **waits)
    desk.venue.attached.add(desk.exchange.rest(BTC, "sell", D(9), **waits))

    async def scenario(made: CcxtVenue, venue: Any) -> None:
        for it in 2 * await made.open_orders():
            await made.cancel(BTC, it.id)

    desk.run(scenario)
    assert not desk.exchange.resting()


def test_a_batch_tells_of_each_order_in_the_venues_codes() -> None:
    """A resting exit has frozen the long: 2008 says that an order is in the way."""
    desk = account(spec=batching)
    desk.exchange.rest(BTC, "sell", D(20), reduce_only=True, price=D(120), type="limit")

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        batch: Any = made
        return await batch.batches.submit([order("a"), order("b", ETH, "buy", "5")])

    first, second = desk.run(scenario)
    assert isinstance(first, OrderRejectedError)
    assert (first.reason, second.client_order_id, second.state) == ("blocked_by_order", "b", "open")


@pytest.mark.parametrize(("asked", "most"), [({}, 1), ({"batch_orders": False}, 1), ({"batch_orders": True}, 50)])
def test_batches_are_optional(asked: dict[str, Any], most: int) -> None:
    """MEXC's futures documents, *Bulk order*: not for all users, a permission that its support gives. Where
    there is none, all of a batch would be refused."""
    batches = adapter(spec(None, **asked)).batches
    assert (1 if batches is None else batches.most) == most


def test_orders_have_their_own_rate_limit() -> None:
    """*Place order* of MEXC's futures documents of 2026, as others have copied it: four in two seconds. It was 20."""
    made: Any = adapter(spec(None))
    assert RateLimit("order", 4, 2.0) in made.traits.limits


def test_closing_everything_in_one_request_is_optional() -> None:
    """It would also close positions that settle in another currency: only `close_all: true` enables it."""
    assert adapter(spec(None)).close_book is None
    desk = account(mode="one_way", spec=lambda address, time: spec(address, time, close_all=True))

    async def scenario(made: CcxtVenue, venue: Any) -> None:
        await made.close_book()

    desk.run(scenario)
    assert set(desk.exchange.held.values()) == {0}


def test_without_the_position_mode_nothing_is_sent() -> None:
    """Without the position mode the side of an order is ambiguous."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> None:
        venue.exchange.mode = "one_way"
        made.client.ccxt.contractPrivateGetPositionPositionMode = nothing
        with pytest.raises(VenueDownError, match="position mode of the account is unknown"):
            await made.submit(order())

    async def nothing(params: Any = None) -> Any:
        return {"success": True, "code": 0, "data": None}

    desk.run(scenario)
    assert desk.venue.calls("submit") == 0


@pytest.mark.parametrize("mode", ["hedge", "one_way"])
@pytest.mark.parametrize("mishap", ["none", "done", "done_silent", "lost", "down", "limited", "late"])
@pytest.mark.parametrize("batches", [False, True])
def test_everything_is_closed_once(tmp_path: Path, mode: str, mishap: Any, batches: bool) -> None:
    """Also both sides of a symbol in hedge mode, and if the first order was accepted and its answer is lost."""
    rules = (Rule("submit", mishap), Rule("submit_batch", mishap))
    desk = account(*rules, mode=mode, **{"spec": batching} if batches else {})
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
        ("20002", FateUnknownError, None),
        ("730000", FateUnknownError, None),
        ("801", VenueDownError, None),
        ("513", RequestExpiredError, None),
        ("2040", GoneError, None),
    ],
)
def test_a_code_of_the_venue_maps_to_one_error(code: str, kind: type[Exception], reason: str | None) -> None:
    """For an order, from the list in the venue's documentation."""
    error = as_venue_error(CODES[code], code, is_change=True, was_sent=True)
    assert type(error) is kind
    assert getattr(error, "reason", None) == reason


def test_transfers_and_deals_have_their_signs() -> None:
    """Money in is positive; a transfer in progress is no flow yet."""
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


def test_a_transfer_completed_hours_after_its_request_is_returned_once() -> None:
    """It is returned once the money has moved, with that time, and not again."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        row = {"id": 1, "txid": "t1", "currency": "USDT", "amount": 200, "type": "OUT", "state": "WAIT",
               "createTime": venue.now_ms(), "updateTime": venue.now_ms()}  # fmt: skip
        venue.transfers = [row]
        told = [(await made.snapshot()).flows]
        await asyncio.sleep(4 * 3600)
        row.update(state="SUCCESS", updateTime=venue.now_ms())
        done = venue.now_ms()
        for _ in range(3):
            told.append((await made.snapshot()).flows)
            await asyncio.sleep(60)
        return told, done

    (before, then, *after), done = desk.run(scenario)
    assert before == ()
    assert [(it.id, it.amount, int(it.at.timestamp() * 1000)) for it in then] == [("t1", -200, done)]
    assert after == [(), ()]


@pytest.mark.parametrize(("count", "told"), [(250, 250), (2000, None)])
def test_transfers_are_read_page_by_page(count: int, told: int | None) -> None:
    """A page has a hundred rows; if they do not end, the flows are unknown, not truncated."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        rows = [
            {"id": number, "txid": f"t{number}", "currency": "USDT", "amount": 1, "type": "IN", "state": "SUCCESS",
             "createTime": venue.now_ms() - number}
            for number in range(count)
        ]  # fmt: skip

        async def transfers(params: Any) -> Any:
            first = (params["page_num"] - 1) * params["page_size"]
            return {"data": {"resultList": rows[first : first + params["page_size"]]}}

        await made.rules.ready()
        made.client.ccxt.contractPrivateGetAccountTransferRecord = transfers
        return await made.snapshot()

    seen = desk.run(scenario)
    assert (None if seen.flows is None else len(seen.flows)) == told
    assert told is not None or "does not end after 2000 rows" in seen.reason
