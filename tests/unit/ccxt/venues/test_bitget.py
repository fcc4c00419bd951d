"""Bitget's codes as rejection reasons, fields of its rows that ccxt leaves out, and closes over its wire."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import Fill
from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    OrderRejectedError,
    OrderRequest,
    RateLimitedError,
    RejectReason,
    RequestExpiredError,
    VenueDownError,
)
from killswitch_ccxt import adapter
from killswitch_ccxt.errors import GoneError, ModeChangedError, VenueAnswer, as_venue_error, rejected
from killswitch_ccxt.venues.bitget.dialect import Bitget
from killswitch_ccxt.venues.bitget.rows import account_equity, flow_of, refined_fill, refined_order, rights_of
from tests.faults.exchange import Market
from tests.faults.mishaps import Rule
from tests.wire.bitget.venue import BitgetWire
from tests.wire.bybit.desk import Desk

D = Decimal
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def _error(code: str, text: str = "said so") -> Exception:
    body = {"code": code, "msg": text, "data": None}
    said = Bitget.codes_of(VenueAnswer(400, {}, body, json.dumps(body), "/api/v2/mix/order/place-order"))
    meaning = next((Bitget.codes[it] for it in said if it in Bitget.codes), rejected("other"))
    return as_venue_error(meaning, "said so", is_change=True, was_sent=True)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("22002", "already_flat"), ("40774", "other"), ("41114", "market_closed"),
        ("45110", "below_minimum"), ("45113", "above_maximum"),
        ("40762", "insufficient_margin"), ("43012", "insufficient_margin"), ("40786", "duplicate_client_order_id"),
        ("43118", "duplicate_client_order_id"), ("40808", "other"), ("22009", "price_band"),
        ("40757", "blocked_by_order"),
        ("22004", "market_closed"), ("40014", "permission"), ("40009", "permission"), ("40012", "permission"),
        ("40018", "permission"),
        ("43043", "already_flat"), ("40837", "already_flat"),  # no position; none for a stop or a target
        ("40939", "blocked_by_order"), ("45005", "blocked_by_order"), ("43029", "blocked_by_order"),
        ("40761", "blocked_by_order"),  # the total number of unfilled orders is too high
        ("43007", "above_maximum"), ("45104", "above_maximum"), ("43005", "other"), ("45114", "below_minimum"),
        ("40816", "price_band"), ("40820", "price_band"), ("45122", "price_band"), ("40834", "price_band"),
        ("22043", "market_closed"), ("22067", "market_closed"), ("40844", "market_closed"), ("45043", "market_closed"),
        ("45009", "market_closed"), ("45034", "duplicate_client_order_id"), ("45002", "insufficient_margin"),
        ("40753", "permission"), ("45108", "permission"), ("40036", "permission"), ("40038", "permission"),
    ],
)  # fmt: skip
def test_a_code_is_a_rejection_with_its_reason(code: str, reason: RejectReason) -> None:
    """Nothing was executed, with a reason: "Error Codes", REST API, of Bitget's futures documentation."""
    error = _error(code)
    assert isinstance(error, OrderRejectedError)
    assert error.reason == reason


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("429", RateLimitedError), ("40015", FateUnknownError), ("40010", FateUnknownError),
        ("40725", FateUnknownError),
        ("40200", VenueDownError), ("40008", RequestExpiredError), ("40109", GoneError), ("40768", GoneError),
        ("22001", GoneError), ("43025", GoneError), ("43026", GoneError), ("43004", GoneError), ("45057", GoneError),
        ("45129", RateLimitedError),  # the same order may be cancelled once in a second
        ("40078", VenueDownError),  # the timestamp is outside of the engine's receiveWindow
        ("40910", FateUnknownError), ("45023", FateUnknownError), ("45024", FateUnknownError),
        ("45021", ModeChangedError), ("43075", ModeChangedError), ("45109", ModeChangedError),
    ],
)  # fmt: skip
def test_a_code_that_is_no_rejection_is_classified_by_what_is_known(code: str, kind: type[Exception]) -> None:
    """Gone, rate limited, unknown status, or certainly not executed."""
    assert type(_error(code)) is kind


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("32047", "system error", FateUnknownError), ("30009", "system error", FateUnknownError),
        ("30030", "endpoint request failed. Please try again", FateUnknownError),
        ("99999", "Request timed out", FateUnknownError),
        ("99999", "no", OrderRejectedError),
        ("40762", "not enough, try again later", OrderRejectedError),
        ("50009", "The operation is too frequent, please try again later", RateLimitedError),
        ("40774", "The order type for unilateral position must be the unilateral position type", ModeChangedError),
    ],
)  # fmt: skip
def test_an_error_that_does_not_exclude_execution_is_no_rejection(code: str, text: str, kind: type[Exception]) -> None:
    """An unknown code is classified by its text, a known one never; the other position mode is read again."""
    assert type(_error(code, text)) is kind


