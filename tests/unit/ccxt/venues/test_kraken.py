"""Kraken through the adapter, on answers typed from its documentation and on recorded ones."""

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
    OrderRequest,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt import adapter
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.kraken.rows import triggered
from tests.virtual_time import VirtualTime
from tests.wire.krakenfutures.desk import closed

D = Decimal
NAME = "6d1b345e-2821-40e2-ad83-4ecb18a06876"
KEYS = {"key": "KEY-PLANTED", "secret": "U0VDUkVULVBMQU5URUQ="}
ASSETS = {
    name: {"altname": other, "aclass": "currency", "decimals": 10, "status": "enabled"}
    for name, other in (("ZUSD", "USD"), ("XXBT", "XBT"), ("ETH", "ETH"), ("USDT", "USDT"))
}


def pair(base: str, quote: str, altname: str, **more: Any) -> dict[str, Any]:
    return {
        "altname": altname, "wsname": f"{base}/{quote}", "base": base, "quote": quote, "pair_decimals": 1,
        "lot_decimals": 8, "cost_decimals": 5, "leverage_buy": [2, 3], "leverage_sell": [2, 3], "fees": [[0, 0.4]],
        "fees_maker": [[0, 0.25]], "ordermin": "0.0001", "costmin": "0.5", "tick_size": "0.1", "status": "online",
        **more,
    }  # fmt: skip


PAIRS = {
    "XXBTZUSD": pair("XXBT", "ZUSD", "XBTUSD"), "ETHUSD": pair("ETH", "ZUSD", "ETHUSD"),
    "XBTUSDT": pair("XXBT", "USDT", "XBTUSDT"), "ETHUSDT": pair("ETH", "USDT", "ETHUSDT", status="cancel_only"),
}  # fmt: skip


def ticker(last: str) -> dict[str, Any]:
    return {"a": [last, "1", "1"], "b": [last, "1", "1"], "c": [last, "1"], "v": ["1", "1"], "p": ["1", "1"],
            "t": [1, 1], "l": ["1", "1"], "h": ["1", "1"], "o": last}  # fmt: skip


TICKERS = {"XXBTZUSD": ticker("100000"), "ETHUSD": ticker("4000")}


class TypedAnswers:
    """An adapter that gets these answers by the end of the path, with a record of its requests."""

    def __init__(
        self, market: str = "spot", currency: str = "USD", *, options: dict[str, object] | None = None, **answers: Any
    ) -> None:
        self.answers: dict[str, Any] = {
            "Assets": ASSETS, "AssetPairs": PAIRS, "Ticker": TICKERS, "OpenOrders": {"open": {}},
            "ClosedOrders": {"closed": {}, "count": 0}, "TradesHistory": {"trades": {}, "count": 0},
            "Ledgers": {"ledger": {}, "count": 0}, "SystemStatus": {"status": "online"}, "Time": {"unixtime": 1},
            **answers,
        }  # fmt: skip
        self.asked: list[tuple[str, dict[str, str]]] = []
        more = {"ccxt": {"replay": str(uuid4())}, **(options or {})}
        self._spec = AccountSpec("main", "ccxt", market, currency, None, more, KEYS, exchange="kraken")

    def run(self, scenario: Callable[[CcxtVenue], Awaitable[Any]], time: VirtualTime | None = None) -> Any:
        made: Any = adapter(self._spec)

        async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            from killswitch_ccxt import client as wire

            name = url.partition("?")[0].rsplit("/", 1)[-1]
            asked = dict(parse_qsl(body or url.partition("?")[2]))
            self.asked.append((name, asked))
            answer = self.answers[name]
            result = answer(asked) if callable(answer) else answer
            whole = result if isinstance(result, dict) and "error" in result else {"error": [], "result": result}
            text = json.dumps(whole)
            call = wire.CURRENT_CALL.get()
            call.method, call.sent_requests = method, call.sent_requests + 1
            made.client.ccxt.on_rest_response(200, "OK", url, method, {}, text, {}, None)
            parsed = json.loads(text, parse_float=str)
            made.client.ccxt.handle_errors(200, "OK", url, method, {}, text, parsed, headers, body)
            return parsed

        async def main() -> Any:
            made.client.ccxt.fetch = fetch
            try:
                return await scenario(made)
            finally:
                await made.close()

        return asyncio.run(main()) if time is None else time.run(main())


