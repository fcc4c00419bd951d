"""Kraken Futures through the adapter: against the wire-level venue, and on answers of the venue itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt import adapter
from killswitch_ccxt.errors import AlreadySoError, GoneError, as_venue_error
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.krakenfutures.rows import CODES, wallet_of
from tests.faults.exchange import Market
from tests.faults.mishaps import Rule
from tests.virtual_time import VirtualTime
from tests.wire.krakenfutures.desk import Account
from tests.wire.krakenfutures.venue import SECRET, KrakenFuturesWire
from tests.wire.server import KEY

BTC, ETH = "BTC/USD:USD", "ETH/USD:USD"
D = Decimal


def spec(address: str | None, time: VirtualTime | None = None, currency: str = "USD", **more: Any) -> AccountSpec:
    options: dict[str, object] = {"timeout": 5, **more}
    if time is not None:
        options["clock"] = time
    keys = {"key": KEY, "secret": SECRET}
    return AccountSpec("main", "ccxt", "swap", currency, address, options, keys, exchange="krakenfutures")


def account(*rules: Rule, **more: Any) -> Account:
    """Long 2 BTC at 100, short 5 ETH at 10."""
    return Account(
        KrakenFuturesWire,
        {(BTC, "long"): D(2), (ETH, "short"): D(5)},
        spec,
        markets=[Market(BTC, D(100)), Market(ETH, D(10))],
        rules=rules,
        **more,
    )


def order(name: str = "kswa1", symbol: str = BTC, side: Any = "sell", amount: str = "2", **more: Any) -> OrderRequest:
    position_side: Any = "long" if side == "sell" else "short"
    return OrderRequest(name, symbol, side, position_side, D(amount), reduce_only=True, **more)


def test_a_snapshot_has_equity_positions_and_orders() -> None:
    """Notional is mark × contracts × size; the liquidation price is unknown, because the venue does not state it."""
    desk = account()
    desk.exchange.rest(BTC, "sell", D(1), reduce_only=True, price=D(120), type="limit")
    desk.exchange.rest(BTC, "sell", D(2), reduce_only=True, trigger_price=D(90), trigger_when="falls")
    seen = desk.run(lambda made, venue: made.snapshot())
    assert (seen.quality, seen.reason, seen.equity, seen.position_mode) == ("ok", None, D(100_000), "one_way")
    long, short = seen.positions
    assert (long.symbol, long.side, long.contracts, long.mark_price, long.notional) == (BTC, "long", 2, 100, 200)
    assert (short.symbol, short.side, short.contracts, short.notional) == (ETH, "short", 5, 50)
    assert (long.liquidation_price, long.leverage) == (None, None)
    limit, stop = seen.orders
    assert (limit.price, limit.amount, limit.reduce_only, limit.trigger_price) == (D(120), D(1), True, None)
    assert (stop.trigger_price, stop.amount, stop.side) == (D(90), D(2), "sell")
    assert (seen.fills, seen.flows) == ((), ())
    assert desk.venue.refusals == []


def test_a_tick_of_one_second_stays_within_the_limits() -> None:
    """A minute of snapshots takes no more than 500 units in ten seconds, and few of the history's hundred tokens."""
    desk = account(enforced=True)

    async def scenario(made: CcxtVenue, venue: Any) -> None:
        for _ in range(60):
            assert (await made.snapshot()).quality == "ok"
            await asyncio.sleep(1)

    desk.run(scenario)
    taken = desk.venue.taken()
    assert taken["derivatives"] <= 60 * 5
    assert taken["history"] <= 3 * 2