# Rows


def _row(**more: str) -> dict[str, Any]:
    """An order of a hedge-mode account, from the venue's documentation."""
    info = {"posMode": "hedge_mode", "posSide": "long", "side": "buy", "tradeSide": "open", "reduceOnly": "NO", **more}
    return {"info": info, "side": info["side"], "triggerPrice": None}


@pytest.mark.parametrize(
    ("told", "side", "position_side", "reduces"),
    [
        ({}, "buy", "long", False),
        ({"tradeSide": "close"}, "sell", "long", True),
        ({"posSide": "short", "side": "sell", "tradeSide": "open"}, "sell", "short", False),
        ({"posSide": "short", "side": "sell", "tradeSide": "close"}, "buy", "short", True),
        ({"posMode": "one_way_mode", "posSide": "net", "side": "sell", "reduceOnly": "YES"}, "sell", None, True),
        ({"posMode": "one_way_mode", "posSide": "net", "side": "sell", "reduceOnly": "NO"}, "sell", None, False),
    ],
)
def test_the_side_of_an_order_is_its_own_and_not_its_positions(
    told: dict[str, str], side: str, position_side: str | None, reduces: bool
) -> None:
    """In hedge mode `buy` that closes a long is a sale; in one-way mode 'YES' and 'NO' say whether it reduces."""
    found = refined_order(_row(**told))
    assert (found["side"], found.get("positionSide"), found["reduceOnly"]) == (side, position_side, reduces)


@pytest.mark.parametrize(
    ("trade_side", "cause"),
    [
        ("close", "trade"), ("burst_close_long", "liquidation"), ("burst_sell", "liquidation"),
        ("reduce_close_long", "liquidation"), ("dte_sys_adl_close_long", "adl"), ("delivery_close_long", "delivery"),
        ("sell_single", "trade"),
    ],
)  # fmt: skip
def test_a_fill_has_fee_profit_and_cause(trade_side: str, cause: str) -> None:
    """The fee is the amount paid, so the venue's minus becomes a plus."""
    info = {
        "tradeSide": trade_side, "posMode": "hedge_mode", "side": "buy", "profit": "-0.0007",
        "feeDetail": [{"feeCoin": "USDT", "totalFee": "-0.02236284"}],
    }  # fmt: skip
    plain = Fill("1", datetime(2023, 11, 23, tzinfo=UTC), BTC, "buy", D("0.001"), D("37271.4"))
    fill = refined_fill(plain, info)
    assert (fill.cause, fill.fee, fill.fee_currency, fill.realized_pnl) == (
        cause,
        D("0.02236284"),
        "USDT",
        D("-0.0007"),
    )


@pytest.mark.parametrize(
    ("business", "kind"),
    [
        ("trans_from_exchange", "transfer"), ("trans_to_exchange", "transfer"), ("contract_settle_fee", "funding"),
        ("bonus_issue", "rebate"), ("tracking_trader_income", "fee"), ("settle_interest", "interest"),
        ("trans_to_strategy", "transfer"), ("transfer_from_future_copytrade", "transfer"),
    ],
)  # fmt: skip
def test_a_bill_is_a_flow_of_its_kind(business: str, kind: str) -> None:
    """Signed as the venue signs it."""
    flow = flow_of(
        {"billId": "7", "businessType": business, "amount": "-0.5", "coin": "USDT", "cTime": "1700000000000"}
    )
    assert flow is not None
    assert (flow.kind, flow.amount, flow.currency) == (kind, D("-0.5"), "USDT")