def recorded(shared: Path, name: str) -> Any:
    return json.loads((shared / f"data/payloads/kraken/http_{name}.json").read_text())["result"]


async def snapshot(made: CcxtVenue) -> Any:
    return await made.snapshot()


def test_a_spot_account_is_its_balances_at_last_prices() -> None:
    """0.5 BTC at 100,000, 2 ETH at 4,000, and 1,000 dollars, of which orders hold 200."""
    balances = {
        "ZUSD": {"balance": "1000.0", "hold_trade": "200.0"}, "XXBT": {"balance": "0.5", "hold_trade": "0"},
        "ETH": {"balance": "1.5", "hold_trade": "0"}, "ETH.F": {"balance": "0.5", "hold_trade": "0"},
    }  # fmt: skip
    seen = TypedAnswers(BalanceEx=balances).run(snapshot)
    assert (seen.quality, seen.reason, seen.equity, seen.free) == ("ok", None, D(59_000), D(800))
    assert [(it.symbol, it.side, it.contracts, it.notional) for it in seen.positions] == [
        ("BTC/USD", "long", D("0.5"), D(50_000)),
        ("ETH/USD", "long", D(2), D(8_000)),
    ]
    assert (seen.orders, seen.fills, seen.flows) == ((), (), ())


def test_the_recorded_balances_are_the_same_account(shared: Path) -> None:
    """200,000 dollars, half a bitcoin and two ether: 258,000 at these prices, in the short form of the answer too."""
    seen = TypedAnswers(BalanceEx=recorded(shared, "spot_balance")).run(snapshot)
    assert (seen.quality, seen.equity) == ("ok", D(258_000))


def test_an_unreadable_balance_leaves_the_equity_unknown() -> None:
    """It is read neither as zero nor as less than the real amount."""
    seen = TypedAnswers(BalanceEx={"XXBT": {"hold_trade": "0"}}).run(snapshot)
    assert (seen.quality, seen.equity, seen.positions) == ("malformed", None, None)
    assert "the balance of XXBT is missing" in seen.reason
    staked = TypedAnswers(BalanceEx={"ETH.S": {"balance": "2"}}).run(snapshot)
    assert (staked.quality, staked.equity) == ("ok", None)
    assert "ETH.S" in staked.reason


def test_balances_are_fetched_every_few_seconds_and_in_every_snapshot_during_activity() -> None:
    """The counter of the starter tier recovers one request in three seconds."""
    said: dict[str, Any] = {"BalanceEx": {"ZUSD": {"balance": "5"}}, "AddOrder": {"txid": ["O1"]}}
    venue = TypedAnswers(**said)

    async def scenario(made: CcxtVenue) -> list[int]:
        counts = []
        for _ in range(3):
            await made.snapshot()
            counts.append(sum(name == "BalanceEx" for name, _ in venue.asked))
        await made.submit(OrderRequest(NAME, "BTC/USD", "sell", "long", D("0.5"), reduce_only=True))
        for _ in range(2):
            await made.snapshot()
            counts.append(sum(name == "BalanceEx" for name, _ in venue.asked))
        return counts

    assert venue.run(scenario) == [1, 1, 1, 2, 3]


def test_a_margin_account_has_its_open_positions(shared: Path) -> None:
    """The recorded position of half a bitcoin for 50,000 and the recorded equity; keyed by id, not a list."""
    answers = {
        "TradeBalance": recorded(shared, "spot_trade_balance"),
        "OpenPositions": recorded(shared, "spot_open_positions"),
    }
    seen = TypedAnswers("margin", **answers).run(snapshot)
    assert (seen.quality, seen.equity, seen.free, seen.margin_used) == ("ok", D("198499.67"), D("185999.67"), D(12500))
    (position,) = seen.positions
    assert (position.symbol, position.side, position.contracts) == ("BTC/USD", "long", D("0.5"))
    assert (position.entry_price, position.notional, position.margin) == (D(100_000), D(50_000), D(10_000))