def test_an_order_is_sent_once_and_always_found_by_its_client_id() -> None:
    """While the venue keeps its status and afterwards; an order that never existed is not found."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        told = await made.submit(order())
        soon = await made.find_order(BTC, "kswa1")
        await asyncio.sleep(30)
        late = await made.find_order(BTC, "kswa1")
        return told, soon, late, await made.find_order(BTC, "kswa2"), await made.fills(BTC, "kswa1")

    told, soon, late, never, fills = desk.run(scenario)
    assert told == OrderReport("x1", "kswa1", BTC, "filled", D(2), D(2), D(100))
    assert (soon.state, soon.filled, late.state, late.filled, never) == ("filled", 2, "filled", 2, None)
    assert [(it.amount, it.price, it.order, it.fee) for it in fills] == [(2, 100, "x1", None)]
    assert desk.exchange.held[BTC, "long"] == 0


def test_a_half_filled_immediate_order_has_ended() -> None:
    """The rest of an immediate order has expired."""
    desk = account()
    desk.exchange.markets[BTC].shares = [D("0.5")]
    told = desk.run(lambda made, venue: made.submit(order(type="limit", price=D(99), time_in_force="ioc")))
    assert (told.state, told.filled, told.average_price) == ("expired", 1, 100)


def test_an_immediate_order_without_a_match_is_no_rejection() -> None:
    """`iocWouldNotExecute` with an order id: it was accepted and expired unfilled."""
    told = account().run(lambda made, venue: made.submit(order(type="limit", price=D(101), time_in_force="ioc")))
    assert (told.state, told.filled) == ("expired", 0)


def test_a_stop_is_restored_as_a_stop() -> None:
    """A sell triggered by a fall is a stop by the mark, one triggered by a rise a take-profit."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        await made.submit(order("a", trigger_price=D(90), trigger_when="falls"))
        await made.submit(order("b", trigger_price=D(120), trigger_when="rises", type="limit", price=D(119)))
        found = await made.open_orders()
        for it in found:
            await made.cancel(BTC, it.id)
        await made.cancel(BTC, found[0].id)
        return found

    stop, profit = desk.run(scenario)
    assert (stop.trigger_price, stop.client_order_id, stop.type, stop.price) == (D(90), "a", "stop_market", None)
    assert (profit.trigger_price, profit.client_order_id, profit.type, profit.price) == (
        D(120), "b", "take_profit_limit", D(119),
    )  # fmt: skip
    assert desk.exchange.held[BTC, "long"] == 2
    assert not desk.exchange.resting()


def test_a_batch_reports_each_order() -> None:
    """In the order of the request, whatever the order of the answer."""

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        batch: Any = made
        return await batch.batches.submit([order("a"), order("b", ETH, "sell", "1"), order("c", ETH, "buy", "5")])

    first, second, third = account().run(scenario)
    assert (first.state, first.client_order_id, third.state, third.filled) == ("filled", "a", "filled", 5)
    assert isinstance(second, OrderRejectedError)
    assert second.reason == "already_flat"


def test_the_dead_man_timer_is_for_the_whole_account() -> None:
    """Armed in whole seconds, disarmed by zero."""
    desk = account()

    async def scenario(made: CcxtVenue, venue: Any) -> Any:
        timed: Any = made
        await timed.dead_man.arm(60.0, [BTC])
        armed = venue.armed
        await timed.dead_man.disarm([])
        return armed, venue.armed

    assert desk.run(scenario) == (60, None)


@pytest.mark.parametrize(
    ("mishap", "error"),
    [("done", FateUnknownError), ("done_silent", FateUnknownError), ("lost", FateUnknownError),
     ("limited", RateLimitedError), ("down", VenueDownError), ("garbled", VenueError)],
)  # fmt: skip
def test_an_order_without_a_good_answer_is_classified_by_what_is_known(mishap: Any, error: type[Exception]) -> None:
    """A request that may have arrived has an unknown status; one that the venue rate limits was not executed."""
    desk = account(Rule("submit", mishap))

    async def scenario(made: CcxtVenue, venue: Any) -> None:
        with pytest.raises(error) as caught:
            await made.submit(order())
        assert not isinstance(caught.value, OrderRejectedError)

    desk.run(scenario)


