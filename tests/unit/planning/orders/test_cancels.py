"""Which resting orders are entries, at the edges: hedge mode, partial fills, unknown positions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.effects import Cancel, Cancels
from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.planning.actions.cancel_orders import cancels, is_entry
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, position

BTC = "BTC/USDT:USDT"


def order(side: str, amount: str = "1", **more: Any) -> Order:
    return Order(id="o1", symbol=BTC, side=side, amount=Decimal(amount), **more)  # type: ignore[arg-type]  # literal


def holding(side: str = "long", contracts: str = "3", mode: str = "one_way") -> AccountSnapshot:
    held = account("1000", [position(BTC, side, contracts=contracts)])
    return replace(held, position_mode=mode)


@pytest.mark.parametrize(
    ("side", "position_side", "entry"),
    [("buy", "long", True), ("sell", "long", False), ("buy", "short", False), ("sell", "short", True)],
)
def test_in_hedge_mode_side_and_position_side_determine_whether_an_order_opens(
    side: str, position_side: str, entry: bool
) -> None:
    """Whatever the size of the position: buying opens a long and closes a short."""
    assert is_entry(order(side, "9", position_side=position_side), holding(mode="hedge")) is entry


def test_outside_hedge_mode_the_position_side_is_ignored() -> None:
    """Selling 3 against a long of 3 reduces, whatever its position side; in hedge mode without one too."""
    assert not is_entry(order("sell", "3", position_side="short"), holding())
    assert not is_entry(order("sell", "3"), holding(mode="hedge"))
    assert is_entry(order("sell", "3.1"), holding(mode="hedge"))


@pytest.mark.parametrize(("held", "side", "opposite"), [("long", "sell", "buy"), ("short", "buy", "sell")])
def test_an_order_reduces_as_far_as_the_position_covers_it(held: str, side: str, opposite: str) -> None:
    """3 held: 3 against it reduce, more opens, and so does anything on the same side."""
    assert not is_entry(order(side, "3"), holding(held))
    assert is_entry(order(side, "3.001"), holding(held))
    assert is_entry(order(opposite, "0.001"), holding(held))


def test_only_the_unfilled_part_of_an_order_counts() -> None:
    """5, of which 2 are filled, against 3 held: the part that may still fill only reduces."""
    assert not is_entry(order("sell", "5", filled=Decimal(2)), holding())
    assert is_entry(order("sell", "5", filled=Decimal("1.9")), holding())


def test_a_stop_on_unknown_positions_is_protection() -> None:
    """An order without a trigger price may open a position; one with a trigger that is known to cover nothing too."""
    unseen = replace(account("1000", None), position_mode="one_way")
    assert not is_entry(order("sell", trigger_price=Decimal(90)), unseen)
    assert is_entry(order("sell"), unseen)
    assert is_entry(order("sell", trigger_price=Decimal(90)), account("1000", []))
    assert not is_entry(order("sell", reduce_only=True), account("1000", []))


def test_a_cancel_names_its_account_symbol_and_order() -> None:
    """Entries where any cancel is declared; the rest only with `all`."""
    entry, protection = order("buy"), replace(order("sell"), id="o2")
    held = replace(holding(), orders=(entry, protection))
    view = ScopeView(0, True, [held], {}, None)
    assert cancels(view, "entry") == Cancels((Cancel("main", BTC, "o1", "entry"),))
    both = (Cancel("main", BTC, "o1", "entry"), Cancel("main", BTC, "o2", "all"))
    assert cancels(view, "all") == Cancels(both)
