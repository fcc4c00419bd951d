"""An account as the gate judges orders by it: what is held, what could still fill, the value of a contract.

The worst case of a side is what is held on it, with every plain order on it filled in full: what is held on the other
side nets nothing, because an exit that the venue bounds may take it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.limits import LimitAmount, SizeRule
from killswitch.limits.reservations import ApprovedOrder
from killswitch.limits.view import GateAccount, InFlight
from killswitch.model.snapshot import Instrument, Order, Side
from killswitch.planning.reducing import (
    AccountHoldings,
    Judgement,
    PositionName,
    enlarged_by,
    holdings_of,
    is_bounded,
    judge,
    left_of,
    reduced_by,
)
from killswitch.policy.schema.unwinding import DEFAULT_STABLES
from killswitch.valuation.position_measures import ZERO, base_of, contract_value, is_inverse, is_option


class Contract(Struct, frozen=True):
    """What one contract of a symbol is: its base units, its value and its limits. None: unknown, or no limit.

    `face`: the value of a contract per unit of price (for an inverse one, its value), in the account's currency.
    """

    symbol: str
    base: str
    rules: Instrument | None
    mark: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    face: Decimal | None
    inverse: bool
    leverage: Decimal | None
    """The venue's leverage of the position; None: unknown, so that an order needs its whole value as margin."""

    @property
    def base_units(self) -> Decimal | None:
        """Base units of one contract."""
        size = None if self.rules is None else self.rules.contract_size
        if size is None or not self.inverse:
            return size
        return size / self.mark if self.mark else None

    def value_at(self, price: Decimal | None) -> Decimal | None:
        """The value of a contract at the worse of the mark and an order's price; None without a mark.

        The order's own price proves nothing: without a mark the value is unknown.
        """
        if self.face is None or not self.mark:
            return None
        if self.inverse:
            return self.face / (min(self.mark, price) if price else self.mark)
        return self.face * (max(self.mark, price) if price else self.mark)


class SizeCaps(Struct, frozen=True):
    """The size limits that cover a symbol: the smallest value and the smallest amount of base units; None: no limit.

    `needs_equity`: a share of the equity covers it, and the equity is unknown.
    """

    value: Decimal | None = None
    base_units: Decimal | None = None
    needs_equity: bool = False

    @property
    def is_any(self) -> bool:
        """Whether any limit covers the symbol."""
        return self.value is not None or self.base_units is not None or self.needs_equity


class BookTotals(Struct, frozen=True):
    """The worst case of every symbol of a book, without any further order."""

    values: dict[str, Decimal | None]

    @property
    def gross(self) -> tuple[Decimal | None, str]:
        """The sum over all symbols; None, and what is missing, if one is unknown."""
        total = ZERO
        for symbol, value in self.values.items():
            if value is None:
                return None, f"the value of {symbol}"
            total += value
        return total, ""


