"""Instrument rules derived from prices, and base assets derived from names."""

from decimal import Decimal

import pytest

from killswitch.market.rules import base_asset, derived, lots_down, lots_up


@pytest.mark.parametrize(
    ("price", "lot", "largest"),
    [("40000", "0.00001", "100"), ("1", "1", "10000000"), ("0.25", "1", "10000000"), ("0.1", "10", "100000000"),
     ("999", "0.001", "10000"), ("1000", "0.001", "10000"), ("1001", "0.0001", "1000")],
)  # fmt: skip
def test_a_lot_is_the_largest_power_of_ten_worth_at_most_one(price: str, lot: str, largest: str) -> None:
    """A lot is worth at most one quote unit, the largest order at most ten million; ten times more is not."""
    rules = derived("X", Decimal(price), Decimal("0.01"))
    assert str(rules.amount_step) == lot
    assert str(rules.max_amount) == largest


def test_a_price_of_zero_gives_no_rules() -> None:
    """No rule follows from a price that is not above zero."""
    with pytest.raises(ValueError, match="must be above zero"):
        derived("X", Decimal(0), Decimal("0.01"))


@pytest.mark.parametrize("symbol", ["BTC_USDT", "BTC_USDT_USDT", "BTC/USDT", "BTC/USDT:USDT", "BTC-USD", "BTC"])
def test_the_base_asset_is_the_name_before_the_separator(symbol: str) -> None:
    """However a venue writes its symbols, the asset is found."""
    assert base_asset(symbol) == "BTC"


def test_amounts_round_to_whole_lots() -> None:
    """Down and up; a whole amount is unchanged."""
    lot = Decimal("0.5")
    assert (lots_down(Decimal("1.9"), lot), lots_up(Decimal("1.6"), lot)) == (Decimal("1.5"), Decimal("2.0"))
    assert lots_down(Decimal("1.5"), lot) == lots_up(Decimal("1.5"), lot) == Decimal("1.5")
