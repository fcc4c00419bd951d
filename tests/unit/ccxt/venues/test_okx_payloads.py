"""Every recorded answer of OKX about an account: its content is read, or is reported as unknown.

Expected values are read from the answers by hand, with the rules of OKX's documents: contracts × contract size × mark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from killswitch.model.venue import MalformedAnswerError, OrderRejectedError
from tests.wire.okx.desk import BTC, ETH, OkxDesk, order
from tests.wire.server import Reply

D = Decimal
NOTHING = Reply({"code": "0", "msg": "", "data": []})
PUBLIC = {
    "candlesticks", "candlesticks_full", "funding_rate_history", "index_price", "instruments_futures",
    "instruments_margin", "instruments_option", "instruments_spot", "instruments_swap", "mark_price", "option_summary",
    "order_book", "position_tiers", "spreads", "trades",
}  # fmt: skip
"""Answers that do not concern an account, without `http_get_` and `.json`."""
NOT_ASKED = {
    "http_get_account_positions-history.json",
    "http_get_spread_orders.json",
    "http_get_spread_trades.json",
    "http_get_trade_fee_response.json",
    "http_set_position_mode_response.json",
}
"""Answers about an account that the adapter never requests."""
REPLAYED = {
    "http_balance_detail_new_fields.json", "http_balance_detail_old_fields.json", "http_get_account_balance.json",
    "http_get_positions.json", "http_get_orders_pending.json", "http_get_orders_pending_with_attached_tp_sl.json",
    "http_get_orders_algo_pending.json", "http_get_orders_algo_pending_attached_oco.json",
    "http_get_orders_algo_pending_close_fraction.json", "http_get_orders_history.json",
    "http_get_orders_algo_history.json", "http_transaction_detail.json", "http_transaction_detail_empty_fee.json",
    "http_place_order_response.json", "http_place_algo_order_response.json", "http_place_algo_order_rejected.json",
    "http_cancel_algo_order_response.json",
}  # fmt: skip


class Replay:
    """An account whose venue returns these answers, and empty ones where a test names none."""

    def __init__(self, shared: Path) -> None:
        self._folder = shared / "data" / "payloads" / "okx"
        self.desk = OkxDesk({})
        self.answers("GET public/instruments SWAP", "http_get_instruments_swap.json")
        for route in ("GET account/positions", "GET trade/orders-pending", "GET trade/orders-algo-pending"):
            self.desk.venue.instead[route] = NOTHING

    def answers(self, route: str, name: str) -> None:
        """That file, in OKX's frame where it is a row without one."""
        text = (self._folder / name).read_text()
        body: Any = json.loads(text)
        framed = text if "data" in body else {"code": "0", "msg": "", "data": [body]}
        self.desk.venue.instead[route] = Reply(framed)

    def snapshot(self) -> Any:
        return self.desk.run(lambda venue: venue.snapshot())


@pytest.fixture
def replay(shared: Path) -> Replay:
    return Replay(shared)


def test_every_answer_about_an_account_is_replayed(shared: Path) -> None:
    """A new file must be sorted into one of these lists by hand."""
    found = {it.name for it in (shared / "data" / "payloads" / "okx").glob("http_*.json")}
    public = {f"http_get_{name}.json" for name in PUBLIC}
    assert found == public | NOT_ASKED | REPLAYED


def test_a_balance_is_in_its_own_currency_and_not_in_dollars(replay: Replay) -> None:
    """99.8946… USDT, which OKX values at 99.8887… dollars; the account's margin excludes isolated positions."""
    replay.answers("GET account/balance", "http_get_account_balance.json")
    replay.answers("GET account/positions", "http_get_positions.json")
    seen = replay.snapshot()
    assert (seen.equity, seen.free) == (D("99.89469657000001"), D("94.42612990333333"))
    assert (seen.margin_used, seen.maintenance_margin) == (D("5.468566666666667"), None)
    (held,) = seen.balances
    assert (held.asset, held.amount, held.price) == ("USDT", D("99.89469657000001"), 1)


