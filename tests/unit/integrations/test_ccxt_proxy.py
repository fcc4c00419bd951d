"""The proxy of ccxt: what it lets through, how it reads an order, and what it adds to one. Without a network."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest

from killswitch.integrations import OrderNotSentError, OrderPermits
from killswitch.integrations.ccxt_orders import UnjudgeableOrderError, children_of, order_asked
from killswitch.integrations.ccxt_proxy import JUDGED, PASSING, GatedAsyncExchange, gated
from tests.unit.integrations.asked_gate import AskedGate, lock_at

SWAP = {"symbol": "BTC/USDT:USDT", "base": "BTC", "quote": "USDT", "contract": True, "swap": True, "spot": False}
SPOT = {"symbol": "ETH/USDT", "base": "ETH", "quote": "USDT", "contract": False, "spot": True}


class Venue(ccxt.Exchange):  # type: ignore[misc] # ccxt has no types
    """ccxt's own class; requests are recorded and none leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []
        self.fails: Exception | None = None
        self.markets = {each["symbol"]: each for each in (SWAP, SPOT)}

    def market(self, symbol: str) -> Any:
        return self.markets[symbol]

    def create_order(self, *arguments: Any) -> Any:
        self.sent.append(arguments)
        if self.fails is not None:
            raise self.fails
        return {"id": str(len(self.sent))}

    def create_orders(self, *arguments: Any) -> Any:
        self.sent.append(arguments)

    def edit_order(self, *arguments: Any) -> Any:
        self.sent.append(arguments)


def asked(side: str = "buy", market: Any = SWAP, kind: str = "market", amount: Any = 1, price: Any = None,
          **more: Any) -> dict[str, Any]:  # fmt: skip
    """The question of an order with these parameters."""
    return order_asked(market, kind, side, amount, price, more.pop("params", {}), **more)


@pytest.mark.parametrize("exchange", [ccxt.binanceusdm, ccxt.okx, ccxt.pro.bybit, ccxt.async_support.kraken])
def test_every_name_of_an_exchange_that_could_send_an_order_is_judged_or_refused(exchange: Any, tmp_path: Path) -> None:
    """Aliases, helpers, lists, sockets, raw endpoints, transfers: nothing with such a verb passes by its name."""
    permits = OrderPermits(lock_file=lock_at(tmp_path / "lock.json", "reduce_only"))
    inner = exchange()
    proxy = gated(inner, permits)
    verbs = ("create", "edit", "close_", "closea", "closep", "private", "request", "fapi", "transfer", "withdraw",
             "borrow", "repay", "convert", "fetch2", "add_margin", "reduce", "sign", "call", "api_")  # fmt: skip
    names = [name for name in dir(inner) if not name.startswith("_") and name.lower().startswith(verbs)]
    assert len(names) > 100
    passed = [name for name in names if name.replace("_", "").lower() in PASSING]
    assert passed == []
    for name in ("request", "fetch2", "withdraw", "create_order_ws", "createOrderWs", "transfer", "close_position"):
        with pytest.raises(OrderNotSentError, match="not known to be harmless"):
            getattr(proxy, name)("BTC/USDT:USDT")
    for name in ("__dict__", "_inside"):
        assert getattr(proxy, name) is not inner
    with pytest.raises(AttributeError):
        proxy.secret  # noqa: B018 - the attribute must not be there
    with pytest.raises(AttributeError):
        proxy.verbose = True


def test_reads_cancels_and_sums_pass_under_either_spelling(tmp_path: Path) -> None:
    """As methods of the exchange itself."""
    venue = Venue()
    proxy = gated(venue, OrderPermits(lock_file=lock_at(tmp_path / "lock.json", "all")), also=["publicGetTime"])
    for name in ("fetch_balance", "fetchOHLCV", "fetch_positions", "cancel_order", "cancelAllOrders", "watchOrders",
                 "amount_to_precision", "loadMarkets", "iso8601"):  # fmt: skip
        assert getattr(proxy, name) == getattr(venue, name)
    assert proxy.markets is venue.markets
    assert not JUDGED & PASSING


def test_an_order_is_put_as_a_question_with_unit_flag_and_client_order_id(tmp_path: Path) -> None:
    """The id goes to the venue as well, where the gate recognises the order by it."""
    gate, venue = AskedGate("allowed"), Venue()
    gated(venue, OrderPermits("main", gate=gate)).create_order("BTC/USDT:USDT", "limit", "buy", 0.5, 93000)
    ((order,),) = gate.asked
    params = venue.sent[0][5]
    assert order == {
        "symbol": "BTC/USDT:USDT", "side": "buy", "type": "limit", "amount": "0.5", "unit": "contracts",
        "price": "93000", "client_order_id": params["clientOrderId"],
    }  # fmt: skip
    assert params.keys() == {"clientOrderId"}