class GateBook:
    """One account of a view, prepared for questions; what depends on a symbol is computed when it is first needed."""

    def __init__(self, account: GateAccount, *, is_current: bool) -> None:
        """`is_current`: whether the state may be used as that of now."""
        self.account = account
        state, limits = account.state, account.limits
        self.holdings: AccountHoldings = holdings_of(
            state,
            cash=DEFAULT_STABLES if limits is None else limits.cash,
            flags=None if account.enforced is None else frozenset(account.enforced),
            is_current=is_current,
        )
        self._rules = {each.symbol: each for each in state.instruments or ()}
        self._contracts: dict[str, Contract] = {}
        self._caps: dict[tuple[str, bool], SizeCaps] = {}
        self._totals: BookTotals | None = None
        self._bands: dict[str, Decimal | None] = {}
        self.seen_ids = frozenset(account.seen_ids)
        self.exits: dict[PositionName, Decimal] = {}
        """Position → the contracts of everything that rests, or is ours, and could reduce it."""
        self.entering: dict[PositionName, Decimal] = {}
        """Position → the contracts of plain orders that could add to it."""
        self.entering_value: dict[PositionName, Decimal | None] = {}
        """The value of those orders, each at the worse of the mark and its price; None: unknown."""
        self.by_id: dict[str, Order] = {}
        self.resting_entries = 0
        """The number of plain orders that rest."""
        self._count_orders()

    def without(self, order: Order) -> GateBook:
        """The book without a resting order, which an amendment changes in one step."""
        state = self.account.state
        orders = tuple(each for each in state.orders or () if each.id != order.id)
        account = replace(self.account, state=replace(state, orders=orders))
        return GateBook(account, is_current=self.holdings.is_current)

    def contract(self, symbol: str) -> Contract:
        """What one contract of the symbol is."""
        found = self._contracts.get(symbol)
        if found is None:
            found = self._contracts[symbol] = self._contract(symbol)
        return found

    def held(self, position: PositionName) -> Decimal | None:
        """Contracts of the position; None if positions are unknown."""
        sizes = self.holdings.sizes
        return None if sizes is None else max(ZERO, sizes.get(position, ZERO))

    def judge(self, order: Order, reserved: Decimal, *, claims_exit: bool) -> Judgement:
        """What the order does next to everything that rests, is ours, or is `reserved` on its side (contracts)."""
        taken = self.exits.get(reduced_by(order), ZERO) + reserved
        return judge(order, self.holdings, taken, is_reported=False, claims_exit=claims_exit)

    def conflicts(self, order: Order, extra: Sequence[ApprovedOrder]) -> tuple[str, ...]:
        """The plain orders on the side of this bounded exit that no longer fit the position next to it.

        By client order id; a resting order without one by its own id, an allowed one by its question.
        """
        name = reduced_by(order)
        held, on_side = self.held(name), [each for each in extra if _exits(each, name)]
        taken = self.exits.get(name, ZERO) + sum((left_of(each.order) for each in on_side), ZERO)
        if held is None or taken + left_of(order) <= held:
            return ()
        resting = (each for each in self.account.state.orders or () if reduced_by(each) == name and self._adds(each))
        allowed = (each for each in on_side if not each.is_bounded)
        found = [each.client_order_id or each.id for each in resting]
        found += [each.order.client_order_id or each.question for each in allowed]
        return tuple(dict.fromkeys(found))

    def caps(self, symbol: str, *, of_position: bool) -> SizeCaps:
        """The limits on the size of an order, or of a position, in the symbol."""
        found = self._caps.get((symbol, of_position))
        if found is None:
            limits = self.account.limits
            rules = () if limits is None else limits.position_size if of_position else limits.order_size
            found = self._caps[symbol, of_position] = self._size_caps(symbol, rules)
        return found

    def band(self, symbol: str) -> Decimal | None:
        """The smallest distance from the mark that limits the price of an order in the symbol; None: no limit."""
        if symbol not in self._bands:
            limits, base = self.account.limits, self.contract(symbol).base
            bands = () if limits is None else limits.price_band
            self._bands[symbol] = min((each.at_most for each in bands if each.covers(symbol, base)), default=None)
        return self._bands[symbol]

    @property
    def entering_total(self) -> Decimal | None:
        """The value of every plain order that rests; None if that of one is unknown."""
        total = ZERO
        for value in self.entering_value.values():
            if value is None:
                return None
            total += value
        return total

    def money(self, limit: LimitAmount) -> Decimal | None:
        """A limit in the account's currency; None if it is a share of an unknown equity."""
        if limit.unit == "money":
            return limit.value
        equity = self.account.state.equity
        return None if equity is None else limit.value * max(equity, ZERO)

    @property
    def totals(self) -> BookTotals:
        """The worst case of every symbol that is held, or that a plain order could open."""
        if self._totals is None:
            symbols = {symbol for symbol, _ in (*(self.holdings.sizes or ()), *self.entering)}
            self._totals = BookTotals({symbol: self.worst_value(symbol) for symbol in symbols})
        return self._totals

    def side_contracts(self, name: PositionName) -> Decimal:
        """What is held on a side, with every plain order on it filled in full."""
        return (self.held(name) or ZERO) + self.entering.get(name, ZERO)

    def side_value(self, name: PositionName) -> Decimal | None:
        """The value of that, each order at the worse of the mark and its price; None if it is unknown."""
        held, entering = self.held(name) or ZERO, self.entering_value.get(name, ZERO)
        at_mark = self.contract(name[0]).value_at(None) if held else ZERO
        return None if entering is None or at_mark is None else entering + held * at_mark

    def worst_value(self, symbol: str) -> Decimal | None:
        """The value of a symbol at worst: the larger side in one-way mode, where it has one position, else both."""
        long, short = self.side_value((symbol, "long")), self.side_value((symbol, "short"))
        if long is None or short is None:
            return None
        return max(long, short) if self.holdings.position_mode == "one_way" else long + short

    def _count_orders(self) -> None:
        state = self.account.state
        resting = state.orders or ()
        names = {each.client_order_id for each in resting}
        for order in resting:
            self.by_id[order.id] = order
            if order.client_order_id is not None:
                self.by_id[order.client_order_id] = order
            self._count(order, is_bounded=not self._adds(order))
        for own in self.account.own:
            if own.client_order_id not in names:
                order = _own_order(own)
                self._count(order, is_bounded=is_bounded(order, self.holdings) or own.reduce_only)

    def _count(self, order: Order, *, is_bounded: bool) -> None:
        left, exit_of = left_of(order), reduced_by(order)
        self.exits[exit_of] = self.exits.get(exit_of, ZERO) + left
        entered = enlarged_by(order.symbol, order.side, order.position_side)
        if is_bounded or entered is None or not left:
            return
        self.resting_entries += 1
        self.entering[entered] = self.entering.get(entered, ZERO) + left
        each = self.contract(order.symbol).value_at(order.price or order.trigger_price)
        before = self.entering_value.get(entered, ZERO)
        self.entering_value[entered] = None if each is None or before is None else before + left * each

    def _adds(self, order: Order) -> bool:
        """Whether a resting order is plain, so that it could open something."""
        return not is_bounded(order, self.holdings, is_reported=True)

    def _contract(self, symbol: str) -> Contract:
        state, rules = self.account.state, self._rules.get(symbol)
        face = None if is_option(symbol) else contract_value(state, symbol, rules)
        rows = [each for each in state.positions or () if each.symbol == symbol]
        watched = [each for each in state.watched or () if each.symbol == symbol]
        marks = [each.mark_price for each in rows]
        marks += [each.mark_price for each in state.marks or () if each.symbol == symbol]
        marks += [each.mark_price for each in watched]
        quotes = [*((each.bid, each.ask) for each in rows), *((each.bid, each.ask) for each in watched)]
        bid, ask = next((each for each in quotes if None not in each), (None, None))
        leverages = [each.leverage for each in rows if each.leverage is not None and each.leverage > 0]
        return Contract(
            symbol=symbol,
            base=base_of(symbol),
            rules=rules,
            mark=next((mark for mark in marks if mark is not None and mark > 0), None),
            bid=bid,
            ask=ask,
            face=face,
            inverse=is_inverse(symbol, rules),
            leverage=min(leverages, default=None),
        )

    def _size_caps(self, symbol: str, rules: tuple[SizeRule, ...]) -> SizeCaps:
        contract, currency = self.contract(symbol), self.account.state.currency
        values: list[Decimal] = []
        units: list[Decimal] = []
        needs_equity = False
        for rule in rules:
            if not rule.covers(symbol, contract.base):
                continue
            amount = rule.at_most
            if amount.unit == "money" and amount.currency != currency:
                units += [amount.value] if amount.currency == contract.base else []
                continue
            money = self.money(amount)
            needs_equity |= money is None
            values += [] if money is None else [money]
        return SizeCaps(min(values, default=None), min(units, default=None), needs_equity)


def side_of(order: Order) -> Side:
    """The side of the position that an entry opens."""
    if order.position_side is not None:
        return order.position_side
    return "long" if order.side == "buy" else "short"


def _exits(approved: ApprovedOrder, name: PositionName) -> bool:
    return reduced_by(approved.order) == name


def _own_order(own: InFlight) -> Order:
    """An order of ours as a resting one; of an unknown amount, one of the whole position."""
    return Order(
        id=own.client_order_id, symbol=own.symbol, side=own.side, amount=own.contracts or ZERO,
        client_order_id=own.client_order_id, position_side=own.position_side, reduce_only=own.reduce_only,
    )  # fmt: skip