def test_margin_positions_of_a_pair_are_combined_without_their_closed_volume() -> None:
    """2 of 3 remain of one, 1 of another: long 3 for 300; a short of the same pair is another position."""
    rows = {
        "T1": {"pair": "XXBTZUSD", "type": "buy", "vol": "3", "vol_closed": "1", "cost": "300", "margin": "10"},
        "T2": {"pair": "XXBTZUSD", "type": "buy", "vol": "1", "vol_closed": "0", "cost": "100", "margin": "5"},
        "T3": {"pair": "XXBTZUSD", "type": "sell", "vol": "4", "vol_closed": "0", "cost": "480", "margin": "5"},
    }
    seen = TypedAnswers("margin", TradeBalance={"e": "1000", "m": "20"}, OpenPositions=rows).run(snapshot)
    told = {it.side: (it.contracts, it.entry_price, it.margin) for it in seen.positions}
    assert told == {"long": (3, 100, 15), "short": (4, 120, 5)}


def test_the_recorded_orders_keep_their_triggers(shared: Path) -> None:
    """A stop at 1,800 is a stop, whichever field has its price."""
    said = {"BalanceEx": {"USDT": {"balance": "5"}}, "OpenOrders": recorded(shared, "open_orders")}
    seen = TypedAnswers(currency="USDT", **said).run(snapshot)
    assert seen.reason is None
    limit, stop = seen.orders
    assert (limit.symbol, limit.side, limit.price, limit.trigger_price) == ("BTC/USDT", "buy", D(29_500), None)
    assert (stop.symbol, stop.side, stop.price, stop.trigger_price) == ("ETH/USDT", "sell", None, D(1800))
    assert (limit.amount, limit.client_order_id, stop.client_order_id) == (D("0.5"), None, None)


def test_a_trigger_that_is_only_a_distance_is_not_read_as_a_price() -> None:
    """A trailing stop states its current trigger price, or the orders are unknown."""
    row = {"descr": {"ordertype": "trailing-stop", "price": "+5.0000%", "price2": "0"}, "stopprice": "0.00000"}
    with pytest.raises(UnreadableError, match="trailing-stop order has no trigger price"):
        triggered(row)
    assert triggered({**row, "stopprice": "95"})["triggerPrice"] == 95
    limit = {"descr": {"ordertype": "stop-loss-limit", "price": "90", "price2": "89"}}
    assert (triggered(limit)["triggerPrice"], triggered(limit)["price"]) == (90, 89)


def test_the_recorded_trades_are_fills(shared: Path) -> None:
    """Fees are in the quote currency."""
    venue = TypedAnswers(currency="USDT", TradesHistory=recorded(shared, "trades_history"))

    async def scenario(made: CcxtVenue) -> Any:
        await made.rules.ready()
        return await made.dialect.fills((), 0)

    fills = venue.run(scenario)
    assert [(it.symbol, it.side, it.amount, it.price, it.fee, it.fee_currency) for it in fills] == [
        ("BTC/USDT", "buy", D("0.5"), D("29500.50"), D("23.60"), "USDT"),
        ("ETH/USDT", "sell", D(1), D("1799.75"), D("3.60"), "USDT"),
    ]


def test_the_ledgers_have_money_in_and_out() -> None:
    """Net of the venue's fee; trades are part of the fills, and rollovers are the cost of borrowed money."""
    rows = {
        "L1": {"type": "deposit", "asset": "ZUSD", "amount": "100.5", "fee": "0.5", "time": 1688585840.8},
        "L2": {"type": "withdrawal", "asset": "XXBT", "amount": "-1", "fee": "0.0005", "time": 1688585841.8},
        "L3": {"type": "trade", "asset": "ZUSD", "amount": "-7", "fee": "1", "time": 1688585842.8},
        "L4": {"type": "rollover", "asset": "ZUSD", "amount": "0", "fee": "0.25", "time": 1688585843.8},
    }

    async def scenario(made: CcxtVenue) -> Any:
        await made.rules.ready()
        return await made.dialect.flows(0)

    flows = TypedAnswers(Ledgers={"ledger": rows, "count": 4}).run(scenario)
    assert [(it.id, it.kind, it.amount, it.currency) for it in flows] == [
        ("L1", "deposit", D(100), "USD"),
        ("L2", "withdrawal", D("-1.0005"), "BTC"),
        ("L4", "interest", D("-0.25"), "USD"),
    ]