def test_bills_of_fills_are_no_flows_and_an_unknown_bill_is_profit_or_loss() -> None:
    """Trades, conversions and margin moved within the account are no flows; an unknown type is one, and named."""
    for told in ("close_long", "sell", "burst_sell", "append_margin", "adl_close_long", "user_exchange_buy"):
        assert flow_of({"billId": "1", "businessType": told, "amount": "5", "cTime": "1"}) is None
    for amount, kind in (("5", "rebate"), ("-5", "fee")):
        flow = flow_of({"billId": "1", "businessType": "lucky_draw", "amount": amount, "coin": "USDT", "cTime": "1"})
        assert flow is not None
        assert (flow.id, flow.kind, flow.amount) == ("lucky_draw:1", kind, D(amount))
    with pytest.raises(UnreadableError, match="lucky_draw"):
        flow_of({"businessType": "lucky_draw", "amount": "5", "cTime": "1"})


def test_equity_is_that_of_the_margin_coin_or_of_all_coins_in_union_mode() -> None:
    """Single: the coin's own equity. Union: the sum in USDT, and unknown in any other currency."""
    usdt = {"marginCoin": "USDT", "accountEquity": "100", "usdtEquity": "100", "available": "90", "locked": "10",
            "unrealizedPL": "-5"}  # fmt: skip
    btc = {"marginCoin": "BTC", "accountEquity": "0.01", "usdtEquity": "500"}
    single = account_equity([usdt, btc], "USDT")
    assert (single.equity, single.unrealized) == (D(100), D(-5))
    assert [(it.asset, it.wallet) for it in single.balances or ()] == [("USDT", D(105))]
    both = [usdt | {"assetMode": "union"}, btc | {"assetMode": "union"}]
    assert account_equity(both, "USDT").equity == D(600)
    with pytest.raises(UnreadableError, match="USDT"):
        account_equity([*both, {"marginCoin": "USDC", "accountEquity": "1", "usdtEquity": "1"}], "USDC")
    with pytest.raises(UnreadableError, match="USDC"):
        account_equity([usdt], "USDC")


def test_the_rights_of_a_key_are_read_from_short_names() -> None:
    """coow and cpow trade futures, wwow withdraws, wtow transfers; without an address the key is unbound."""
    rights = rights_of({"authorities": ["coow", "cpow", "wwow", "wtow"], "ips": ""})
    assert (rights.trade, rights.withdraw, rights.transfer, rights.bound_to_addresses) == (True, True, True, False)
    rights = rights_of({"authorities": ["coor", "cpor"], "ips": "192.0.2.7"})
    assert (rights.trade, rights.withdraw, rights.bound_to_addresses) == (False, False, True)


def test_coin_futures_are_rejected_before_any_request() -> None:
    """They count in coins, which no supported contract does: such a document is wrong."""
    with pytest.raises(ValueError, match="bitget has no accounts in BTC here; write USDT or USDC"):
        adapter(AccountSpec("main", "ccxt", "swap", "BTC", None, {}, {}, "bitget"))


# Over the wire