@pytest.mark.parametrize("name", ["new", "old"])
def test_a_row_of_a_balance_is_read_with_new_and_with_old_fields(replay: Replay, name: str) -> None:
    """100 USDT either way."""
    replay.answers("GET account/balance", f"http_balance_detail_{name}_fields.json")
    body: Any = replay.desk.venue.instead["GET account/balance"].body
    row = {"totalEq": "100.0", "details": body["data"]}
    replay.desk.venue.instead["GET account/balance"] = Reply({"code": "0", "msg": "", "data": [row]})
    seen = replay.snapshot()
    assert (seen.equity, seen.free, seen.maintenance_margin) == (100, 100, 0)


def test_a_position_is_in_contracts_and_omits_money_of_another_currency(replay: Replay) -> None:
    """0.5 × 0.01 BTC × 10,000 = 50 USDT. Its margin and profit are in BTC here; an index of 0 is read as missing."""
    replay.answers("GET account/positions", "http_get_positions.json")
    (held,) = replay.snapshot().positions
    assert (held.symbol, held.side, held.contracts, held.notional) == (BTC, "long", D("0.5"), 50)
    assert (held.entry_price, held.mark_price, held.last_price, held.index_price) == (10000, 10000, 10000, None)
    assert (held.liquidation_price, held.leverage, held.adl_rank) == (9000, 10, 0)
    assert (held.margin, held.unrealized_pnl) == (None, None)


def test_a_position_without_instrument_rules_makes_the_account_unknown(replay: Replay) -> None:
    """Without the contract size the value of a contract is unknown."""
    replay.answers("GET account/positions", "http_get_positions.json")
    replay.desk.venue.instead["GET public/instruments SWAP"] = NOTHING
    replay.answers("GET public/instruments FUTURES", "http_get_instruments_futures.json")
    seen = replay.snapshot()
    assert (seen.quality, seen.positions, "BTC-USDT-SWAP" in seen.reason) == ("malformed", None, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orders_pending", ("1234567890123456789", BTC, "buy", D("0.10"), 103500, "client-order-1")),
        (
            "orders_pending_with_attached_tp_sl",
            ("2234567890123456789", ETH, "buy", D("0.01"), 2300, "O-attached-entry"),
        ),
    ],
)
def test_a_plain_order_with_attached_orders_is_not_conditional(
    replay: Replay, name: str, expected: tuple[object, ...]
) -> None:
    """It opens a long, and its price is a limit; its stop and its target rest once it is filled."""
    replay.answers("GET trade/orders-pending", f"http_get_{name}.json")
    (found,) = replay.snapshot().orders
    told = (found.id, found.symbol, found.side, found.amount, found.price, found.client_order_id)
    assert told == expected
    assert (found.trigger_price, found.reduce_only, found.position_side, found.filled) == (None, False, "long", 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", ("123456789", BTC, "buy", 1, 40000, 40000, "trigger_limit", "long", False, "client_algo_1")),
        ("_attached_oco", ("oco-attached-algo", ETH, "sell", D("0.01"), 39000, None, "stop_market", "long", True,
                           "O-attached-oco")),
        ("_close_fraction", ("close-frac-algo", BTC, "sell", D("0.5"), 50000, None, "stop_market", "long", True,
                             "O-close-frac-status")),
    ],
)  # fmt: skip
def test_an_algo_order_has_its_trigger(replay: Replay, name: str, expected: tuple[object, ...]) -> None:
    """A price of -1 is a market order; a close fraction of 1 closes the 0.5 contracts that are held."""
    replay.answers("GET account/positions", "http_get_positions.json")
    replay.answers("GET trade/orders-algo-pending", f"http_get_orders_algo_pending{name}.json")
    (found,) = replay.snapshot().orders
    told = (
        found.id, found.symbol, found.side, found.amount, found.trigger_price, found.price, found.type,
        found.position_side, found.reduce_only, found.client_order_id,
    )  # fmt: skip
    assert told == expected


def test_a_fraction_of_an_unread_position_is_unknown(replay: Replay) -> None:
    """A request for the orders alone raises, because the position was never read."""
    replay.answers("GET trade/orders-algo-pending", "http_get_orders_algo_pending_close_fraction.json")

    async def talk(venue: Any) -> None:
        with pytest.raises(MalformedAnswerError, match="close-frac-algo"):
            await venue.open_orders()

    replay.desk.run(talk)