@pytest.mark.parametrize(
    ("status", "state"),
    [("online", None), ("maintenance", "halted"), ("cancel_only", "cancel_only"), ("post_only", "post_only"),
     ("limit_only", "limit_only")],
)  # fmt: skip
def test_the_mode_of_the_whole_venue_is_the_state_of_every_pair(status: str, state: str | None) -> None:
    """While the venue is online, a pair with a mode of its own keeps it."""
    venue = TypedAnswers(currency="USDT", BalanceEx={"USDT": {"balance": "5"}}, SystemStatus={"status": status})
    seen = venue.run(snapshot)
    states = {it.symbol: it.state for it in seen.instruments}
    assert states["BTC/USDT"] == (state or "open")
    assert states["ETH/USDT"] == (state or "cancel_only")


def test_an_order_is_sent_with_krakens_parameters() -> None:
    """Spot: no reduce-only. Margin: with leverage, which makes it a margin order, and reduce-only."""
    request = OrderRequest(NAME, "BTC/USD", "sell", "long", D("0.5"), reduce_only=True)
    stop = OrderRequest(
        NAME, "BTC/USD", "sell", "long", D("0.5"), reduce_only=True, type="limit", price=D(89_000),
        trigger_price=D(90_000), trigger_when="falls",
    )  # fmt: skip
    ioc = OrderRequest(
        NAME, "BTC/USD", "buy", "short", D("0.5"), reduce_only=True, type="limit", price=D(1), time_in_force="ioc"
    )

    def sent(market: str, order: OrderRequest) -> dict[str, str]:
        venue = TypedAnswers(market, AddOrder={"txid": ["O1"], "descr": {"order": "…"}})
        told = venue.run(lambda made: made.submit(order))
        assert (told.id, told.state, told.filled, told.client_order_id) == ("O1", "open", 0, NAME)
        asked = next(asked for name, asked in venue.asked if name == "AddOrder")
        return {name: value for name, value in asked.items() if name != "nonce"}

    plain = {"pair": "XXBTZUSD", "type": "sell", "volume": "0.5", "cl_ord_id": NAME}
    assert sent("spot", request) == plain | {"ordertype": "market"}
    assert sent("margin", request) == plain | {"ordertype": "market", "leverage": "2", "reduce_only": "true"}
    assert sent("spot", stop) == plain | {"ordertype": "stop-loss-limit", "price": "90000", "price2": "89000"}
    bought = plain | {"type": "buy", "ordertype": "limit", "price": "1", "timeinforce": "IOC"}
    assert sent("spot", ioc) == bought


def test_an_order_is_searched_among_open_and_then_among_closed_orders(shared: Path) -> None:
    """A client id in neither list is no order of ours; a row of another order is not accepted as it."""
    closed = recorded(shared, "closed_orders")
    closed["closed"]["O5KZFT-GH3AD-LP6TLU"]["cl_ord_id"] = NAME
    venue = TypedAnswers(ClosedOrders=closed)
    found = venue.run(lambda made: made.find_order("BTC/USDT", NAME))
    assert (found.id, found.state, found.filled, found.average_price, found.fee) == (
        "O5KZFT-GH3AD-LP6TLU", "filled", D("0.5"), D(29_500), D("22.125"),
    )  # fmt: skip
    asked = [(name, asked["cl_ord_id"]) for name, asked in venue.asked if "cl_ord_id" in asked]
    assert asked == [("OpenOrders", NAME), ("ClosedOrders", NAME)]
    never = TypedAnswers(ClosedOrders=recorded(shared, "closed_orders"))
    assert never.run(lambda made: made.find_order("BTC/USDT", NAME)) is None