def test_an_exit_that_the_gate_has_proved_is_sent_reduce_only() -> None:
    """On contracts in one-way mode; in hedge mode the side bounds it, and venues refuse the flag."""
    venue = Venue()
    proxy = gated(venue, OrderPermits("main", gate=AskedGate("exit", effect="proved")))
    proxy.create_order("BTC/USDT:USDT", "market", "sell", 1)
    proxy.create_order("BTC/USDT:USDT", "market", "sell", 1, None, {"positionSide": "LONG"})
    proxy.create_order("ETH/USDT", "market", "sell", 1)
    assert [each[5].get("reduceOnly") for each in venue.sent] == [True, None, None]


def test_what_is_locked_is_refused_as_ccxt_refuses(tmp_path: Path) -> None:
    """`except ccxt.BaseError` of a bot catches it; it is no error of the network, after which bots send again."""
    venue = Venue()
    proxy = gated(venue, OrderPermits(lock_file=lock_at(tmp_path / "lock.json", "reduce_only")))
    sends: list[Any] = [
        lambda: proxy.create_order("BTC/USDT:USDT", "market", "buy", 1),
        lambda: proxy.createOrder("BTC/USDT:USDT", "market", "buy", 1),
        lambda: proxy.create_orders([{"symbol": "BTC/USDT:USDT", "type": "market", "side": "buy", "amount": 1}]),
        lambda: proxy.createOrders([{"symbol": "BTC/USDT:USDT", "type": "market", "side": "buy", "amount": 1}]),
        lambda: proxy.edit_order("x1", "BTC/USDT:USDT", "limit", "buy", 1, 90),
        lambda: proxy.editOrder("x1", "BTC/USDT:USDT", "limit", "buy", 1, 90, {"reduceOnly": True}),
        lambda: proxy.create_limit_buy_order("BTC/USDT:USDT", 1, 90),
        lambda: proxy.create_market_sell_order("BTC/USDT:USDT", 1, {}),
        lambda: proxy.createMarketOrder("BTC/USDT:USDT", "buy", 1),
    ]
    venue.has["editOrder"] = True
    for send in sends:
        with pytest.raises(ccxt.PermissionDenied, match="not sent"):
            send()
    assert venue.sent == []
    proxy.create_order("BTC/USDT:USDT", "market", "sell", 1, None, {"reduceOnly": True})
    proxy.create_market_sell_order("BTC/USDT:USDT", 1, {"reduceOnly": True})
    proxy.create_orders([{"symbol": "BTC/USDT:USDT", "type": "market", "side": "sell", "amount": 1,
                          "params": {"reduceOnly": True}}])  # fmt: skip
    assert len(venue.sent) == 3
    assert venue.sent[1][:5] == ("BTC/USDT:USDT", "market", "sell", 1, None)


def test_the_venue_keeps_the_flag_of_what_it_amends(tmp_path: Path) -> None:
    """So an exit that went through the proxy may be re-priced under a lock, and no entry by claiming to be one."""
    venue = Venue()
    venue.has["editOrder"] = True
    path = tmp_path / "lock.json"
    proxy = gated(venue, OrderPermits(lock_file=lock_at(path)))
    leaving = proxy.create_order("BTC/USDT:USDT", "limit", "sell", 1, 110, {"reduceOnly": True})
    entry = proxy.create_order("BTC/USDT:USDT", "limit", "buy", 1, 90)
    lock_at(path, "reduce_only")
    proxy.edit_order(leaving["id"], "BTC/USDT:USDT", "limit", "sell", 1, 105)
    with pytest.raises(OrderNotSentError):
        proxy.edit_order(entry["id"], "BTC/USDT:USDT", "limit", "buy", 1, 95, {"reduceOnly": True})
    with pytest.raises(OrderNotSentError, match="total"):
        proxy.edit_order(leaving["id"], "BTC/USDT:USDT", "limit", "sell", None, 105)


def test_a_refusal_of_the_venue_is_reported_and_a_time_out_is_not() -> None:
    """After a time-out the order may exist."""
    gate, venue = AskedGate("allowed"), Venue()
    proxy = gated(venue, OrderPermits("main", gate=gate))
    for error in (ccxt.RequestTimeout("x"), ccxt.InsufficientFunds("x")):
        venue.fails = error
        with pytest.raises(type(error)):
            proxy.create_order("BTC/USDT:USDT", "market", "buy", 1)
    assert gate.reported == ["refused"]


def test_an_asynchronous_exchange_gets_an_asynchronous_proxy(tmp_path: Path) -> None:
    """The same judgement, awaited."""

    class AsyncVenue(Venue):
        async def create_order(self, *arguments: Any) -> Any:
            return super().create_order(*arguments)

    venue = AsyncVenue()
    proxy = gated(venue, OrderPermits(lock_file=lock_at(tmp_path / "lock.json", "reduce_only")))
    assert isinstance(proxy, GatedAsyncExchange)
    with pytest.raises(ccxt.PermissionDenied):
        asyncio.run(proxy.createOrder("BTC/USDT:USDT", "market", "buy", amount=1))
    asyncio.run(proxy.create_order("BTC/USDT:USDT", "market", "sell", 1, params={"reduceOnly": True}))
    assert len(venue.sent) == 1


