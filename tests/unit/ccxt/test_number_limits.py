"""Short numbers that take minutes to compute with are rejected when they are parsed, also inside ccxt."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, Underflow, getcontext, localcontext
from typing import Any

import pytest

from killswitch.model import parsing
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.client import Client
from killswitch_ccxt.response_capture import limit_exact_numbers
from killswitch_ccxt.venues.binance.codes import used_from
from killswitch_ccxt.venues.bybit.dialect import Bybit
from killswitch_paper.wire import read_used

HUGE = ("1e3000000", "-1e-3000000", "0e3000000", "0e-3000000", "9" * 121, "1e60", "1e-60")


@pytest.mark.parametrize("text", HUGE)
def test_an_adapter_rejects_numbers_beyond_its_digit_limits(text: str) -> None:
    """Large or tiny exponents of either sign, and numbers that are only long."""
    with pytest.raises(parsing.UnreadableError):
        parsing.decimal(text)


@pytest.mark.parametrize(
    "text", ["0", "0E-18", "1e-18", "-0.000000000000000001", "115792089237316195423570985008687907"]
)
def test_numbers_with_the_decimals_of_coins_are_parsed_exactly(text: str) -> None:
    """Eighteen decimals, and an amount in the smallest units of a token that has them."""
    assert parsing.decimal(text) == Decimal(text)


@pytest.mark.parametrize("value", [1e300, "1e+300", "1.2345E+21", 12345.0])
def test_an_id_rounded_by_floating_point_is_rejected(value: object) -> None:
    """Through floating point, many ids become the same text."""
    with pytest.raises(parsing.UnreadableError, match="lost its digits"):
        parsing.optional_text(value)


@pytest.mark.parametrize("value", [90071992547409931, "1e300", "ks1e+5", "8e10-77"])
def test_an_id_with_all_its_digits_is_accepted(value: object) -> None:
    """Large integers, and names that only look like numbers."""
    assert parsing.optional_text(value) == str(value)


def _limited_precise() -> Any:
    from ccxt.base.precise import Precise

    limit_exact_numbers()
    return Precise


def test_ccxts_precise_numbers_reject_too_many_digits() -> None:
    """In a text, in the precision of a quotient, and in the decimals that an exchange's class sets."""
    precise = _limited_precise()
    for text in ("1e3000000", "1e-3000000", "9" * 121):
        with pytest.raises(ValueError, match="no number"):
            precise(text)
    with pytest.raises(ValueError, match="no number has 3000000 decimals"):
        precise.string_div("1", "3", 3_000_000)
    step = precise("1")
    step.decimals = 1_000_000_000
    with pytest.raises(ValueError, match="no number has 1000000000 decimals"):
        str(step)


def test_ccxts_precise_numbers_stay_exact() -> None:
    """Sums, products and quotients, with results computed by hand."""
    precise = _limited_precise()
    assert precise.string_mul("1e-18", "123456789.123456789") == "0.000000000123456789123456789"
    assert precise.string_div("1", "3") == "0.333333333333333333"
    assert precise.string_div("1", "3", 25) == "0.3333333333333333333333333"
    assert precise.string_add("1e20", "1e-8") == "100000000000000000000.00000001"


def test_rounding_in_ccxt_does_not_change_the_threads_decimal_context() -> None:
    """ccxt sets its thread's rounding and traps underflow; decisions are computed on the same thread."""
    client = Client(AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="bybit"), Bybit)
    with localcontext(Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[])) as mine:
        assert client.ccxt.decimal_to_precision("2.5", 1, 0, 2) == "3", "it rounds half up itself"
        assert getcontext() is mine
        assert (mine.rounding, mine.traps[Underflow]) == (ROUND_HALF_EVEN, False)


@pytest.mark.parametrize("decimals", ["1000000000", "-1000000000"])
def test_a_precision_of_a_billion_decimals_is_rejected(decimals: str) -> None:
    """ccxt would write one zero for each decimal."""
    client = Client(AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="bybit"), Bybit)
    with pytest.raises(ValueError, match="no number has"):
        client.ccxt.parse_precision(decimals)
    assert client.ccxt.parse_precision("3") == "0.001"


def test_a_header_of_five_thousand_digits_is_ignored() -> None:
    """It is not a count, so it is left out and the answer stays valid."""
    assert used_from({"x-mbx-used-weight-1m": "9" * 5000, "x-mbx-order-count-10s": "7"}) == {"orders-10s": 7}
    assert read_used(f"weight={'9' * 5000}; orders=7") == {"orders": 7}