@pytest.mark.parametrize(
    ("word", "kind", "reason"),
    [
        ("EGeneral:Temporary lockout", RateLimitedError, None),
        ("EAPI:Rate limit exceeded", RateLimitedError, None),
        ("EOrder:Rate limit exceeded", RateLimitedError, None),
        ("EService:Unavailable", FateUnknownError, None),
        ("EService:Busy", FateUnknownError, None),
        ("EService:Timeout", FateUnknownError, None),
        ("EService:Deadline elapsed", FateUnknownError, None),
        ("EGeneral:Internal error", FateUnknownError, None),
        ("EAPI:Invalid nonce", VenueDownError, None),
        ("EService:Market in cancel_only mode", OrderRejectedError, "market_closed"),
        ("EService:Market in post_only mode", OrderRejectedError, "market_closed"),
        ("EService:Market in limit_only mode", OrderRejectedError, "market_closed"),
        ("EOrder:Insufficient funds", OrderRejectedError, "insufficient_margin"),
        ("EOrder:Order minimum not met", OrderRejectedError, "below_minimum"),
        ("EOrder:Reduce only:No position exists", OrderRejectedError, "already_flat"),
        ("EOrder:Reduce only:Position is closed", FateUnknownError, None),  # it has matched as much as it could
        ("EOrder:Reduce only:Non-PC", OrderRejectedError, "permission"),
        ("EBM:limit exceeded:CAL", OrderRejectedError, "permission"),
        ("EAuth:Too many requests", RateLimitedError, None),
        ("EAuth:Account unconfirmed", OrderRejectedError, "permission"),
        ("EGeneral:Invalid arguments:volume", OrderRejectedError, "other"),
        ("EGeneral:Permission denied", OrderRejectedError, "permission"),
        ("EAPI:Invalid key", OrderRejectedError, "permission"),
        ("EOrder:Something nobody heard of", OrderRejectedError, "other"),
    ],
)
def test_an_error_text_of_kraken_maps_to_one_error(word: str, kind: type[Exception], reason: str | None) -> None:
    """In the answer to an order, through the real client: "Spot Error Messages" of Kraken's documentation."""
    venue = TypedAnswers(AddOrder={"error": [word]})
    request = OrderRequest(NAME, "BTC/USD", "sell", "long", D("0.5"), reduce_only=True)

    async def scenario(made: CcxtVenue) -> VenueError:
        with pytest.raises(VenueError) as caught:
            await made.submit(request)
        return caught.value

    error = venue.run(scenario)
    assert type(error) is kind
    assert getattr(error, "reason", None) == reason
    assert word in str(error)


def test_cancelling_an_order_that_is_gone_is_no_error() -> None:
    """`EOrder:Unknown order`."""
    venue = TypedAnswers(CancelOrder={"error": ["EOrder:Unknown order"]})
    venue.run(lambda made: made.cancel("BTC/USD", "O1"))
    assert [name for name, _ in venue.asked if name == "CancelOrder"] == ["CancelOrder"]


def test_the_dead_man_timer_is_for_the_whole_account() -> None:
    """In seconds; zero stops it."""
    venue = TypedAnswers(CancelAllOrdersAfter={"currentTime": "…", "triggerTime": "0"})

    async def scenario(made: CcxtVenue) -> None:
        timed: Any = made
        await timed.dead_man.arm(60.0, ["BTC/USD"])
        await timed.dead_man.disarm([])

    venue.run(scenario)
    assert [asked["timeout"] for name, asked in venue.asked if name == "CancelAllOrdersAfter"] == ["60", "0"]


def test_a_sandbox_is_rejected_before_any_request() -> None:
    """ccxt itself raises a TypeError."""
    spec = AccountSpec("main", "ccxt", "spot", "USD", None, {}, KEYS, exchange="kraken", environment="sandbox")
    with pytest.raises(ValueError, match="kraken has no sandbox; it has neither sandbox nor demo"):
        adapter(spec)


def test_the_limits_are_those_of_the_accounts_tier() -> None:
    """In tenths of a request, so that the few of a snapshot can be counted; an unknown tier is rejected."""

    def limits(**options: Any) -> Any:
        made: Any = adapter(AccountSpec("main", "ccxt", "spot", "USD", None, options, KEYS, exchange="kraken"))
        return {it.name: (it.allowed, it.per) for it in made.traits.limits}

    assert limits() == {"counter": (150, 45.0), "matching": (60, 60.0)}
    assert limits(tier="pro")["counter"] == (200, 20.0)
    with pytest.raises(ValueError, match="one of starter, intermediate, pro"):
        limits(tier="gold")


COUNTED = {
    "BalanceEx": 1, "TradeBalance": 1, "OpenPositions": 1, "OpenOrders": 1, "ClosedOrders": 1, "QueryOrders": 1,
    "Ledgers": 2, "TradesHistory": 2,
}  # fmt: skip
"""Units of the venue's counter, from its documentation."""


