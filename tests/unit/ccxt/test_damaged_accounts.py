"""Accounts and orders with one wrong field: their holdings are unknown, never zero and never on the opposite side."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.venue import FateUnknownError, OrderRejectedError
from killswitch_ccxt import orders
from killswitch_ccxt.errors import RefusalCodes, rejected, row_error
from killswitch_ccxt.venues.binance.codes import FORM, FUTURES
from killswitch_ccxt.venues.binance.spot import balance_of
from killswitch_ccxt.venues.bybit.rows import spot_balance
from killswitch_ccxt.venues.kraken.rows import held_amounts, margin_rows
from killswitch_ccxt.venues.okx.rows import account_equity
from tests.conformance import typed_binance
from tests.conformance.typed_harnesses import TypedHarness

D = Decimal
OWED: dict[str, Any] = {"asset": "BTC", "free": "0.75", "locked": "0.25", "borrowed": "3", "interest": "0.1"}


@pytest.mark.parametrize("field", ["free", "locked", "borrowed", "interest"])
@pytest.mark.parametrize("value", [None, "", "-1", "nonsense"])
def test_a_missing_or_negative_amount_of_a_margin_account_is_unreadable_not_zero(field: str, value: object) -> None:
    """A missing debt turned a short position into a long one."""
    with pytest.raises(UnreadableError):
        balance_of({"userAssets": [OWED | {field: value}]}, "USDT")


@pytest.mark.parametrize("rows", [[], [OWED, OWED], [OWED | {"asset": None}], [OWED | {"asset": 7}], None, [None]])
def test_an_asset_list_that_is_empty_or_has_duplicate_or_nameless_rows_is_unreadable(rows: Any) -> None:
    """Of two rows of one asset the last one was used, and an empty list was an equity of zero."""
    with pytest.raises(UnreadableError):
        balance_of({"userAssets": rows}, "USDT")


def test_duplicate_coins_are_unreadable_at_bybit_and_okx() -> None:
    """One of the two rows is wrong, and it is unknown which."""
    coin = {"coin": "BTC", "equity": "1"}
    with pytest.raises(UnreadableError):
        spot_balance({"result": {"list": [{"coin": [coin, coin]}]}})
    detail = {"ccy": "USDT", "eq": "100", "eqUsd": "100"}
    with pytest.raises(UnreadableError):
        account_equity({"totalEq": "100", "details": [detail, detail]}, "USDT", D(1))


def test_a_missing_credit_or_closed_volume_at_kraken_is_unreadable_not_zero() -> None:
    """An account without a credit line has no credit field; a position always states its closed volume."""
    assert held_amounts({"XXBT": {"balance": "2"}}) == {"XXBT": (D(2), None)}
    with pytest.raises(UnreadableError):
        held_amounts({"XXBT": {"balance": "2", "credit_used": None}})
    with pytest.raises(UnreadableError):
        margin_rows([{"pair": "XXBTZUSD", "type": "sell", "vol": "2", "vol_closed": None}])


def _snapshot(harness: TypedHarness, request: str, answer: Any) -> Any:
    async def scenario() -> Any:
        venue = await harness.connect(lambda requested, whole: answer if requested == request else whole)
        try:
            return await venue.snapshot()
        finally:
            await venue.close()

    return harness.run(scenario())


@pytest.mark.parametrize("coins", [[], ["ETH"], ["BTC", "ETH", "BTC"]])
def test_a_coin_margined_account_without_the_coin_of_a_position_is_unreadable(coins: list[str]) -> None:
    """An empty list together with a short position was read as a loss of the whole equity."""
    harness = typed_binance.coinm()
    whole = harness.typed.answers["GET /dapi/v1/account"]["assets"]
    rows = [row for coin in coins for row in whole if row["asset"] == coin]
    seen = _snapshot(harness, "GET /dapi/v1/account", {"assets": rows})
    assert (seen.quality, seen.equity, seen.positions) == ("malformed", None, None)
    assert "asset" in seen.reason


@pytest.mark.parametrize("field", ["maintMargin", "positionInitialMargin"])
def test_a_negative_margin_of_a_coin_makes_the_margin_unknown(field: str) -> None:
    """The negative margin was added to that of the other coins."""
    harness = typed_binance.coinm()
    first, second = harness.typed.answers["GET /dapi/v1/account"]["assets"]
    seen = _snapshot(harness, "GET /dapi/v1/account", {"assets": [first, second | {field: "-0.5"}]})
    found = seen.maintenance_margin if field == "maintMargin" else seen.margin_used
    assert (seen.quality, found) == ("ok", None)


def test_an_equity_of_zero_with_open_positions_is_unknown_and_the_positions_are_kept() -> None:
    """The positions can be closed; an equity below zero is accepted, because a liquidation shows one."""
    harness = typed_binance.coinm()
    rows = [row | {"marginBalance": "0", "walletBalance": "0"} for row in
            harness.typed.answers["GET /dapi/v1/account"]["assets"]]  # fmt: skip
    seen = _snapshot(harness, "GET /dapi/v1/account", {"assets": rows})
    assert (seen.quality, seen.equity, len(seen.positions)) == ("ok", None, 1)
    assert "equity: it is 0" in seen.reason
    rows[0] |= {"marginBalance": "-0.1"}
    assert _snapshot(typed_binance.coinm(), "GET /dapi/v1/account", {"assets": rows}).equity < 0


def test_a_filled_order_with_a_filled_amount_of_zero_is_unreadable() -> None:
    """It was read as an expired order, and was sent again."""
    with pytest.raises(UnreadableError):
        orders.report({"id": "1", "status": "closed", "amount": "2", "filled": "0"}, "BTC/USDT:USDT")


@pytest.mark.parametrize("code", [None, "None", "True", "{}", "nonsense", "0", "", "-1.5"])
def test_a_row_without_a_code_in_the_venues_format_is_no_rejection(code: str | None) -> None:
    """An answer whose code is damaged may belong to an order that is executed."""
    codes = () if code is None else (code,)
    assert isinstance(row_error(RefusalCodes(FUTURES, FORM), codes, "row"), FateUnknownError)


def test_a_row_with_an_order_id_is_no_rejection() -> None:
    """A known code, or an unknown one in the venue's format, is a rejection; not so in a row that has an order id."""
    verdicts = RefusalCodes({"-2019": rejected("insufficient_margin")}, FORM)
    for code in ("-2019", "-9876"):
        assert isinstance(row_error(verdicts, (code,), "row", order={"orderId": ""}), OrderRejectedError)
        assert isinstance(row_error(verdicts, (code,), "row", order={"orderId": "77"}), FateUnknownError)