@pytest.mark.parametrize("mishap", ["none", "done", "done_silent", "lost", "down", "limited", "late"])
def test_everything_is_closed_once(tmp_path: Path, mishap: Any) -> None:
    """A close of level 3 ends flat and reverses nothing, also if the first order's answer is lost."""
    desk = account(Rule("submit", mishap), Rule("submit_batch", mishap))
    assert desk.close_all(tmp_path) == "flat"
    assert set(desk.exchange.held.values()) == {0}
    assert desk.exchange.turned == []


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("wouldNotReducePosition", OrderRejectedError, "already_flat"),
        ("insufficientAvailableFunds", OrderRejectedError, "insufficient_margin"),
        ("invalidSize", OrderRejectedError, "other"),
        ("marketSuspended", OrderRejectedError, "market_closed"),
        ("marketInactive", OrderRejectedError, "market_closed"),
        ("postWouldExecute", OrderRejectedError, "price_band"),
        ("outsidePriceCollar", OrderRejectedError, "price_band"),
        ("orderForEditNotFound", GoneError, None),
        ("notFound", GoneError, None),
        ("clientOrderIdAlreadyExist", OrderRejectedError, "duplicate_client_order_id"),
        ("maxPositionViolation", OrderRejectedError, "above_maximum"),
        ("selfFill", OrderRejectedError, "blocked_by_order"),
        ("tooManyOrders", OrderRejectedError, "blocked_by_order"),
        ("wouldIncreasePriceDislocation", OrderRejectedError, "price_band"),
        ("marketIsPostOnly", OrderRejectedError, "market_closed"),
        ("invalidAccount", OrderRejectedError, "permission"),
        ("wouldProcessAfterSpecifiedTime", VenueDownError, None),
        ("cancelled", FateUnknownError, None),
        ("edited", FateUnknownError, None),
        ("apiLimitExceeded", RateLimitedError, None),
        ("authenticationError", OrderRejectedError, "permission"),
        ("Unavailable", VenueDownError, None),
        ("nonceBelowThreshold", VenueDownError, None),
        ("Server Error", FateUnknownError, None),
    ],
)
def test_a_status_of_the_venue_maps_to_one_error(code: str, kind: type[Exception], reason: str | None) -> None:
    """For an order: the possible values of `status` and `error` in "Send order" of Kraken's futures documentation."""
    error = as_venue_error(CODES[code], code, is_change=True, was_sent=True)
    assert type(error) is kind
    assert getattr(error, "reason", None) == reason
    assert not isinstance(error, AlreadySoError)


# Recorded answers of the venue


def test_an_immediate_order_that_was_only_placed_is_queried_again(shared: Path) -> None:
    """The answer contains no match yet: the order is open, not ended unfilled."""
    status = {"status": "placed", "order_id": "x", "orderEvents": [{"type": "PLACE", "order": {"quantity": 1}}]}
    sent: dict[str, Any] = {"sendorder": {"result": "success", "sendStatus": status}}
    told = replayed(shared, lambda made: made.submit(order(amount="0.5", symbol=ETH)), **sent)
    assert (told.state, told.filled) == ("open", 0)


def replayed(
    shared: Path, scenario: Callable[[CcxtVenue], Awaitable[Any]], *, wallet: str = "flex", currency: str = "USD",
    time: VirtualTime | None = None, **answers: Any,
) -> Any:  # fmt: skip
    """Run a scenario with an adapter that gets these answers by the end of the path: a file's name or the content."""
    said = {"instruments": "http_futures_instruments", "tickers": "http_futures_tickers", **answers}
    # Accounts with equal connections share a venue's rules: no two tests have equal ones.
    made: Any = adapter(spec(None, time, currency, wallet=wallet, ccxt={"replay": str(uuid4())}))

    async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        name = url.partition("?")[0].rsplit("/", 1)[-1]
        answer = said[name]
        if callable(answer):
            answer = answer(dict(parse_qsl(url.partition("?")[2])))
        if isinstance(answer, str):
            answer = json.loads((shared / "data/payloads/kraken" / f"{answer}.json").read_text())
        return json.loads(json.dumps(answer), parse_float=str)

    async def main() -> Any:
        made.client.ccxt.fetch = fetch
        try:
            return await scenario(made)
        finally:
            await made.close()

    return asyncio.run(main()) if time is None else time.run(main())


def single(currency: str) -> dict[str, Any]:
    return {
        "type": "marginAccount", "currency": currency, "balances": {currency: 2.5},
        "auxiliary": {"af": 1.5, "pv": 2.25}, "marginRequirements": {"im": 0.5, "mm": 0.25},
    }  # fmt: skip


FLEX = {"flex": {
    "type": "multiCollateralMarginAccount",
    "currencies": {"USD": {"quantity": 5000, "value": 5000}, "XBT": {"quantity": 0.5, "value": 45000}},
    "portfolioValue": 50500.25, "availableMargin": 40000, "initialMargin": 3000, "maintenanceMargin": 1500,
}}  # fmt: skip


