"""Order types have one spelling for all venues."""

from __future__ import annotations

import pytest

from killswitch.model.venue_orders import order_type


@pytest.mark.parametrize(
    ("venue_type", "conditional", "priced", "guards", "expected"),
    [
        ("limit", False, True, None, "limit"),
        ("LIMIT", False, True, None, "limit"),
        ("lmt", False, True, None, "limit"),
        ("post_only", False, True, None, "limit"),
        ("market", False, False, None, "market"),
        ("mkt", False, False, None, "market"),
        # Binance
        ("stop_market", True, False, None, "stop_market"),
        ("stop", True, True, None, "stop_limit"),
        ("take_profit", True, True, None, "take_profit_limit"),
        ("take_profit_market", True, False, None, "take_profit_market"),
        ("trailing_stop_market", True, False, None, "trailing_stop"),
        # Kraken, Kraken Futures, Alpaca
        ("stop-loss", True, False, None, "stop_market"),
        ("stop-loss-limit", True, True, None, "stop_limit"),
        ("take-profit-limit", True, True, None, "take_profit_limit"),
        ("trailing-stop", True, False, None, "trailing_stop"),
        ("stop", True, False, None, "stop_market"),
        ("take_profit", True, False, None, "take_profit_market"),
        ("stop_limit", True, True, None, "stop_limit"),
        # Bybit, MEXC: the direction is another field
        ("market", True, False, True, "stop_market"),
        ("limit", True, True, False, "take_profit_limit"),
        ("market", True, True, True, "stop_market"),
        # Bitget, OKX: stop or take-profit is not reported
        ("market", True, False, None, "trigger_market"),
        ("trigger", True, True, None, "trigger_limit"),
        # An unknown type stays unchanged
        ("settle-position", False, False, None, "settle-position"),
        (None, False, True, None, None),
    ],
)  # fmt: skip
def test_an_order_type_of_a_venue_has_our_spelling(
    venue_type: str | None, conditional: bool, priced: bool, guards: bool | None, expected: str | None
) -> None:
    """A known type gets our spelling; an unknown one keeps the venue's."""
    assert order_type(venue_type, conditional=conditional, priced=priced, guards=guards) == expected
