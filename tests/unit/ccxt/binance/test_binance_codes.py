"""Binance's codes, and the error that closing gets for each of them."""

from __future__ import annotations

import json

import pytest

from killswitch.model.venue import (
    FateUnknownError,
    OrderRejectedError,
    RateLimitedError,
    RejectReason,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt.errors import UNKNOWN, GoneError, RefusalCodes, VenueAnswer, as_venue_error, rejected, row_error
from killswitch_ccxt.venues.binance.codes import COINM, FORM, FUTURES, SPOT, codes_in, codes_of, used_from
from killswitch_ccxt.venues.binance.coinm import BinanceCoinm
from killswitch_ccxt.venues.binance.usdm import BinanceUsdm


def error_of(code: int, text: str = "", status: int = 400, *, spot: bool = False) -> VenueError:
    """The error that closing gets when an order is answered with this code."""
    body = {"code": code, "msg": text}
    table = SPOT if spot else FUTURES
    meaning = next(table[it] for it in codes_of(VenueAnswer(status, {}, body, json.dumps(body), "")) if it in table)
    return as_venue_error(meaning, text, is_change=True, was_sent=True)


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (-2022, "ReduceOnly Order is rejected.", "already_flat"),
        (-4118, "ReduceOnly Order Failed. Please check your existing position and open orders", "blocked_by_order"),
        (-4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit.", "price_band"),
        (-4164, "Order's notional must be no smaller than 5.0 (unless you choose reduce only)", "below_minimum"),
        (-4005, "Quantity greater than max quantity.", "above_maximum"),
        (-4400, "Futures Trading Quantitative Rules violated, only reduceOnly order is allowed", "market_closed"),
        (-1106, "Parameter 'reduceonly' sent when not required.", "other"),
        (-4116, "ClientOrderId is duplicated.", "duplicate_client_order_id"),
        (-4015, "Client order id is duplicated.", "duplicate_client_order_id"),
        (-4015, "Client order id length should be less than 36 chars", "other"),
        (-2019, "Margin is insufficient.", "insufficient_margin"),
        (-2024, "Position is not sufficient.", "blocked_by_order"),
        (-2025, "Reach max open order limit.", "blocked_by_order"),
        (-4087, "User can only place reduce only order", "market_closed"),
        (-4088, "User can not place order currently", "permission"),
        (-4109, "This account is inactive. Please activate the account first.", "permission"),
        (-4192, "Trade forbidden due to Cooling-off Period.", "market_closed"),
        (-4402, "This feature is currently not available in your region.", "permission"),
        (-4210, "Stop price can't be higher than 120", "price_band"),
        (-5025, "Only limit order is supported.", "other"),
        (-1011, "This IP cannot access this route.", "permission"),
        (-2015, "Invalid API-key, IP, or permissions for action.", "permission"),
        (-1022, "Signature for this request is not valid.", "permission"),
    ],
)
def test_a_rejected_order_was_not_executed_and_has_its_reason(code: int, text: str, reason: RejectReason) -> None:
    """As in "USDⓈ-M Futures: Error Codes", sections 10xx to 50xx, of Binance's developer documentation."""
    error = error_of(code, text)
    assert isinstance(error, OrderRejectedError)
    assert error.reason == reason


@pytest.mark.parametrize(
    ("code", "text", "status", "kind"),
    [
        (-1008, "Server is currently overloaded with other requests.", 503, FateUnknownError),
        (-1006, "An unexpected response was received from the message bus.", 400, FateUnknownError),
        (-1007, "Timeout waiting for response from backend server.", 408, FateUnknownError),
        (0, "Unknown error, please check your request or try again later.", 503, FateUnknownError),
        (-1001, "Internal error; unable to process your request. Please try again.", 503, VenueDownError),
        (-1001, "Disconnected", 500, FateUnknownError),
        (-1000, "An unknown error occurred while processing the request.", 400, FateUnknownError),
        (-1010, "ERROR_MSG_RECEIVED.", 400, FateUnknownError),
        (-1016, "This service is no longer available.", 503, FateUnknownError),
        (-4083, "Fail to place batch orders.", 400, FateUnknownError),
        (-2012, "Batch cancel failure.", 400, FateUnknownError),
        (-9999, "Timeout waiting for response from backend server. Send status unknown.", 400, FateUnknownError),
        (-9999, "A code that nobody knows", 502, FateUnknownError),
        (-5028, "Timestamp for this request is outside of the ME recvWindow.", 400, VenueDownError),
        (0, "Service Unavailable.", 503, VenueDownError),
        (-1021, "Timestamp for this request is outside of the recvWindow.", 400, VenueDownError),
        (-1003, "Too many requests", 429, RateLimitedError),
        (-1003, "Way too many requests; IP banned until 1625474304765.", 418, RateLimitedError),
        (-1015, "Too many new orders.", 400, RateLimitedError),
        (-2013, "Order does not exist.", 400, GoneError),
        (-2011, "Unknown order sent.", 400, GoneError),
    ],
)
def test_errors_other_than_rejections_are_classified_by_what_is_known(
    code: int, text: str, status: int, kind: type[VenueError]
) -> None:
    """An order of unknown status is queried; one that was certainly not executed may be resent."""
    assert isinstance(error_of(code, text, status), kind)