def test_a_past_order_is_reported_as_it_ended(replay: Replay) -> None:
    """0.03 contracts at 103,698.9 for a fee of 0.021776769 USDT."""
    replay.answers("GET trade/order", "http_get_orders_history.json")
    found = replay.desk.run(lambda venue: venue.find_order(BTC, "kswa1"))
    assert (found.id, found.state, found.filled) == ("2497956918703120384", "filled", D("0.03"))
    assert (found.average_price, found.fee) == (D("103698.9"), D("0.021776769"))


def test_a_triggered_stop_is_reported_as_the_order_that_it_sent(replay: Replay) -> None:
    """The stop is `effective` and names its order; that order was filled."""
    replay.answers("GET trade/order-algo", "http_get_orders_algo_history.json")
    replay.answers("GET trade/order", "http_get_orders_history.json")
    sent = replay.desk.venue.instead.pop("GET trade/order")

    async def talk(venue: Any) -> Any:
        desk = replay.desk.venue
        # The first request is for the client id, which no plain order has; the second for the id that the stop names.
        original = desk.answer

        def answer(ask: Any) -> Reply:
            return sent if ask.params.get("ordId") == "ord_456" else original(ask)

        desk.answer = answer  # type: ignore[method-assign] # for one test
        return await venue.find_order(ETH, "client_algo_2")

    found = replay.desk.run(talk)
    assert (found.id, found.client_order_id, found.state) == ("2497956918703120384", "client_algo_2", "filled")


@pytest.mark.parametrize(("name", "fee"), [("", D("-0.042")), ("_empty_fee", None)])
def test_a_fill_has_the_charged_fee_or_none(replay: Replay, name: str, fee: Decimal | None) -> None:
    """OKX writes what it charges as negative, so 0.042 is a rebate; an empty fee is unknown and not zero."""
    replay.answers("GET trade/fills", f"http_transaction_detail{name}.json")
    (fill,) = replay.snapshot().fills
    assert (fill.id, fill.order, fill.side, fill.price) == ("bill_456", "987654321", "buy", D("42000.5"))
    assert (fill.amount, fill.fee, fill.cause) == (D("0.001"), fee, "trade")


@pytest.mark.parametrize(
    ("route", "name", "more", "number"),
    [
        ("POST trade/order", "place_order_response", {"name": "client_order_123"}, "12345678901234567890"),
        ("POST trade/order-algo", "place_algo_order_response",
         {"name": "test_algo_1", "trigger_price": D(2500), "trigger_when": "falls"}, "12345"),
    ],
)  # fmt: skip
def test_an_accepted_order_is_open(replay: Replay, route: str, name: str, more: Mapping[str, Any], number: str) -> None:
    """Its filled amount is requested afterwards."""
    replay.answers(route, f"http_{name}.json")
    found = replay.desk.run(lambda venue: venue.submit(order(symbol=ETH, **more)))
    assert (found.id, found.state, found.filled, found.client_order_id) == (number, "open", 0, more["name"])


def test_an_algo_order_rejected_in_its_row_is_rejected_though_the_outer_code_is_0(replay: Replay) -> None:
    """The row has the code 51000: ccxt raises nothing."""
    replay.answers("POST trade/order-algo", "http_place_algo_order_rejected.json")

    async def talk(venue: Any) -> None:
        with pytest.raises(OrderRejectedError, match="51000"):
            await venue.submit(order("test_algo_rej", trigger_price=D(2500), trigger_when="falls", symbol=ETH))

    replay.desk.run(talk)


def test_an_algo_order_is_cancelled_through_its_own_route(replay: Replay) -> None:
    """A stop that was read is never searched among the plain orders."""
    replay.answers("GET trade/orders-algo-pending", "http_get_orders_algo_pending.json")
    replay.answers("POST trade/cancel-algos", "http_cancel_algo_order_response.json")

    async def talk(venue: Any) -> None:
        (found,) = await venue.open_orders()
        await venue.cancel(found.symbol, found.id)

    replay.desk.run(talk)
    posted = [it.ask.route for it in replay.desk.venue.seen if it.ask.method == "POST"]
    assert posted == ["POST /api/v5/trade/cancel-algos"]