def _try(desk: Desk, trial: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        async with desk.open():
            await trial(desk)

    desk.time.run(main())


@pytest.mark.parametrize("mode", ["one_way", "hedge"])
def test_a_level_three_close_leaves_nothing(mode: str) -> None:
    """Twelve positions: flat, and no order reversed one."""
    held = {(f"S{n}/USDT:USDT", "long" if n % 2 else "short"): "2" for n in range(12)}
    desk = Desk("bitget", BitgetWire, held, mode=mode, enforced=True)  # type: ignore[arg-type] # literals

    async def trial(desk: Desk) -> None:
        assert (await desk.venue.snapshot()).position_mode == mode
        assert await desk.close_all() == "flat"
        assert not any(desk.exchange.held.values())
        assert desk.exchange.turned == []

    _try(desk, trial)


@pytest.mark.parametrize("mode", ["one_way", "hedge"])
@pytest.mark.parametrize("mishap", ["done", "done_silent", "garbled", "lost", "limited", "down"])
def test_an_order_whose_answer_is_lost_is_queried_and_never_sent_twice(mishap: str, mode: str) -> None:
    """Whatever happened to the request, exactly the decided amount is closed, on one side only."""
    held = {(BTC, "long"): "0.5"} | ({(BTC, "short"): "0.2"} if mode == "hedge" else {})
    rules = (Rule("submit", mishap), Rule("close_book", mishap))  # type: ignore[arg-type] # mishaps
    desk = Desk("bitget", BitgetWire, held, *rules, mode=mode)  # type: ignore[arg-type] # literals

    async def trial(desk: Desk) -> None:
        assert await desk.close_all() == "flat"
        assert desk.exchange.turned == []
        assert not any(desk.exchange.held.values())

    _try(desk, trial)


def test_the_whole_book_is_closed_in_one_request_and_an_empty_one_is_no_error() -> None:
    """Both sides of all positions; nothing else changes, and a second request does nothing."""
    desk = Desk("bitget", BitgetWire, {(BTC, "long"): "0.5", (BTC, "short"): "0.2", (ETH, "short"): "3"}, mode="hedge")

    async def trial(desk: Desk) -> None:
        assert desk.venue.close_book is not None
        await desk.venue.close_book()
        assert not any(desk.exchange.held.values())
        await desk.venue.close_book()

    _try(desk, trial)


@pytest.mark.parametrize("mode", ["one_way", "hedge"])
def test_a_stop_rests_as_a_trigger_order_is_found_and_is_cancelled(mode: str) -> None:
    """It is never executed at once; a cancel that fails only in its list of failures is reported."""
    desk = Desk("bitget", BitgetWire, {(BTC, "long"): "0.5"}, mode=mode)  # type: ignore[arg-type] # a literal
    stop = OrderRequest(
        "stop", BTC, "sell", "long", D("0.1"), reduce_only=True, trigger_price=D(90), trigger_when="falls"
    )

    async def trial(desk: Desk) -> None:
        await desk.venue.submit(stop)
        assert desk.exchange.held[BTC, "long"] == D("0.5")
        (order,) = await desk.venue.open_orders()
        assert (order.side, order.position_side, order.trigger_price, order.reduce_only) == (
            "sell",
            "long",
            D(90),
            True,
        )
        found = await desk.venue.find_order(BTC, "stop")
        assert (found.state, found.filled) == ("open", D(0))
        await desk.venue.cancel(BTC, order.id)
        await desk.venue.cancel(BTC, order.id)
        assert (await desk.venue.find_order(BTC, "stop")).state == "canceled"
        assert await desk.venue.find_order(BTC, "never") is None

    _try(desk, trial)


def test_a_triggered_stop_is_reported_with_its_outcome() -> None:
    """Filled, with its price."""
    desk = Desk("bitget", BitgetWire, {(BTC, "long"): "0.5"})
    stop = OrderRequest(
        "stop", BTC, "sell", "long", D("0.5"), reduce_only=True, trigger_price=D(90), trigger_when="falls"
    )

    async def trial(desk: Desk) -> None:
        await desk.venue.submit(stop)
        desk.exchange.reprice(BTC, D(89))
        found = await desk.venue.find_order(BTC, "stop")
        assert (found.state, found.filled, found.average_price) == ("filled", D("0.5"), D(89))

    _try(desk, trial)


def test_states_and_largest_orders_are_those_of_the_contract() -> None:
    """limit_open accepts reducing orders only; the maximum of an order is that of the contract."""
    markets = (Market(BTC, maximum=D(4)), Market(ETH, state="reduce_only"))
    desk = Desk("bitget", BitgetWire, {(BTC, "long"): "9", (ETH, "long"): "1"}, markets=markets)

    async def trial(desk: Desk) -> None:
        rules = {it.symbol: it for it in (await desk.venue.snapshot()).instruments}
        assert (rules[BTC].max_amount, rules[BTC].state, rules[ETH].state) == (D(4), "open", "reduce_only")
        assert await desk.close_all() == "flat"

    _try(desk, trial)