def test_the_payload_of_inverse_positions_has_no_invented_number(shared: Path) -> None:
    """Size and entry are stated; notional is computed from the mark, and unknown without one."""
    answers: dict[str, Any] = {
        "openpositions": "http_futures_open_positions", "openorders": "http_futures_open_orders",
        "fills": "http_futures_fills", "account-log": {"logs": []},
    }  # fmt: skip
    rules = json.loads((shared / "data/payloads/kraken/http_futures_instruments.json").read_text())
    ether = {**rules["instruments"][0], "symbol": "PI_ETHUSD", "tickSize": 0.05}
    answers["instruments"] = {"instruments": [*rules["instruments"], ether]}
    answers["accounts"] = {"accounts": {"fi_xbtusd": single("xbt"), "fi_ethusd": single("eth")}}
    one = replayed(shared, lambda made: made.snapshot(), wallet="fi_xbtusd", currency="BTC", **answers)
    other = replayed(shared, lambda made: made.snapshot(), wallet="fi_ethusd", currency="ETH", **answers)
    assert (one.quality, one.equity, one.free) == ("ok", D("2.25"), D("1.5"))
    (btc,), (eth,) = one.positions, other.positions
    assert (btc.symbol, btc.side, btc.contracts) == ("BTC/USD:BTC", "short", 8000)
    assert btc.entry_price == D("27523.749993345933")
    assert btc.notional == D(8000) / D("91506.6009839176")
    assert (eth.symbol, eth.contracts, eth.mark_price, eth.notional) == ("ETH/USD:ETH", 12000, None, None)
    assert (btc.liquidation_price, btc.leverage, eth.leverage) == (None, None, None)
    assert [len(it.orders) for it in (one, other)] == [1, 2]
    by_id = {it.id[:8]: it for it in (*one.orders, *other.orders)}
    assert (by_id["2ce038ae"].price, by_id["2ce038ae"].amount) == (1200, 100)
    assert (by_id["c8135f52"].trigger_price, by_id["c8135f52"].price) == (D("1880.4"), 1860)
    assert (by_id["7a9f8b3e"].amount, by_id["7a9f8b3e"].filled) == (7000, 2000)
    assert by_id["7a9f8b3e"].client_order_id == "my-client-order-123"


def test_the_payload_of_inverse_fills_keeps_amounts_and_paid_fees(shared: Path) -> None:
    """Three fills, with sizes in contracts and fees in coin; each wallet has its own."""

    async def scenario(made: CcxtVenue) -> Any:
        made.dialect.client.ccxt.markets = None
        await made.rules.ready()
        return await made.dialect.fills((), 0)

    fills = replayed(shared, scenario, wallet="fi_xbtusd", currency="BTC", fills="http_futures_fills")
    fills += replayed(shared, scenario, wallet="fi_ethusd", currency="ETH", fills="http_futures_fills")
    assert [(it.amount, it.price, it.fee, it.fee_currency) for it in fills] == [
        (5000, D("27937.5"), D("0.00008957"), "BTC"),
        (2500, D("28050"), D("0.00004456"), "BTC"),
        (5000, D("1764.65"), D("0.00685589"), "ETH"),
    ]


def test_a_position_without_rules_is_malformed_and_not_left_out(shared: Path) -> None:
    """The payload's instruments have no PI_ETHUSD: the positions are then unknown."""
    seen = replayed(
        shared, lambda made: made.snapshot(), wallet="fi_ethusd", currency="ETH",
        openpositions="http_futures_open_positions", accounts={"accounts": {"fi_ethusd": single("eth")}},
    )  # fmt: skip
    assert (seen.quality, seen.positions, seen.equity) == ("malformed", None, None)
    assert "PI_ETHUSD" in seen.reason


def test_the_payloads_of_a_sent_and_a_cancelled_order_are_read(shared: Path) -> None:
    """Placed without executions: open. An order with an unknown trigger is an open order nevertheless."""

    async def scenario(made: CcxtVenue) -> Any:
        told = await made.submit(order(amount="0.5", symbol="ETH/USD:USD"))
        await made.cancel(BTC, "c8a35168-8d52-4609-944f-3f32bb0d5c77")
        return told

    sent: dict[str, Any] = {"sendorder": "http_send_order_futures", "cancelorder": "http_cancel_order_futures"}
    told = replayed(shared, scenario, **sent)
    assert (told.id, told.state, told.filled) == ("c8a35168-8d52-4609-944f-3f32bb0d5c77", "open", 0)
    with pytest.raises(VenueError, match="an order has no id"):
        replayed(shared, scenario, **{**sent, "sendorder": "http_send_order_futures_unknown_trigger"})


