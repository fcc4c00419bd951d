"""Formats of amounts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.render.formats import amount_text


@pytest.mark.parametrize(
    ("value", "currency", "shown"),
    [
        ("11243.85724114", "USDT", "11,243.86 USDT"),
        ("-5", None, "-5.00"),
        ("50.500", "USDT", "50.50 USDT"),
        ("1.23456", "BTC", "1.235 BTC"),
        ("-0.00456789", "BTC", "-0.004568 BTC"),
        ("0.1", "BTC", "0.10 BTC"),
        ("0", "USDT", "0.00 USDT"),
        ("1E+4", "USD", "10,000.00 USD"),
    ],
)
def test_an_amount_of_any_size_has_digits_that_say_something(value: str, currency: str | None, shown: str) -> None:
    """Two decimals of a large one, four digits of a small one: neither eight decimals nor 0.00."""
    assert amount_text(Decimal(value), currency) == shown
