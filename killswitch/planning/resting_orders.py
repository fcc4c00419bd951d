"""Which resting orders are entries: those that could open or enlarge a position if every resting order were filled.

The orders that reduce one position are judged together (`planning.reducing`), because each of two can fit the position
while both exceed it: what the venue bounds is kept first, then stops, then targets (take-profits and limit orders),
while they fit. Of several plain stops or targets the largest comes first, because it protects most. What is left over
is an entry. If the positions are unknown, no plain order that could be an exit is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Order, Position, Side
from killswitch.planning.reducing import (
    AccountHoldings,
    PositionName,
    enlarged_by,
    holdings_of,
    is_bounded,
    judge,
    left_of,
    reduced_by,
)
from killswitch.valuation.position_measures import ZERO


def entry_indexes(account: AccountSnapshot) -> frozenset[int]:
    """Indexes of the entries among the account's orders."""
    orders, holdings = account.orders or (), holdings_of(account)
    sides: dict[PositionName, list[int]] = defaultdict(list)
    for index, order in enumerate(orders):
        sides[reduced_by(order)].append(index)
    found: set[int] = set()
    for name, indexes in sides.items():
        position = next((each for each in account.positions or () if each.key == name), None)
        found.update(_entries_of_side(indexes, orders, holdings, position))
    return frozenset(found)


def _entries_of_side(
    indexes: Sequence[int], orders: Sequence[Order], holdings: AccountHoldings, position: Position | None
) -> list[int]:
    """Indexes of the entries among the orders of one side of a symbol, each judged next to what is kept before it."""
    taken, entries = ZERO, []
    for index in sorted(indexes, key=lambda index: _precedence(orders[index], holdings, position)):
        order = orders[index]
        if judge(order, holdings, taken).is_entry:
            entries.append(index)
        else:
            taken += left_of(order)
    return entries


def exits_of(account: AccountSnapshot) -> Mapping[PositionName, Sequence[Order]]:
    """Resting orders that are not entries, by the position that they reduce."""
    entries = entry_indexes(account)
    found: dict[PositionName, list[Order]] = defaultdict(list)
    for index, order in enumerate(account.orders or ()):
        if index not in entries:
            found[reduced_by(order)].append(order)
    return found


def concerns_side(order: Order, side: Side | None, *, is_entry: bool) -> bool:
    """Whether the order is about a position of the side: an entry enlarges it, every other order reduces it."""
    if side is None:
        return True
    if is_entry:
        return enlarged_by(order.symbol, order.side, order.position_side) in (None, (order.symbol, side))
    return reduced_by(order) == (order.symbol, side)


def trigger_when(order: Order, position: Position | None) -> str | None:
    """Whether a conditional order triggers when the mark falls or rises; None if it does neither or that is unknown."""
    trigger = _sane_or_none(order.trigger_price)
    kind = (order.type or "").lower()
    if trigger is not None and "take" in kind:
        return "rises" if order.side == "sell" else "falls"
    if trigger is not None and "stop" in kind:
        return "falls" if order.side == "sell" else "rises"
    mark = None if position is None else _sane_or_none(position.mark_price)
    if trigger is None or mark is None or trigger == mark:
        return None
    return "falls" if trigger < mark else "rises"


def _precedence(order: Order, holdings: AccountHoldings, position: Position | None) -> tuple[bool, bool, Decimal, str]:
    """Sort key: bounded orders, then stops, then targets, the largest first.

    Of equals the smaller id comes first, so that the listed order has no effect.
    """
    return not is_bounded(order, holdings), not _is_stop(order, position), -left_of(order), order.id


def _is_stop(order: Order, position: Position | None) -> bool:
    """Whether the order limits a loss. A conditional order of unknown direction does."""
    kind = (order.type or "").lower()
    if "take" in kind or "stop" in kind:
        return "take" not in kind
    if order.trigger_price is None:
        return False
    return trigger_when(order, position) in (None, "falls" if order.side == "sell" else "rises")


def _sane_or_none(number: Decimal | None) -> Decimal | None:
    return number if number is not None and sane(number) else None
