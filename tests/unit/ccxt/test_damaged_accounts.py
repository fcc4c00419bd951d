"""Accounts and orders of which one field is wrong: what they hold is unknown, never nothing and never turned."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import FateUnknownError, OrderRejectedError
from killswitch_ccxt import orders
from killswitch_ccxt.errors import RefusalCodes, rejected, row_error
from killswitch_ccxt.numbers import UnreadableError
from killswitch_ccxt.venues.binance.codes import FORM, FUTURES
from killswitch_ccxt.venues.binance.spot import balance_of
from killswitch_ccxt.venues.bybit.rows import spot_balance
from killswitch_ccxt.venues.kraken.rows import held_amounts, margin_rows
from killswitch_ccxt.venues.okx.rows import account_equity
from tests.conformance import typed_binance
from tests.conformance.typed_stands import TypedStand

D = Decimal
OWED: dict[str, Any] = {"asset": "BTC", "free": "0.75", "locked": "0.25", "borrowed": "3", "interest": "0.1"}


@pytest.mark.parametrize("field", ["free", "locked", "borrowed", "interest"])
@pytest.mark.parametrize("value", [None, "", "-1", "nonsense"])
def test_an_amount_of_a_margin_account_that_is_missing_or_negative_is_no_zero(field: str, value: object) -> None:
    """A debt that is not told made a long position of a short one."""
    with pytest.raises(UnreadableError):
        balance_of({"userAssets": [OWED | {field: value}]}, "USDT")


@pytest.mark.parametrize("rows", [[], [OWED, OWED], [OWED | {"asset": None}], [OWED | {"asset": 7}], None, [None]])
def test_a_list_of_assets_that_is_empty_or_names_one_twice_or_none_is_unreadable(rows: Any) -> None:
    """Of two rows of one asset the last one was believed, and an empty list was a worth of nothing."""
    with pytest.raises(UnreadableError):
        balance_of({"userAssets": rows}, "USDT")


def test_coins_that_are_listed_twice_are_unreadable_at_bybit_and_okx() -> None:
    """One of the two rows is wrong, and nobody knows which."""
    coin = {"coin": "BTC", "equity": "1"}
    with pytest.raises(UnreadableError):
        spot_balance({"result": {"list": [{"coin": [coin, coin]}]}})
    detail = {"ccy": "USDT", "eq": "100", "eqUsd": "100"}
    with pytest.raises(UnreadableError):
        account_equity({"totalEq": "100", "details": [detail, detail]}, "USDT", D(1))


def test_a_credit_or_a_closed_volume_at_kraken_that_is_not_told_is_no_zero() -> None:
    """An account without a credit line has no such field; a position always says what of it is closed."""
    assert held_amounts({"XXBT": {"balance": "2"}}) == {"XXBT": (D(2), None)}
    with pytest.raises(UnreadableError):
        held_amounts({"XXBT": {"balance": "2", "credit_used": None}})
    with pytest.raises(UnreadableError):
        margin_rows([{"pair": "XXBTZUSD", "type": "sell", "vol": "2", "vol_closed": None}])


def _snapshot(stand: TypedStand, question: str, answer: Any) -> Any:
    async def story() -> Any:
        venue = await stand.connect(lambda asked, whole: answer if asked == question else whole)
        try:
            return await venue.snapshot()
        finally:
            await venue.close()

    return stand.run(story())


@pytest.mark.parametrize("coins", [[], ["ETH"], ["BTC", "ETH", "BTC"]])
def test_a_coin_margined_account_whose_list_lacks_the_coin_of_a_position_is_unreadable(coins: list[str]) -> None:
    """An empty list beside a short position was a loss of everything."""
    stand = typed_binance.coinm()
    whole = stand.typed.answers["GET /dapi/v1/account"]["assets"]
    rows = [row for coin in coins for row in whole if row["asset"] == coin]
    seen = _snapshot(stand, "GET /dapi/v1/account", {"assets": rows})
    assert (seen.quality, seen.equity, seen.positions) == ("malformed", None, None)
    assert "asset" in seen.reason


@pytest.mark.parametrize("field", ["maintMargin", "positionInitialMargin"])
def test_margin_of_a_coin_that_is_less_than_nothing_is_unknown(field: str) -> None:
    """It was added to that of the other coins."""
    stand = typed_binance.coinm()
    first, second = stand.typed.answers["GET /dapi/v1/account"]["assets"]
    seen = _snapshot(stand, "GET /dapi/v1/account", {"assets": [first, second | {field: "-0.5"}]})
    found = seen.maintenance_margin if field == "maintMargin" else seen.margin_used
    assert (seen.quality, found) == ("ok", None)


def test_an_equity_of_nothing_beside_positions_is_unknown_and_the_positions_are_kept() -> None:
    """They can be closed; a worth below zero is believed, since a liquidation shows one."""
    stand = typed_binance.coinm()
    rows = [row | {"marginBalance": "0", "walletBalance": "0"} for row in
            stand.typed.answers["GET /dapi/v1/account"]["assets"]]  # fmt: skip
    seen = _snapshot(stand, "GET /dapi/v1/account", {"assets": rows})
    assert (seen.quality, seen.equity, len(seen.positions)) == ("ok", None, 1)
    assert "equity: it is 0" in seen.reason
    rows[0] |= {"marginBalance": "-0.1"}
    assert _snapshot(typed_binance.coinm(), "GET /dapi/v1/account", {"assets": rows}).equity < 0


def test_an_order_that_is_filled_and_of_which_nothing_was_filled_makes_no_sense() -> None:
    """It was read as one that had expired, and was sent again."""
    with pytest.raises(UnreadableError):
        orders.report({"id": "1", "status": "closed", "amount": "2", "filled": "0"}, "BTC/USDT:USDT")


@pytest.mark.parametrize("code", [None, "None", "True", "{}", "nonsense", "0", "", "-1.5"])
def test_a_row_without_a_code_of_the_venues_form_refuses_nothing(code: str | None) -> None:
    """An answer whose verdict is damaged may be that of an order which is executed."""
    said = () if code is None else (code,)
    assert isinstance(row_error(RefusalCodes(FUTURES, FORM), said, "row"), FateUnknownError)


def test_a_row_with_the_number_of_an_order_refuses_nothing() -> None:
    """A known code is a refusal, and an unknown one of the venue's form; but not beside an order that was taken."""
    verdicts = RefusalCodes({"-2019": rejected("insufficient_margin")}, FORM)
    for code in ("-2019", "-9876"):
        assert isinstance(row_error(verdicts, (code,), "row", order={"orderId": ""}), OrderRejectedError)
        assert isinstance(row_error(verdicts, (code,), "row", order={"orderId": "77"}), FateUnknownError)
