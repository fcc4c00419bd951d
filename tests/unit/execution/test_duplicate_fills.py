"""A fill that overlapping pages list twice counts once, in the filled amount and in the fee."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from msgspec.structs import replace

from killswitch.execution.query.fee_queries import total_fee
from killswitch.execution.report_validation import validated_fills
from killswitch.model.snapshot import Fill

ONE = Fill("f1", datetime(2021, 5, 19, tzinfo=UTC), "BTC", "sell", Decimal(2), Decimal(100), fee=Decimal("0.1"))
TWO = replace(ONE, id="f2")


def test_the_same_fill_twice_is_one_fill_and_one_fee() -> None:
    """Two fills of 2 for 0.1 each, one of them listed again: 4 contracts, and 0.2."""
    found = validated_fills([ONE, TWO, ONE])
    assert sum(fill.amount for fill in found) == 4
    assert total_fee(found, "USDT")[0] == Decimal("0.2")


def test_fills_without_an_id_are_counted_separately() -> None:
    """Two equal slices of an adapter that gives fills no id are two."""
    nameless = replace(ONE, id="")
    assert sum(fill.amount for fill in validated_fills([nameless, nameless])) == 4
