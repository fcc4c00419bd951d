"""Bybit's just filled orders, inverse positions in the account's currency, transaction log and codes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.venue import AccountSpec, FateUnknownError, OrderRejectedError, OrderRequest
from killswitch_ccxt.errors import ModeChangedError, VenueAnswer, as_venue_error
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.bybit.dialect import Bybit
from killswitch_ccxt.venues.bybit.flows import flow_of
from killswitch_ccxt.venues.bybit.rows import dollar_prices, row_report
from tests.faults.exchange import Market
from tests.wire.bybit import payloads

D = Decimal
BTC, INVERSE = "BTC/USDT:USDT", "BTC/USD:BTC"
INSTRUMENT = {
    "symbol": "BTCUSD", "contractType": "InversePerpetual", "status": "Trading", "baseCoin": "BTC", "quoteCoin": "USD",
    "settleCoin": "BTC", "launchTime": "1", "deliveryTime": "0", "priceScale": "2", "fundingInterval": 480,
    "leverageFilter": {"minLeverage": "1", "maxLeverage": "100", "leverageStep": "0.01"},
    "priceFilter": {"minPrice": "0.5", "maxPrice": "999999", "tickSize": "0.5"},
    "lotSizeFilter": {"maxOrderQty": "25000000", "minOrderQty": "1", "qtyStep": "1", "maxMktOrderQty": "5000000"},
}  # fmt: skip
SHORT = {
    "symbol": "BTCUSD", "side": "Sell", "size": "10000", "avgPrice": "50000", "positionValue": "0.2",
    "markPrice": "50000", "unrealisedPnl": "-0.004", "positionIM": "0.02", "liqPrice": "", "leverage": "10",
    "positionIdx": 0, "adlRankIndicator": 2,
}  # fmt: skip
CLOSED = {
    "symbol": "BTCUSD", "execId": "e1", "orderId": "o7", "orderLinkId": "ks1", "side": "Buy", "execType": "Trade",
    "execQty": "10000", "execPrice": "50000", "execFee": "0.00011", "feeCurrency": "BTC", "execPnl": "-0.004",
    "closedSize": "10000", "execTime": "1700000000000", "orderType": "Market",
}  # fmt: skip
FILLED = {
    "symbol": "BTCUSDT", "orderId": "o1", "orderLinkId": "ks1", "side": "Sell", "orderType": "Market", "qty": "1",
    "price": "", "orderStatus": "Filled", "cumExecQty": "1", "leavesQty": "0", "avgPrice": "100", "cumExecValue": "100",
    "reduceOnly": True, "positionIdx": 0, "createdTime": "1", "updatedTime": "1", "timeInForce": "IOC",
}  # fmt: skip
PART = {
    "symbol": "BTCUSDT", "execId": "e1", "orderId": "o1", "orderLinkId": "ks1", "side": "Sell", "execType": "Trade",
    "orderQty": "3", "leavesQty": "2", "execQty": "1", "execPrice": "100", "execFee": "0.1", "orderType": "Market",
    "closedSize": "1", "execTime": "1700000000000", "orderPrice": "0",
}  # fmt: skip
REST = PART | {"execId": "e2", "leavesQty": "0", "execQty": "2", "execPrice": "97", "execFee": "0.194"}
ASKED = OrderRequest("ks1", BTC, "sell", "long", D(1), reduce_only=True)

Rows = list[dict[str, Any]]


def _listed(rows: Rows) -> dict[str, Any]:
    return {"retCode": 0, "retMsg": "OK", "result": {"list": rows, "nextPageCursor": ""}, "time": 0}


class RowsVenue:
    """A venue with a linear and an inverse contract, which returns the rows that a function gives for a request."""

    def __init__(self, rows: Callable[[str, Mapping[str, str]], Rows], currency: str = "USDT") -> None:
        self.rows = rows
        self.asked: list[str] = []
        keys = {"key": "k", "secret": "s"}
        options: dict[str, object] = {"ccxt": {"told": currency}}
        self.venue = CcxtVenue(AccountSpec("main", "ccxt", "swap", currency, None, options, keys, "bybit"), Bybit)

    async def _fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        route = parts.path.removeprefix("/v5/")
        if route == "market/instruments-info":
            linear = payloads.instrument(payloads.listing(BTC), Market(BTC))
            listed: Rows = [linear if query["category"] == "linear" else INSTRUMENT]
            return _listed([] if "status" in query else listed)
        if route == "market/time":
            return {"retCode": 0, "result": {"timeSecond": "0", "timeNano": "0"}, "time": 0}
        self.asked.append(route)
        return _listed(self.rows(route, query))

    def run(self, talk: Callable[[CcxtVenue], Any]) -> Any:
        async def main() -> Any:
            client: Any = self.venue.client.ccxt  # the answer as the client records it
            client.fetch = self._fetch
            try:
                return await talk(self.venue)
            finally:
                await self.venue.close()

        return asyncio.run(main())


# An order that has just been filled


def test_an_order_that_ended_is_found_among_closed_orders_before_the_history() -> None:
    """The open orders no longer contain it, the history does not yet: the last 500 closed orders do."""
    here = RowsVenue(lambda route, query: [FILLED] if (route, query.get("openOnly")) == ("order/realtime", "1") else [])
    found = here.run(lambda venue: venue.find_order(BTC, "ks1"))
    assert (found.id, found.state, found.filled, found.average_price) == ("o1", "filled", 1, 100)


def test_an_order_found_only_in_its_executions_has_its_fills() -> None:
    """1 at 100 and 2 at 97 of 3 are 3 at 98; the fills by our client id are both."""

    def rows(route: str, query: Mapping[str, str]) -> Rows:
        mine = query.get("orderLinkId") == "ks1" or query.get("orderId") == "o1"
        return [REST, PART] if route == "execution/list" and mine else []

    found = RowsVenue(rows).run(lambda venue: venue.find_order(BTC, "ks1"))
    assert (found.id, found.client_order_id, found.state) == ("o1", "ks1", "filled")
    assert (found.amount, found.filled, found.average_price) == (3, 3, 98)
    fills = RowsVenue(rows).run(lambda venue: venue.fills(BTC, "ks1"))
    assert sorted((it.amount, it.price, it.fee) for it in fills) == [(1, 100, D("0.1")), (2, 97, D("0.194"))]


def test_a_partially_executed_order_may_still_rest() -> None:
    """1 of 3 is filled, and nothing shows that the rest has ended."""
    here = RowsVenue(lambda route, query: [PART] if route == "execution/list" else [])
    found = here.run(lambda venue: venue.find_order(BTC, "ks1"))
    assert (found.state, found.amount, found.filled) == ("open", 3, 1)


def test_an_order_in_no_list_is_none() -> None:
    """Open and closed orders, history and executions were queried; an execution with another client id is not ours."""
    here = RowsVenue(lambda route, query: [PART | {"orderLinkId": "other"}] if route == "execution/list" else [])
    assert here.run(lambda venue: venue.find_order(BTC, "ks1")) is None
    assert here.asked == ["order/realtime", "order/realtime", "order/history", "execution/list"]


# Money in other coins


def _inverse(coins: Mapping[str, tuple[str, str]]) -> Callable[[str, Mapping[str, str]], Rows]:
    """A short of 10,000 contracts of a dollar at 50,000, and what closed one before. `coins`: equity and dollars."""
    wallet = [{"coin": name, "equity": n, "usdValue": usd, "walletBalance": n} for name, (n, usd) in coins.items()]

    def rows(route: str, query: Mapping[str, str]) -> Rows:
        if route == "account/wallet-balance":
            total = str(sum(D(usd) for _, usd in coins.values()))
            return [{"totalEquity": total, "totalInitialMargin": "1000", "coin": wallet}]
        if query.get("category") != "inverse":
            return []
        return [SHORT] if route == "position/list" else [CLOSED] if route == "execution/list" else []

    return rows


@pytest.mark.parametrize(
    ("currency", "coins", "money"),
    [
        ("USDT", {"USDT": ("10000", "10000"), "BTC": ("1", "50000")}, (10000, -200, 1000, -200)),
        ("USDT", {"USDT": ("10000", "5000"), "BTC": ("1", "50000")}, (20000, -400, 2000, -400)),
        ("USD", {"BTC": ("1", "50000")}, (10000, -200, 1000, -200)),
        ("BTC", {"BTC": ("1", "50000")}, (D("0.2"), D("-0.004"), D("0.02"), D("-0.004"))),
        ("USDT", {"USDT": ("10000", "10000")}, (None, None, None, None)),
    ],
)
def test_an_inverse_position_is_converted_to_the_accounts_currency(
    currency: str, coins: Mapping[str, tuple[str, str]], money: tuple[Any, ...]
) -> None:
    """0.2 BTC at 50,000 dollars are 10,000; at half a dollar for a USDT, 20,000 of them; without a price, unknown."""

    async def once(venue: CcxtVenue) -> Any:
        return await venue.snapshot()

    seen = RowsVenue(_inverse(coins), currency).run(once)
    (held,), (fill,) = seen.positions, seen.fills
    assert (held.symbol, held.contracts, held.mark_price) == (INVERSE, 10000, 50000)
    assert (held.notional, held.unrealized_pnl, held.margin, fill.realized_pnl) == money
    assert (fill.fee, fill.fee_currency) == (D("0.00011"), "BTC")


# The transaction log


def _flow(told: str, change: str = "-5") -> Any:
    return flow_of({"type": told, "change": change, "id": "7", "transactionTime": "1700000000000", "currency": "USDT"})


@pytest.mark.parametrize(("change", "kind"), [("-5", "fee"), ("5", "rebate")])
def test_an_unknown_log_type_is_profit_or_loss_and_named(change: str, kind: str) -> None:
    """It is not read as a withdrawal, hides no loss, and makes no other row unknown."""
    flow = _flow("LUCKY_DRAW", change)
    assert (flow.id, flow.kind, flow.amount) == ("LUCKY_DRAW:7", kind, D(change))
    assert _flow("LUCKY_DRAW", "0") is None


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("PRINCIPLE_REPAYMENT_INS_LOAN", "transfer"), ("AUTO_PRINCIPLE_REPAYMENT_INS_LOAN", "transfer"),
        ("INSTITUTION_PAYBACK_PRINCIPAL_OUT", "transfer"), ("INTEREST_REPAYMENT_INS_LOAN", "interest"),
        ("INSTITUTION_PAYBACK_INTEREST_OUT", "interest"), ("FLEXIBLE_STAKING_SUBSCRIPTION", "transfer"),
        ("STRUCTURE_PRODUCT_REFUND", "transfer"), ("CUSTODY_LOCK", "transfer"), ("SPREAD_FEE_OUT", "fee"),
        ("PREMARKET_DELIVERY_PLEDGE_PAY_SELLER", "fee"), ("PEF_PROFIT_SHARE", "fee"),
        ("DBS_CASH_OUT", "transfer"), ("BROKER_ABACCOUNT_FEE", "fee"),
    ],
)  # fmt: skip
def test_money_into_a_loan_or_a_product_is_no_loss_but_their_cost_is(told: str, kind: str) -> None:
    """Of 5 USDT that left; penalties and shares of a profit are lost too."""
    assert _flow(told).kind == kind


@pytest.mark.parametrize(
    "told",
    [
        "MANUAL_LOANS_BORROW", "AUTO_LOANS_REPAY", "AUTO_SOLD_COLLATERAL_INS_LOAN", "AUTO_BUY_LIABILITY_INS_LOAN",
        "BORROW", "REPAY", "CONVERT", "FLOATING_TO_FIXED_REPAY",
    ],
)  # fmt: skip
def test_rows_that_leave_the_equity_unchanged_are_no_flows(told: str) -> None:
    """Bybit's equity is without what was borrowed: the loan is in the wallet, and in no one's pocket.

    "Enums Definitions", type(uta-translog): BORROW and REPAY are loans by hand and by itself, CONVERT repays one.
    """
    assert _flow(told) is None


# Codes


def _said(code: int, text: str) -> Exception:
    body = {"retCode": code, "retMsg": text}
    said = Bybit.codes_of(VenueAnswer(200, {}, body, "", "/v5/order/create"))
    meaning = next(Bybit.codes[it] for it in said if it in Bybit.codes)
    return as_venue_error(meaning, text, is_change=True, was_sent=True)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (170035, "Submitted to the system for processing!"),
        (170001, "Internal error."),
        (170032, "Network error. Please try again later"),
        (199999, "Request timed out"),
    ],
)
def test_an_error_that_does_not_exclude_execution_leaves_the_status_unknown(code: int, text: str) -> None:
    """The order may exist; this also holds for a row of a batch, and for an unknown code."""
    assert type(_said(code, text)) is FateUnknownError
    assert type(row_report(ASKED, {}, {"code": code, "msg": text})) is FateUnknownError


def test_a_known_code_keeps_its_meaning_whatever_its_text() -> None:
    """No margin stays no margin, though the text asks to retry later; an unknown code without such text rejects."""
    margin = row_report(ASKED, {}, {"code": 110007, "msg": "not enough, try again later"})
    other = row_report(ASKED, {}, {"code": 199999, "msg": "no"})
    assert isinstance(margin, OrderRejectedError)
    assert isinstance(other, OrderRejectedError)
    assert (margin.reason, other.reason) == ("insufficient_margin", "other")


def test_an_index_of_the_other_position_mode_means_that_the_mode_has_changed() -> None:
    """The known mode is then discarded, and requested again."""
    assert type(_said(10001, "position idx not match position mode")) is ModeChangedError


def test_prices_of_an_unreadable_account_do_not_replace_the_known_ones() -> None:
    """Profits of fills in other coins are converted at the last known prices."""
    with pytest.raises(UnreadableError):
        dollar_prices({"result": "abc"})