@pytest.mark.parametrize(
    ("code", "usdm", "coinm"),
    [
        ("-4112", None, "blocked_by_order"),  # a reduce-only order and the open ones would reverse the position
        ("-4113", None, "price_band"),  # the best price of the other side is outside PERCENT_PRICE
        ("-4178", None, "below_minimum"),  # notional
        ("-4189", None, "market_closed"),  # reduce-only orders only, on this symbol
        ("-4089", None, "market_closed"),  # reduce-only orders only
        ("-4090", None, "permission"),
        ("-4087", "market_closed", "other"),  # reducing only; an invalid pair
        ("-4088", "permission", "other"),  # no orders now; an invalid interval of time
        ("-2022", "already_flat", "already_flat"),
    ],
)
def test_coin_margined_futures_have_other_codes_for_some_rejections(
    code: str, usdm: RejectReason | None, coinm: RejectReason
) -> None:
    """The two lists of error codes, "USDⓈ-M Futures" and "COIN-M Futures", section 40xx of each."""
    assert BinanceUsdm.codes.get(code, None if usdm is None else UNKNOWN) == (usdm and rejected(usdm))
    assert BinanceCoinm.codes[code] == rejected(coinm)


def test_trades_of_coin_margined_futures_weigh_four_times_as_much() -> None:
    """Account Trade List: 5 of weight at USDⓈ-M, 20 for a symbol at COIN-M; 2 are left for the order itself."""
    weigh = [{it.call: it.units for it in each.costs}["fills"] for each in (BinanceUsdm, BinanceCoinm)]
    assert weigh == [5 + 2, 20 + 2]


def test_coin_margined_futures_have_their_own_code_for_a_late_request() -> None:
    """−4188 ME_INVALID_TIMESTAMP of "COIN-M Futures: Error Codes": never matched, whatever its text."""
    body = {"code": -4188, "msg": "Timestamp for this request is outside of the ME recvWindow."}
    first = next(it for it in codes_in(body) if it in COINM)
    assert isinstance(as_venue_error(COINM[first], "late", is_change=True, was_sent=True), VenueDownError)


def test_on_spot_an_internal_error_has_unknown_status_and_2010_is_classified_by_its_text() -> None:
    """Spot's documentation calls the execution of every 5xx unknown; −2010 is classified by its text."""
    assert isinstance(error_of(-1001, "Internal error", 500, spot=True), FateUnknownError)
    short = error_of(-2010, "Account has insufficient balance for requested action.", spot=True)
    again = error_of(-2010, "Duplicate order sent.", spot=True)
    small = error_of(-1013, "Filter failure: NOTIONAL", spot=True)
    reasons = [it.reason for it in (short, again, small) if isinstance(it, OrderRejectedError)]
    assert reasons == ["insufficient_margin", "duplicate_client_order_id", "below_minimum"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-1004, "Server is busy, please wait and try again"), (-3000, "Internal server error."),
        (-3044, "System busy."), (-1007, "Timeout waiting for response from backend server."),
        (-1001, "Internal error; unable to process your request. Please try again."),
        (-1013, "Timeout waiting for response from backend server. Send status unknown; execution status unknown."),
        (-2010, "An unexpected response was received from the message bus. Execution status unknown."),
        (-5041, "Time out for too many requests from this account queueing at the same time."),
    ],
)  # fmt: skip
def test_on_spot_and_margin_texts_that_leave_the_status_unknown_are_no_rejection(code: int, text: str) -> None:
    """With any code."""
    assert isinstance(error_of(code, text, spot=True), FateUnknownError)


def test_a_rejected_batch_row_may_have_an_unknown_status() -> None:
    """An unknown code is a rejection there, except with such a text."""
    row = {"code": -9999, "msg": "Timeout waiting for response from backend server."}
    assert isinstance(row_error(RefusalCodes(FUTURES, FORM), codes_in(row), "row"), FateUnknownError)
    assert isinstance(row_error(RefusalCodes(FUTURES, FORM), codes_in(row | {"msg": "No."}), "row"), OrderRejectedError)


def test_an_order_that_may_not_be_changed_is_not_gone() -> None:
    """The code for a missing order is also used for this."""
    error = error_of(-2011, "This action is disabled on this account.", spot=True)
    assert isinstance(error, OrderRejectedError)
    assert error.reason == "permission"
    rests = error_of(-2011, "Order was not canceled due to cancel restrictions.", spot=True)
    assert isinstance(rests, OrderRejectedError)


def test_counts_in_headers_have_the_names_of_our_limits() -> None:
    """The address's weight in a minute, and the account's orders."""
    headers = {"x-mbx-used-weight-1m": "76", "x-mbx-order-count-10s": "1", "x-mbx-order-count-1m": "x"}
    assert used_from(headers) == {"weight": 76, "orders-10s": 1}