def test_equity_in_another_wallet_is_not_left_out(shared: Path) -> None:
    """A single-collateral wallet with a balance makes the equity of the flex account unknown."""
    answers: dict[str, Any] = {
        "openpositions": {"openPositions": []},
        "accounts": {"accounts": {**FLEX, "fi_xbtusd": single("xbt")}},
    }

    async def wealth(made: CcxtVenue) -> Any:
        return await made.dialect.equity()

    with pytest.raises(UnreadableError, match="wallet fi_xbtusd has equity in addition to the flex wallet"):
        replayed(shared, wealth, **answers)
    with pytest.raises(UnreadableError, match="is in BTC, and the account in USD"):
        replayed(shared, wealth, wallet="fi_xbtusd", **answers)
    with pytest.raises(UnreadableError, match="no wallet gold; it has fi_xbtusd, flex"):
        replayed(shared, wealth, wallet="gold", **answers)


def test_the_account_log_has_funding_transfers_and_interest(shared: Path) -> None:
    """Trades are part of the fills, and rows that count contracts are no money."""
    rows = [
        {
            "id": 1,
            "info": "futures trade",
            "asset": "usd",
            "contract": "pf_xbtusd",
            "old_balance": 10,
            "new_balance": 9,
        },
        {"id": 2, "info": "funding rate change", "asset": "usd", "contract": "pf_xbtusd", "realized_funding": -1.5},
        {"id": 3, "info": "cross-exchange transfer", "asset": "xbt", "old_balance": 1, "new_balance": 3},
        {"id": 4, "info": "funding rate change", "asset": "pi_xbtusd", "contract": "pi_xbtusd"},
    ]
    logs = [row | {"date": "2026-05-18T00:00:00.000Z"} for row in rows]

    async def scenario(made: CcxtVenue) -> Any:
        return await made.dialect.flows(0)

    answers: dict[str, Any] = {"account-log": {"logs": logs}}
    flows = replayed(shared, scenario, **answers)
    assert [(it.id, it.kind, it.amount, it.currency) for it in flows] == [
        ("2", "funding", D("-1.5"), "USD"),
        ("3", "transfer", D(2), "BTC"),
    ]


@pytest.mark.parametrize("recorded", ["http_futures_order_events", "http_futures_order_events_unknown"])
def test_events_in_an_unknown_format_do_not_prove_that_an_order_is_absent(shared: Path, recorded: str) -> None:
    """The recorded events name their rows differently: the order is not reported as absent."""
    answers: dict[str, Any] = {"status": {"orders": []}, "orders": recorded, "fills": {"fills": []}}
    with pytest.raises(VenueError, match="the answer has no list `elements`"):
        replayed(shared, lambda made: made.find_order("BTC/USD:BTC", "order_123"), **answers)


def test_a_wallet_has_its_own_positions_orders_and_fills() -> None:
    """Contracts name their wallet: `PF_` the multi-collateral one, `PI_` and `FI_` the one of their pair."""
    told = {it: wallet_of(it) for it in ("PF_XBTUSD", "FF_XBTUSD_260327", "PI_XBTUSD", "fi_ethusd_260327", "PV_XRPXBT")}
    assert list(told.values()) == ["flex", "flex", "fi_xbtusd", "fi_ethusd", "fv_xrpxbt"]
    for odd in ("rr_xbtusd2", "", None, "GOLD"):
        with pytest.raises(UnreadableError, match="does not contain its wallet"):
            wallet_of(odd)


def test_a_position_of_another_wallet_does_not_belong_to_the_account(shared: Path) -> None:
    """A short of the inverse wallet is in neither the flex account nor that of another pair."""
    rules = json.loads((shared / "data/payloads/kraken/http_futures_instruments.json").read_text())
    inverse = next(it for it in rules["instruments"] if it["symbol"] == "PI_XBTUSD")
    flexible = {**inverse, "symbol": "PF_XBTUSD", "type": "flexible_futures"}
    held = [
        {"symbol": symbol, "side": side, "price": 50000, "size": size, "fillTime": "2026-05-18T00:00:00.000Z"}
        for symbol, side, size in (("PF_XBTUSD", "long", 2), ("PI_XBTUSD", "short", 10000))
    ]
    answers: dict[str, Any] = {
        "instruments": {"instruments": [inverse, flexible]}, "openpositions": {"openPositions": held},
        "openorders": {"openOrders": []}, "fills": {"fills": []}, "account-log": {"logs": []},
    }  # fmt: skip
    flex = replayed(shared, lambda made: made.snapshot(), accounts={"accounts": FLEX}, **answers)
    own = {"accounts": {"fi_xbtusd": single("xbt")}}
    inverse_one = replayed(
        shared, lambda made: made.snapshot(), wallet="fi_xbtusd", currency="BTC", accounts=own, **answers
    )
    assert [(it.symbol, it.side, it.contracts) for it in flex.positions] == [("BTC/USD:USD", "long", 2)]
    assert [(it.symbol, it.side, it.contracts) for it in inverse_one.positions] == [("BTC/USD:BTC", "short", 10000)]


