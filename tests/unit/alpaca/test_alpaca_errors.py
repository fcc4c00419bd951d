"""The meaning of each rejection of Alpaca. Bodies are from Alpaca's documentation and its users' reports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from killswitch.model.venue import FateUnknownError, OrderRejectedError, RateLimitedError, VenueDownError
from killswitch_alpaca.errors import as_venue_error, read_refusal, refusal_meaning
from killswitch_alpaca.http import retry_after

QTY = "insufficient qty available for order (requested: 10, available: 0)"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (422, {"code": 40010001, "message": "client_order_id must be unique"}, "duplicate_client_order_id"),
        (422, {"code": 42210000, "message": "position intent mismatch, inferred: sell_to_open, specified: "
               "sell_to_close"}, "already_flat"),
        (403, {"code": 40310000, "message": QTY, "available": "0", "existing_qty": "10", "held_for_orders": "10"},
         "blocked_by_order"),
        (403, {"code": 40310000, "message": QTY, "available": "0", "existing_qty": "0", "held_for_orders": "0"},
         "already_flat"),
        (403, {"code": 40310000, "message": QTY, "available": "5", "existing_qty": "5", "held_for_orders": "0"},
         "other"),
        (403, {"code": 40310000, "message": QTY}, "blocked_by_order"),
        (403, {"code": 40310000, "message": "insufficient balance for BTC (requested: 1, available: 0)",
               "available": "0", "balance": "1"}, "blocked_by_order"),
        (403, {"code": 40310000, "message": "potential wash trade detected. use complex orders",
               "existing_order_id": "x", "reject_reason": "opposite side market/stop order exists"},
         "blocked_by_order"),
        (422, {"code": 42210000, "message": "potential wash trade detected. use complex orders"}, "blocked_by_order"),
        (403, {"code": 40310000, "message": "cannot open a long buy while a short sell order is open"},
         "blocked_by_order"),
        (422, {"code": 40010001, "message": "us_equity orders not allowed for account"}, "permission"),
        (422, {"code": 40010001, "message": 'only type="limit" is allowed for extended hours orders'}, "other"),
        (403, {"code": 40310000, "message": "insufficient buying power", "buying_power": "0"}, "insufficient_margin"),
        (403, {"code": 40310000, "message": "insufficient day trading buying power"}, "insufficient_margin"),
        (403, {"code": 40310000, "message": "insufficient balance for USD (requested: 10, available: 1)"},
         "insufficient_margin"),
        (403, {"code": 40310000, "message": "cost basis must be >= minimal amount of order 10"}, "below_minimum"),
        (422, {"code": 42210000, "message": "qty must be > 0"}, "below_minimum"),
        (403, {"code": 40310100, "message": "trade denied due to pattern day trading protection"}, "permission"),
        (403, {"code": 40310000, "message": "new orders are rejected by user request"}, "permission"),
        (403, {"code": 40310000, "message": "account is not authorized to trade"}, "permission"),
        (403, {"code": 40310000, "message": "account is not allowed to short"}, "permission"),
        (422, {"code": 42210000, "message": 'asset "ABC" cannot be sold short'}, "permission"),
        (422, {"code": 42210000, "message": 'asset "ABC" is not tradable'}, "market_closed"),
        (422, {"code": 42210000, "message": "asset ABC is not active"}, "market_closed"),
        (403, {"code": 40310000, "message": "options market orders are only allowed during market hours"},
         "market_closed"),
        (422, {"code": 42210000, "message": "fractional orders must be DAY orders"}, "other"),
        (401, {"code": 40110000, "message": "request is not authorized"}, "permission"),
        (403, {"message": "forbidden."}, "permission"),
    ],
)  # fmt: skip
def test_a_rejected_order_has_a_reason_and_alpacas_message(status: int, body: dict[str, Any], reason: str) -> None:
    """Nothing was executed; the reason is one of ours, and Alpaca's message is repeated."""
    error = as_venue_error(read_refusal(status, json.dumps(body)), changes=True)
    assert isinstance(error, OrderRejectedError)
    assert error.reason == reason
    assert body["message"] in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"code": 40410000, "message": "order not found for 61e69015-8549-4bfd-b9c3-01e75843f47d"}),
        (422, {"code": 42210000, "message": "order is not cancelable"}),
        (422, {"code": 42210000, "message": 'order is already in "filled" state'}),
        (422, {"code": 42210000, "message": "order pending cancel"}),
    ],
)
def test_an_order_that_is_gone_is_recognised_by_the_message(status: int, body: dict[str, Any]) -> None:
    """A cancel of such an order has achieved its purpose."""
    assert refusal_meaning(read_refusal(status, json.dumps(body))) == "gone"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 302])
def test_a_gateway_error_leaves_an_order_unknown_and_a_query_down(status: int) -> None:
    """The status of an order is unknown; for a query Alpaca is down."""
    refused = read_refusal(status, "<html>Bad gateway</html>")
    assert isinstance(as_venue_error(refused, changes=True), FateUnknownError)
    assert isinstance(as_venue_error(refused, changes=False), VenueDownError)


def test_too_many_requests_executed_nothing() -> None:
    """For orders and queries, with the seconds to wait where they are stated."""
    refused = read_refusal(429, '{"code": 42910000, "message": "rate limit exceeded"}', 3.5)
    for changes in (True, False):
        error = as_venue_error(refused, changes=changes)
        assert isinstance(error, RateLimitedError)
        assert error.retry_after == 3.5


@pytest.mark.parametrize("text", ["", "null", "[1]", "not json", '{"code": "x", "message": 7}'])
def test_a_rejection_without_a_code_leaves_the_status_unknown(text: str) -> None:
    """An HTTP status alone may come from a gateway, behind which the order was accepted."""
    assert isinstance(as_venue_error(read_refusal(422, text), changes=True), FateUnknownError)


def test_a_rejection_that_contains_an_order_leaves_the_status_unknown() -> None:
    """An order with an id at Alpaca has been accepted."""
    body = {"code": 40310000, "message": "insufficient buying power", "id": "7", "client_order_id": "ks1"}
    assert isinstance(as_venue_error(read_refusal(403, json.dumps(body)), changes=True), FateUnknownError)


def test_long_and_unprintable_messages_are_truncated_and_escaped() -> None:
    """A venue's messages end up in reports and on screens."""
    error = as_venue_error(read_refusal(422, json.dumps({"code": 1, "message": "\x1b[31m" + "x" * 5000})), changes=True)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 400


def test_the_rate_limit_wait_is_measured_by_alpacas_clock_alone() -> None:
    """Our clock may be hours off, and a close would wait as long; without both times the wait is unknown."""
    reset = {"X-RateLimit-Reset": "1577880003"}  # 12:00:03
    assert retry_after({"Date": "Wed, 01 Jan 2020 12:00:00 GMT", **reset}) == 3.0
    assert retry_after(reset) is None
    assert retry_after({"Date": "soon", **reset}) is None
    assert retry_after({"Retry-After": "7", **reset}) == 7.0
