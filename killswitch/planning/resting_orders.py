"""Which resting orders are entries: those that could open or enlarge a position if every resting order were filled.

The orders that reduce one position are judged together, because each of two can fit the position while both exceed it.

| order                                                         | judgement                                     |
|---------------------------------------------------------------|-----------------------------------------------|
| in hedge mode, on the opening side of its position side       | an entry                                      |
| a purchase of a spot account                                  | an entry                                      |
| bounded by the venue (`_is_bounded`)                          | an exit of any size, which takes room         |
| plain: a stop, then a target (a take-profit or a limit order) | an exit while it fits the room that is left   |

The room is the position's size. Of several plain stops or targets the largest comes first, because it protects most. If
the positions are unknown, the size of the room is unknown too, and no plain order is an entry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Order, Position, Side
from killswitch.planning.spot_routes import quote_of
from killswitch.valuation.position_measures import ZERO

PositionName = tuple[str, Side]
"""Symbol and side."""

_INFINITE = Decimal("Infinity")


def entry_indexes(account: AccountSnapshot) -> frozenset[int]:
    """Indexes of the entries among the account's orders."""
    orders = account.orders or ()
    opening = [_opens(order, account) for order in orders]
    exits: dict[PositionName, list[int]] = defaultdict(list)
    for index, order in enumerate(orders):
        if not opening[index]:
            exits[reduced_by(order)].append(index)
    found = {index for index, opens in enumerate(opening) if opens}
    if account.positions is not None:
        for name, indexes in exits.items():
            found.update(_beyond_position(name, indexes, account))
    return frozenset(found)


def exits_of(account: AccountSnapshot) -> Mapping[PositionName, Sequence[Order]]:
    """Resting orders that are not entries, by the position that they reduce."""
    entries = entry_indexes(account)
    found: dict[PositionName, list[Order]] = defaultdict(list)
    for index, order in enumerate(account.orders or ()):
        if index not in entries:
            found[reduced_by(order)].append(order)
    return found


def reduced_by(order: Order) -> PositionName:
    """The position that the order reduces, if it is no entry."""
    return order.symbol, "long" if order.side == "sell" else "short"


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


def _opens(order: Order, account: AccountSnapshot) -> bool:
    """Whether the order opens, whatever its size and the size of the position."""
    if order.reduce_only is True:
        return False
    if account.position_mode == "hedge" and order.position_side is not None:
        return not _closes_its_position_side(order)
    if not _is_cash(account):
        return False
    return order.side == "buy" or not _is_sale_for_money(order, account)


def _is_bounded(order: Order, account: AccountSnapshot) -> bool:
    """Whether the venue keeps the order, which does not open, from exceeding its position.

    An amount of zero is that of the whole position. The sales of an account without credit cannot exceed its balance.
    """
    if order.reduce_only is True or not order.amount or _is_cash(account):
        return True
    return account.position_mode == "hedge" and order.position_side is not None


def _closes_its_position_side(order: Order) -> bool:
    return (order.side == "sell") == (order.position_side == "long")


def _is_cash(account: AccountSnapshot) -> bool:
    """Whether the account cannot hold less than nothing of an asset. One that borrows shows it as a short position."""
    return account.market == "spot" and all(position.side == "long" for position in account.positions or ())


def _is_sale_for_money(order: Order, account: AccountSnapshot) -> bool:
    """Whether a sale of a spot account buys no other coin: in the account's currency, or in the holding's own market.

    With unknown holdings each sale may be.
    """
    if account.positions is None or quote_of(order.symbol) in (None, account.currency):
        return True
    return any(position.symbol == order.symbol and position.contracts for position in account.positions)


def _beyond_position(name: PositionName, indexes: Sequence[int], account: AccountSnapshot) -> list[int]:
    """Indexes of the plain orders that do not fit the position, with the orders before them."""
    orders = account.orders or ()
    bounded = [index for index in indexes if _is_bounded(orders[index], account)]
    plain = [index for index in indexes if index not in bounded]
    if not plain:
        return []
    room = _held(name, account) - sum((_left(orders[index]) for index in bounded), ZERO)
    position = next((each for each in account.positions or () if each.key == name), None)
    beyond = []
    for index in sorted(plain, key=lambda index: _precedence(orders[index], position)):
        left = _left(orders[index])
        if left <= max(room, ZERO):
            room -= left
        else:
            beyond.append(index)
    return beyond


def _precedence(order: Order, position: Position | None) -> tuple[bool, Decimal, str]:
    """Sort key: stops first, then the largest; of equals the smaller id, so that the listed order has no effect."""
    return not _is_stop(order, position), -_left(order), order.id


def _is_stop(order: Order, position: Position | None) -> bool:
    """Whether the order limits a loss. A conditional order of unknown direction does."""
    kind = (order.type or "").lower()
    if "take" in kind or "stop" in kind:
        return "take" not in kind
    if order.trigger_price is None:
        return False
    return trigger_when(order, position) in (None, "falls" if order.side == "sell" else "rises")


def _held(name: PositionName, account: AccountSnapshot) -> Decimal:
    """The contracts that can be reduced: of all rows of the position, in one-way mode less those of the other side."""
    symbol, side = name
    total = ZERO
    for position in account.positions or ():
        if position.symbol == symbol and sane(position.contracts):
            if position.side == side:
                total += position.contracts
            elif account.position_mode == "one_way":
                total -= position.contracts
    return total


def _left(order: Order) -> Decimal:
    """Contracts that may still be filled; infinite for an order of the whole position, or of insane size."""
    if not sane(order.amount) or order.amount <= ZERO:
        return _INFINITE
    return max(ZERO, order.amount - (_sane_or_none(order.filled) or ZERO))


def _sane_or_none(number: Decimal | None) -> Decimal | None:
    return number if number is not None and sane(number) else None