DAY = 86_400_000


class History:
    """The venue's order events, newest first, at most a thousand of those from `since` to `before` (excluded)."""

    def __init__(self, time: VirtualTime, *ages: tuple[int, str]) -> None:
        """Orders by the time since their fill (ms), with their client ids."""
        now = int(time.now().timestamp() * 1000)
        self.rows = [self._filled(now - age, name) for age, name in sorted(ages)]
        self.asked: list[dict[str, str]] = []

    @staticmethod
    def _filled(at: int, name: str) -> dict[str, Any]:
        order = {"uid": f"o-{name}", "clientId": name, "quantity": "2", "filled": "2", "timestamp": at}
        return {"uid": f"e-{name}", "timestamp": at, "event": {"OrderUpdated": {"newOrder": order,
                                                                                 "reason": "full_fill"}}}  # fmt: skip

    def __call__(self, asked: dict[str, str]) -> dict[str, Any]:
        self.asked.append(asked)
        before = int(asked.get("before", 10**15))
        return {"elements": [it for it in self.rows if int(asked["since"]) <= it["timestamp"] < before][:1000]}


def run_with_history(
    shared: Path, time: VirtualTime, history: History, scenario: Callable[[CcxtVenue], Awaitable[Any]]
) -> Any:
    answers: dict[str, Any] = {"status": {"orders": []}, "orders": history, "fills": {"fills": []}}
    status = {"status": "placed", "order_id": "x", "orderEvents": []}
    return replayed(shared, scenario, time=time, sendorder={"result": "success", "sendStatus": status}, **answers)


@pytest.mark.parametrize("hours", [1.5, 30, 167])
def test_an_order_of_another_process_is_found_a_week_back(shared: Path, hours: float) -> None:
    """Also behind pages of younger events; an order missing from a week of events does not exist."""
    time = VirtualTime()
    now = int(time.now().timestamp() * 1000)
    others = [(minute * 60_000, f"other{minute}") for minute in range(1, 2500)]
    history = History(time, *others, (int(hours * 3_600_000), "ksold"))

    async def scenario(made: CcxtVenue) -> Any:
        return await made.find_order(ETH, "ksold"), await made.find_order(ETH, "never")

    found, never = run_with_history(shared, time, history, scenario)
    assert (found.id, found.state, found.filled) == ("o-ksold", "filled", 2)
    assert never is None
    assert int(history.asked[0]["since"]) == now - 7 * DAY


def test_a_history_too_long_to_read_proves_no_absence(shared: Path) -> None:
    """Twenty thousand events in a week: the order may be among those that were not read."""
    time = VirtualTime()
    history = History(time, *((second * 10_000, f"other{second}") for second in range(1, 20_000)))
    with pytest.raises(VenueDownError, match=r"last 7.0 days is too long to be read, so order ksold may be in it"):
        run_with_history(shared, time, history, lambda made: made.find_order(ETH, "ksold"))
    assert len(history.asked) == 10


def test_events_of_one_moment_that_fill_a_page_cause_no_endless_loop(shared: Path) -> None:
    """A page that does not advance proves no absence either."""
    time = VirtualTime()
    history = History(time, *((1000, f"other{number}") for number in range(1500)))
    with pytest.raises(VenueDownError, match="too long to be read"):
        run_with_history(shared, time, history, lambda made: made.find_order(ETH, "ksold"))
    assert len(history.asked) == 2


def test_an_order_of_this_process_is_searched_from_the_time_it_was_sent(shared: Path) -> None:
    """Two hours after it was sent the history is read from ten minutes before the sending, and no further back."""
    time = VirtualTime()
    history = History(time)

    async def scenario(made: CcxtVenue) -> Any:
        sent_at = int(time.now().timestamp() * 1000)
        await made.submit(order(amount="0.5", symbol=ETH))
        await asyncio.sleep(7200)
        return sent_at, await made.find_order(ETH, "kswa1")

    sent_at, found = run_with_history(shared, time, history, scenario)
    assert found is None
    assert sent_at - 600_000 <= int(history.asked[0]["since"]) <= sent_at