@pytest.mark.parametrize(
    ("tier", "most", "a_second"), [("starter", 15, 0.33), ("intermediate", 20, 0.5), ("pro", 20, 1.0)]
)
@pytest.mark.parametrize("market", ["spot", "margin"])
@pytest.mark.parametrize("closing", [False, True])
def test_the_request_counter_never_overflows(tier: str, most: int, a_second: float, market: str, closing: bool) -> None:
    """Two quiet minutes with a tick a second, and with an order sent and queried at every third tick."""
    time = VirtualTime()
    venue = TypedAnswers(
        market, options={"tier": tier, "clock": time}, BalanceEx={"ZUSD": {"balance": "5"}}, OpenPositions={},
        TradeBalance={"e": "5", "mf": "5", "m": "0"}, AddOrder={"txid": ["O1"], "descr": {}},
    )  # fmt: skip
    level, at, highest = 0.0, time.elapsed, 0.0

    def counted(units: int, answer: Any) -> Any:
        def heard(asked: dict[str, str]) -> Any:
            nonlocal level, at, highest
            level = max(0.0, level - (time.elapsed - at) * a_second) + units
            at, highest = time.elapsed, max(highest, level)
            return answer(asked) if callable(answer) else answer

        return heard

    for name, units in COUNTED.items():
        venue.answers[name] = counted(units, venue.answers.get(name))

    async def scenario(made: Any) -> Any:
        for tick in range(120):
            if closing and tick % 3 == 0:
                await made.submit(OrderRequest(NAME, "BTC/USD", "sell", "long", D("0.5"), reduce_only=True))
                await made.find_order("BTC/USD", NAME)
            assert (await made.snapshot()).quality == "ok"
            await asyncio.sleep(1)
        return next(it.units for it in made.traits.costs if (it.call, it.limit) == ("snapshot", "counter"))

    declared = venue.run(scenario, time)
    assert highest <= most
    if not closing:
        # 8: the first requests
        assert 10 * sum(COUNTED.get(name, 0) for name, _ in venue.asked) <= declared * 120 + 10 * 8


@pytest.mark.parametrize(("market", "question"), [("spot", "BalanceEx"), ("margin", "OpenPositions")])
def test_holdings_from_before_an_order_are_not_reused_after_it(market: str, question: str) -> None:
    """The last answer is reused while nothing happens, and is invalid once an order was sent."""
    time = VirtualTime()
    venue = TypedAnswers(
        market, options={"clock": time}, BalanceEx={"ZUSD": {"balance": "5"}}, OpenPositions={},
        TradeBalance={"e": "5", "mf": "5", "m": "0"}, AddOrder={"error": ["EService:Timeout"]},
    )  # fmt: skip

    def asked() -> int:
        return sum(name == question for name, _ in venue.asked)

    async def scenario(made: CcxtVenue) -> tuple[int, ...]:
        counts = []
        for _ in range(3):
            await made.snapshot()
            counts.append(asked())
            await asyncio.sleep(1)
        with pytest.raises(FateUnknownError):
            await made.submit(OrderRequest(NAME, "BTC/USD", "sell", "long", D("0.5"), reduce_only=True))
        await made.snapshot()
        return (*counts, asked())

    assert venue.run(scenario, time) == (1, 1, 1, 2)


def test_the_recorded_answers_to_an_order_and_its_end_are_read(shared: Path) -> None:
    """Accepted with an order id; a cancel that cancelled one order."""
    venue = TypedAnswers(AddOrder=recorded(shared, "add_order_spot"), CancelOrder=recorded(shared, "cancel_order_spot"))

    async def scenario(made: CcxtVenue) -> Any:
        told = await made.submit(OrderRequest(NAME, "BTC/USD", "sell", "long", D("0.01"), reduce_only=False))
        await made.cancel("BTC/USD", told.id)
        return told

    told = venue.run(scenario)
    assert (told.id, told.state, told.amount) == ("OUF4EM-FRGI2-MQMWZD", "open", D("0.01"))


def test_the_recorded_status_of_the_venue_is_read(shared: Path) -> None:
    """Online is available."""
    venue = TypedAnswers(SystemStatus=recorded(shared, "system_status"), Time=recorded(shared, "server_time"))
    assert venue.run(lambda made: made.inspect()).status == "ok"


