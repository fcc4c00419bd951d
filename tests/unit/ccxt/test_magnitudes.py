"""Numbers of few characters that take minutes to reckon with are refused where they are read, also inside ccxt."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, Underflow, getcontext, localcontext
from typing import Any

import pytest

from killswitch.model.venue import AccountSpec
from killswitch_alpaca import numbers as alpaca
from killswitch_ccxt import numbers
from killswitch_ccxt.client import Client
from killswitch_ccxt.response_capture import limit_exact_numbers
from killswitch_ccxt.venues.binance.codes import used_from
from killswitch_ccxt.venues.bybit.dialect import Bybit
from killswitch_paper.wire import read_used

HUGE = ("1e3000000", "-1e-3000000", "0e3000000", "0e-3000000", "9" * 121, "1e60", "1e-60")


@pytest.mark.parametrize("text", HUGE)
def test_an_adapter_reads_no_number_beyond_measure(text: str) -> None:
    """Of either sign and either side of zero; a number that is only long neither."""
    with pytest.raises(numbers.UnreadableError):
        numbers.decimal(text)
    with pytest.raises(alpaca.UnreadableError):
        alpaca.decimal(text)


@pytest.mark.parametrize(
    "text", ["0", "0E-18", "1e-18", "-0.000000000000000001", "115792089237316195423570985008687907"]
)
def test_the_numbers_of_coins_are_read_as_they_are(text: str) -> None:
    """Eighteen decimals, and the units of a token that has them."""
    assert numbers.decimal(text) == alpaca.decimal(text) == Decimal(text)


@pytest.mark.parametrize("value", [1e300, "1e+300", "1.2345E+21", 12345.0])
def test_an_id_that_was_rounded_is_refused(value: object) -> None:
    """A number that went through floating point is the same text for many ids."""
    with pytest.raises(numbers.UnreadableError, match="lost its digits"):
        numbers.optional_text(value)


@pytest.mark.parametrize("value", [90071992547409931, "1e300", "ks1e+5", "8e10-77"])
def test_an_id_that_has_all_its_digits_is_read(value: object) -> None:
    """Large whole numbers, and names that only look like numbers."""
    assert numbers.optional_text(value) == str(value)


def _precise() -> Any:
    from ccxt.base.precise import Precise

    limit_exact_numbers()
    return Precise


def test_ccxts_own_numbers_refuse_what_has_no_end() -> None:
    """As text, as the precision of a quotient, and as decimals that an exchange's class sets."""
    precise = _precise()
    for text in ("1e3000000", "1e-3000000", "9" * 121):
        with pytest.raises(ValueError, match="no number"):
            precise(text)
    with pytest.raises(ValueError, match="no number has 3000000 decimals"):
        precise.string_div("1", "3", 3_000_000)
    step = precise("1")
    step.decimals = 1_000_000_000
    with pytest.raises(ValueError, match="no number has 1000000000 decimals"):
        str(step)


def test_ccxts_own_numbers_are_as_exact_as_before() -> None:
    """Sums, products and quotients by hand."""
    precise = _precise()
    assert precise.string_mul("1e-18", "123456789.123456789") == "0.000000000123456789123456789"
    assert precise.string_div("1", "3") == "0.333333333333333333"
    assert precise.string_div("1", "3", 25) == "0.3333333333333333333333333"
    assert precise.string_add("1e20", "1e-8") == "100000000000000000000.00000001"


def test_rounding_at_ccxt_changes_no_other_arithmetic() -> None:
    """It sets how its thread rounds, and that underflow is an error; decisions are reckoned on that thread."""
    client = Client(AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="bybit"), Bybit)
    with localcontext(Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[])) as mine:
        assert client.ccxt.decimal_to_precision("2.5", 1, 0, 2) == "3", "it rounds half up itself"
        assert getcontext() is mine
        assert (mine.rounding, mine.traps[Underflow]) == (ROUND_HALF_EVEN, False)


@pytest.mark.parametrize("decimals", ["1000000000", "-1000000000"])
def test_a_rule_of_a_billion_decimals_is_not_written_out(decimals: str) -> None:
    """ccxt writes one zero for each."""
    client = Client(AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="bybit"), Bybit)
    with pytest.raises(ValueError, match="no number has"):
        client.ccxt.parse_precision(decimals)
    assert client.ccxt.parse_precision("3") == "0.001"


def test_a_header_of_five_thousand_digits_fails_no_answer() -> None:
    """It is no count, so that it is left out."""
    assert used_from({"x-mbx-used-weight-1m": "9" * 5000, "x-mbx-order-count-10s": "7"}) == {"orders-10s": 7}
    assert read_used(f"weight={'9' * 5000}; orders=7") == {"orders": 7}
