"""An account at worst: its book, what was allowed and no read shows yet, and one more entry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.limits.book import GateBook, side_of
from killswitch.limits.reservations import ApprovedOrder
from killswitch.model.snapshot import Order, Side
from killswitch.planning.reducing import PositionName, left_of, reduced_by
from killswitch.valuation.position_measures import ZERO

ONE = Decimal(1)


class Worst(Struct, frozen=True):
    """An account at worst, in contracts and in its currency. None is unknown.

    `contracts`, `value`: of the position that the order opens. `of_base`: of all positions in its base asset.
    `entering_value`: of everything that may still fill and open, for fees.
    """

    contracts: Decimal
    value: Decimal | None
    order_value: Decimal | None
    gross: Decimal | None
    gross_missing: str
    of_base: Decimal | None
    margin: Decimal | None
    entering_value: Decimal | None
    opened: Collection[str] = ()
    """The symbols with a position at worst without the order, where a number of positions is the limit."""


class CountedOrders:
    """A book with the orders that were allowed and are not seen yet; computed once for many questions."""

    def __init__(self, book: GateBook, approved: Iterable[ApprovedOrder]) -> None:
        self.book = book
        self.orders: list[ApprovedOrder] = []
        self.ids: set[str] = set()
        """Client order ids in flight."""
        self.exits: dict[PositionName, Decimal] = {}
        """Position → contracts of the orders that could reduce it."""
        self.margin = ZERO
        self.entries = 0
        self._sides: dict[PositionName, tuple[Decimal, Decimal | None]] = {}
        """Position → contracts and value at worst, where an allowed order adds to it or it was needed."""
        self._worst: dict[str, Decimal | None] = dict(book.totals.values)
        self._gross, self._missing = book.totals.gross
        self._entering: Decimal | None = book.entering_total
        for each in approved:
            self.add(each)

    def add(self, approved: ApprovedOrder) -> None:
        """Count one more order."""
        order = approved.order
        self.orders.append(approved)
        self.margin += approved.margin
        name = reduced_by(order)
        self.exits[name] = self.exits.get(name, ZERO) + left_of(order)
        if order.client_order_id is not None and approved.amends is None:
            self.ids.add(order.client_order_id)
        if approved.is_bounded:
            return
        self.entries += 1
        side, value = side_of(order), self._value(order)
        self._entering = _plus(self._entering, value)
        contracts, before = self._side(order.symbol, side)
        self._sides[order.symbol, side] = contracts + left_of(order), _plus(before, value)
        before = self._worst.get(order.symbol, ZERO)
        after = self._worst[order.symbol] = self._worst_with(order.symbol, side, None)
        if after is None:
            self._gross, self._missing = None, f"the value of {order.symbol}"
        elif self._gross is not None and before is not None:
            self._gross += after - before

    def worst_case(self, order: Order) -> Worst:
        """The worst case with one more entry."""
        symbol, side = order.symbol, side_of(order)
        left, contract = left_of(order), self.book.contract(symbol)
        each = contract.value_at(order.price or order.trigger_price)
        order_value = None if each is None else left * each
        contracts, value = self._side(symbol, side)
        before, after = self._worst.get(symbol, ZERO), self._worst_with(symbol, side, order_value)
        gross, missing = self._gross, self._missing
        if order_value is None or after is None or before is None:
            gross, missing = None, f"the value of {symbol}"
        elif gross is not None:
            gross += after - before
        margin = order_value
        if margin is not None and contract.leverage is not None:
            margin /= max(contract.leverage, ONE)
        return Worst(
            contracts=contracts + left,
            value=_plus(value, order_value),
            order_value=order_value,
            gross=gross,
            gross_missing=missing,
            of_base=None if after is None or order_value is None else self._of_base(symbol, after),
            margin=margin,
            entering_value=_plus(self._entering, order_value),
            opened=self._opened(),
        )

    def _opened(self) -> Collection[str]:
        cap = self.book.account.recovery
        return (
            () if cap is None or cap.positions is None else [each for each, value in self._worst.items() if value != 0]
        )

    def _side(self, symbol: str, side: Side) -> tuple[Decimal, Decimal | None]:
        found = self._sides.get((symbol, side))
        if found is None:
            name = (symbol, side)
            found = self._sides[name] = self.book.side_contracts(name), self.book.side_value(name)
        return found

    def _worst_with(self, symbol: str, side: Side, more: Decimal | None) -> Decimal | None:
        """The symbol at worst with `more` value on a side: its larger side in one-way mode, else both."""
        own, other = self._side(symbol, side)[1], self._side(symbol, "short" if side == "long" else "long")[1]
        if own is None or other is None:
            return None
        if more is not None:
            own += more
        return max(own, other) if self.book.holdings.position_mode == "one_way" else own + other

    def _of_base(self, symbol: str, worst: Decimal) -> Decimal | None:
        """The worst case of every symbol of the base asset, with `worst` for this one."""
        limits, contract = self.book.account.limits, self.book.contract
        if limits is None or limits.concentration is None:
            return None
        base, total = contract(symbol).base, worst
        for each, value in self._worst.items():
            if each != symbol and contract(each).base == base:
                if value is None:
                    return None
                total += value
        return total

    def _value(self, order: Order) -> Decimal | None:
        each = self.book.contract(order.symbol).value_at(order.price or order.trigger_price)
        return None if each is None else left_of(order) * each


class CountedOnce:
    """The counted orders of the newest reservations: a further reservation is added, anything else counted again."""

    def __init__(self, book: GateBook) -> None:
        self._book = book
        self._approved: tuple[ApprovedOrder, ...] = ()
        self._counted = CountedOrders(book, ())

    def of(self, approved: tuple[ApprovedOrder, ...]) -> CountedOrders:
        """The orders of the account among these, counted."""
        known, name = self._approved, self._book.account.state.account
        if approved is known:
            return self._counted
        if len(approved) > len(known) and approved[: len(known)] == known:
            new: Sequence[ApprovedOrder] = approved[len(known) :]
        else:
            self._counted, new = CountedOrders(self._book, ()), approved
        for each in new:
            if each.account == name:
                self._counted.add(each)
        self._approved = approved
        return self._counted


def margin_of(book: GateBook, order: Order) -> Decimal | None:
    """The margin that an order needs at most, in the account's currency; None if its value is unknown.

    Its value divided by the venue's leverage of the position; where that is unknown, its whole value.
    """
    contract = book.contract(order.symbol)
    each = contract.value_at(order.price or order.trigger_price)
    if each is None:
        return None
    value = left_of(order) * each
    return value if contract.leverage is None else value / max(contract.leverage, ONE)


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other
