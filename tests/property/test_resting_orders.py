"""Resting exits of a known position: filled together, in any order, they never open or enlarge one."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.planning.resting_orders import entry_indexes
from tests.worlds import account, position

Mode = Literal["one_way", "hedge"]
SIZES = st.integers(1, 12).map(Decimal)
TYPES = st.sampled_from((None, "limit", "stop_market", "take_profit_limit", "trigger_market", "trailing_stop"))
FLAGS = st.sampled_from((True, False, None))


@st.composite
def books(draw: st.DrawFn) -> AccountSnapshot:
    """One symbol with up to three rows, on one side in one-way mode, and up to seven orders, some partly filled."""
    mode: Mode = draw(st.sampled_from(("one_way", "hedge")))
    sides = ("long", "short") if mode == "hedge" else (draw(st.sampled_from(("long", "short"))),)
    held = draw(st.lists(st.tuples(st.sampled_from(sides), SIZES), max_size=3))
    rows = [position("A", side, contracts=str(size), mark_price="100") for side, size in held]
    orders = []
    for number in range(draw(st.integers(0, 7))):
        amount = draw(st.one_of(SIZES, st.just(Decimal(0))))
        orders.append(
            Order(
                id=f"o{number}",
                symbol="A",
                side=draw(st.sampled_from(("buy", "sell"))),
                amount=amount,
                filled=draw(st.one_of(st.none(), st.integers(0, int(amount)).map(Decimal))),
                reduce_only=draw(FLAGS),
                position_side=draw(st.sampled_from(("long", "short", None))) if mode == "hedge" else None,
                type=draw(TYPES),
                trigger_price=draw(st.sampled_from((None, Decimal(90), Decimal(110)))),
            )
        )
    return account("1000", rows, position_mode=mode, orders=draw(st.permutations(orders)))


def is_bounded(order: Order, mode: str | None) -> bool:
    """Whether the venue fills the order at most up to the size of its position."""
    if mode == "hedge" and order.position_side is not None:
        return not is_opening(order)
    return order.reduce_only is True or not order.amount


def is_opening(order: Order) -> bool:
    """Whether an order of hedge mode opens the position of its position side, whatever its flag."""
    if order.position_side is None:
        return False
    return (order.side == "buy") == (order.position_side == "long")


def opens(seen: AccountSnapshot, orders: Sequence[Order]) -> bool:
    """Whether a position is opened or enlarged when these orders are filled one after the other, each completely.

    A sale takes from the long, a purchase from the short; what the venue does not bound goes below zero, which is a
    position on the other side.
    """
    held = {side: sum((p.contracts for p in seen.positions or () if p.side == side), Decimal(0))
            for side in ("long", "short")}  # fmt: skip
    for order in orders:
        if is_opening(order):
            return True
        side = "long" if order.side == "sell" else "short"
        left = order.amount - (order.filled or 0)
        if is_bounded(order, seen.position_mode):
            left = min(left, held[side]) if order.amount else held[side]
        held[side] -= left
        if held[side] < 0:
            return True
    return False


def judged(seen: AccountSnapshot) -> tuple[list[Order], list[Order]]:
    """The orders that stay, and the entries."""
    entries, orders = entry_indexes(seen), list(enumerate(seen.orders or ()))
    return [each for i, each in orders if i not in entries], [each for i, each in orders if i in entries]


@given(books(), st.randoms(use_true_random=False))
def test_what_stays_opens_nothing_in_any_order(seen: AccountSnapshot, shuffle: Random) -> None:
    """Whatever is filled first: a plain order cannot rely on a bounded one to come later."""
    stays, _ = judged(seen)
    shuffle.shuffle(stays)
    assert not opens(seen, stays)


@given(books())
def test_each_entry_could_open_a_position_next_to_what_stays(seen: AccountSnapshot) -> None:
    """Nothing is cancelled that fits: filled last, each entry opens or enlarges a position."""
    stays, entries = judged(seen)
    for entry in entries:
        assert opens(seen, [*sorted(stays, key=lambda each: not is_bounded(each, seen.position_mode)), entry])


@given(books())
def test_where_the_venue_bounds_every_order_none_is_an_entry(seen: AccountSnapshot) -> None:
    """However many exits there are, of whatever size."""
    _, entries = judged(seen)
    orders = seen.orders or ()
    if all(is_bounded(each, seen.position_mode) and not is_opening(each) for each in orders):
        assert entries == []
    assert not [each for each in entries if is_bounded(each, seen.position_mode) and not is_opening(each)]