class FillingVenue:
    """A spot account where every order is filled at 100,000 at once; `after` decides what happens to the answer."""

    def __init__(self, after: str) -> None:
        self.held = {"XXBT": D("0.5"), "ZUSD": D(0)}
        self.orders: dict[str, dict[str, str]] = {}
        self.after = after

    def answers(self) -> dict[str, Any]:
        return {
            "BalanceEx": lambda asked: {name: {"balance": str(it)} for name, it in self.held.items()},
            "AddOrder": self.add, "ClosedOrders": self.closed, "QueryOrders": self.query, "QueryTrades": self.trades,
        }  # fmt: skip

    def add(self, asked: dict[str, str]) -> object:
        volume = D(asked["volume"])
        if volume > self.held["XXBT"]:
            return {"error": ["EOrder:Insufficient funds"]}
        self.held["XXBT"] -= volume
        self.held["ZUSD"] += volume * 100_000
        number = f"O{len(self.orders) + 1}"
        self.orders[number] = {
            "cl_ord_id": asked["cl_ord_id"], "status": "closed", "vol": asked["volume"], "vol_exec": asked["volume"],
            "price": "100000", "fee": "1",
        }  # fmt: skip
        if self.after == "unavailable":
            self.after = "good"
            return {"error": ["EService:Unavailable"]}
        return {"txid": [number], "descr": {"order": "…"}}

    def closed(self, asked: dict[str, str]) -> object:
        found = {it: row for it, row in self.orders.items() if row["cl_ord_id"] == asked.get("cl_ord_id")}
        return {"closed": found, "count": len(found)}

    def query(self, asked: dict[str, str]) -> object:
        return {it: row | {"trades": [f"T{it}"]} for it, row in self.orders.items() if it == asked["txid"]}

    def trades(self, asked: dict[str, str]) -> object:
        numbers = asked["txid"].split(",")
        return {
            f"T{it}": {"ordertxid": it, "pair": "XXBTZUSD", "time": 1688585840.8, "type": "sell", "price": "100000",
                       "vol": row["vol"], "fee": "1"}
            for it, row in self.orders.items() if f"T{it}" in numbers
        }  # fmt: skip


@pytest.mark.parametrize("after", ["good", "unavailable"])
def test_a_holding_is_sold_once(tmp_path: Path, after: str) -> None:
    """Also where the venue accepted the order and answered that it was not available."""
    venue, time = FillingVenue(after), VirtualTime()
    journal = TypedAnswers(**venue.answers()).run(lambda made: closed(made, time, tmp_path), time)
    assert [entry.data.get("status") for entry in journal if entry.kind == "finished"] == ["flat"]
    assert (venue.held, len(venue.orders)) == ({"XXBT": D(0), "ZUSD": D(50_000)}, 1)
    (name,) = (row["cl_ord_id"] for row in venue.orders.values())
    assert [len(part) for part in name.split("-")] == [8, 4, 4, 4, 12]


@pytest.mark.parametrize(
    "balances", [{}, {"ZUSD": {"balance": "-5"}}, {"ZUSD": {"balance": "5"}, "XXBT": {"balance": "-0.5"}}]
)
def test_no_balance_and_a_negative_balance_are_unreadable(balances: dict[str, Any]) -> None:
    """An empty list is no empty account, and a holding with a minus is no short position."""
    seen = TypedAnswers(BalanceEx=balances).run(snapshot)
    assert (seen.quality, seen.equity, seen.positions) == ("malformed", None, None)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"vol": "-0.1"}, "volume of fill T1 is -0.1"), ({"price": "0"}, "price of fill T1 is 0"),
        ({"pair": None}, "the pair of fill T1"), ({"ordertxid": {}}, "is no id"), ({"time": -1}, "is no time"),
    ],
)  # fmt: skip
def test_a_damaged_trade_leaves_the_fills_unknown_with_a_reason(row: dict[str, Any], why: str) -> None:
    """The positions of a spot account do not depend on it."""
    trade = {"ordertxid": "O1", "pair": "XXBTZUSD", "time": 1688585840.8, "type": "sell", "price": "100000",
             "vol": "0.1", "fee": "1"} | row  # fmt: skip
    history = {"trades": {"T1": trade}, "count": 1}
    seen = TypedAnswers(BalanceEx={"ZUSD": {"balance": "5"}}, TradesHistory=history).run(snapshot)
    assert (seen.quality, seen.fills, why in str(seen.reason)) == ("ok", None, True)


def test_rows_that_are_counted_and_not_listed_are_unknown() -> None:
    """One trade is counted, and the list is empty: it is no proof that there was none."""
    seen = TypedAnswers(
        BalanceEx={"ZUSD": {"balance": "5"}}, TradesHistory={"trades": {}, "count": 1},
        OpenOrders={"open": {"O1": None}},
    ).run(snapshot)  # fmt: skip
    assert (seen.fills, seen.orders) == (None, None)