@pytest.mark.parametrize(
    ("params", "claim"),
    [
        ({"reduceOnly": True}, {"reduce_only": True}),
        ({"reduceOnly": "true"}, {}),
        ({"reduceOnly": True, "reduce_only": False}, {}),
        ({"reduce_only": True}, {}),
        ({"positionSide": "LONG"}, {"position_side": "long", "is_exit": True}),
        ({"positionSide": "SHORT"}, {"position_side": "short"}),
        ({"positionSide": "BOTH"}, {}),
        ({"hedged": True, "reduceOnly": True}, {"position_side": "long", "is_exit": True, "reduce_only": True}),
        ({"hedged": True}, {"position_side": "short"}),
    ],
)
def test_only_true_is_a_flag_and_in_hedge_mode_the_side_decides(params: Any, claim: Any) -> None:
    """Of a sale."""
    found = asked("sell", params=params, allowed=["reduce_only"])
    assert {key: found[key] for key in ("reduce_only", "position_side", "is_exit") if key in found} == claim


@pytest.mark.parametrize("flag", ["reduceOnly", "closePosition"])
def test_on_spot_no_flag_makes_an_exit_of_what_is_bought(flag: str) -> None:
    """The venue ignores it there, and buys; with margin it is the venue's."""
    bought = asked("buy", SPOT, params={flag: True})
    assert not bought.keys() & {"reduce_only", "close_position", "is_exit"}
    assert bought["amount"] != "0"
    assert asked("sell", SPOT, params={"reduceOnly": True})["is_exit"]
    assert asked("buy", SPOT, params={"reduceOnly": True, "marginMode": "cross"})["reduce_only"]


def test_a_whole_position_is_closed_only_by_an_order_without_an_amount() -> None:
    """A venue that does not know the flag would carry the amount out."""
    assert asked("sell", amount=None, params={"closePosition": True})["close_position"]
    stated = asked("sell", amount=5, params={"closePosition": True})
    assert ("close_position" in stated, stated["amount"]) == (False, "5")


def test_on_spot_selling_into_cash_is_an_exit() -> None:
    """What receives another asset is an entry, whichever side it is on."""
    cash = ["USDT"]
    assert asked("sell", SPOT, cash=cash)["is_exit"]
    assert "is_exit" not in asked("sell", SPOT)
    assert "is_exit" not in asked("buy", SPOT, cash=cash)
    assert asked("buy", {**SPOT, "base": "USDC", "quote": "ETH"}, cash=["USDC"])["is_exit"]
    assert asked("buy", SPOT, params={"killswitchExit": True})["is_exit"]


@pytest.mark.parametrize("param", ["quantity", "side", "symbol", "quoteOrderQty", "sz", "type", "category"])
def test_a_parameter_that_may_change_what_was_judged_is_refused(param: str) -> None:
    """ccxt merges it into the venue's request. An order that the venue bounds passes with it."""
    with pytest.raises(UnjudgeableOrderError, match=param):
        asked(params={param: "1"})
    assert asked(params={param: "1"}, allowed=[param])
    assert asked("sell", params={param: "1", "reduceOnly": True})


@pytest.mark.parametrize("amount", [None, 0, -1, "nan", float("inf"), "ten", True and "1e999999999"])
def test_an_amount_that_is_none_is_refused(amount: Any) -> None:
    """Before anything is asked."""
    with pytest.raises(UnjudgeableOrderError):
        asked(amount=amount)


def test_a_market_buy_by_cost_is_an_amount_of_money() -> None:
    """ccxt takes the amount for the cost where an exchange is set so."""
    assert asked(market=SPOT, amount=50, buys_by_cost=True) | {"type": "market"} == {
        "symbol": "ETH/USDT", "side": "buy", "type": "market", "amount": "50", "unit": "money", "currency": "USDT",
    }  # fmt: skip
    assert asked(market=SPOT, amount=50, params={"cost": 20})["amount"] == "20"
    assert asked("sell", SPOT, amount=2, buys_by_cost=True)["unit"] == "contracts"


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("market", {}, "market"), ("LIMIT", {}, "limit"), ("STOP_MARKET", {"stopPrice": 90}, "stop"),
        ("market", {"stopLossPrice": 90}, "stop"), ("limit", {"takeProfitPrice": 120}, "take_profit"),
        ("market", {"trailingPercent": 1}, "trailing_stop"),
    ],
)  # fmt: skip
def test_types_and_trigger_prices_are_those_of_the_gate(kind: str, params: Any, expected: str) -> None:
    """An unknown one is refused."""
    assert asked(kind=kind, price=100, params=params)["type"] == expected
    with pytest.raises(UnjudgeableOrderError):
        asked(kind="iceberg")


def test_attached_stops_and_targets_belong_to_their_entry() -> None:
    """Of the two, which the venue links, one counts."""
    params = {"stopLoss": {"triggerPrice": 90}, "takeProfit": {"triggerPrice": 120, "type": "limit"}}
    parent = asked(params=params)
    stop, target = children_of(parent, params, 0)
    assert (stop["side"], stop["type"], stop["trigger_price"], stop["parent"]) == ("sell", "stop", "90", 0)
    assert (target["type"], target["oco"], target["oco_by"]) == ("take_profit", stop["oco"], "venue")
    assert children_of(asked(), {}, 0) == []
