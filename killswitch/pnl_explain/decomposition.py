"""Decomposition of one account's change of equity between two snapshots into prices, trades and the rest.

Prices move unrealised profit and never the wallet. Transfers move the wallet and never unrealised profit. Trades move
both. With E = Σ w p + U (wallet amounts at the prices of the assets, plus unrealised profit), for two snapshots 0, 1:

- C = Σ w₀ (p₁ − p₀), the effect of the prices of held assets; the wallet moved by ΔW = ΔE − ΔU − C.
- M = Σ k (q₀ (x₁ − x₀) + Σ dq (x₁ − x(price))), the effect of marks, with trades at the prices of their fills, where q
  is the signed size, k the value of a contract per unit of x, and x(m) = m, or −1 ÷ m for an inverse contract. k is the
  contract size × the price of the settlement coin; if that is unknown, it is derived from the position's notional and
  mark, except for options, whose notional may be that of the underlying and whose mark is the premium.

All money is Decimal in the account's currency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from operator import attrgetter

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Fill, Position, Side
from killswitch.valuation.account_facts import holdings, single_wallet, wallets
from killswitch.valuation.position_measures import (
    HOLDINGS,
    ZERO,
    contract_value,
    is_inverse,
    is_option,
    liquidation_distance,
)
from killswitch.valuation.scope_view import Instruments

NEAR_LIQUIDATION = Decimal("0.05")
"""The distance to the liquidation price within which a position that shrank may have been liquidated."""

_SIDES: tuple[Side, Side] = ("long", "short")

_size = attrgetter("symbol", "side", "contracts")
_entry = attrgetter("entry_price")


class UnfilledTrade(Struct, frozen=True):
    """A traded signed `quantity` of a symbol that no fill accounts for.

    It is valued at the later mark: `unit` is the value of a contract per unit of x, and `x` that of the mark; without a
    mark it is valued by its earlier notional. `closes`: whether it may have realised P&L. `span`: the effect of the
    price move on the quantity, any part of which may belong to the trade. `side`: its position in hedge mode, where the
    two sides do not offset each other; None in one-way mode, and if fills do not report it.
    """

    symbol: str
    quantity: Decimal
    unit: Decimal
    x: Decimal
    inverse: bool
    closes: bool
    is_marked: bool = True
    span: Decimal = ZERO
    side: Side | None = None

    @property
    def notional(self) -> Decimal:
        """The notional at the later mark, in the account's currency; for an inverse contract x is −1 ÷ mark."""
        return abs(self.quantity * self.unit * self.x)

    @property
    def opens(self) -> bool:
        """Whether it enlarges the position of its side; False if the side is unknown."""
        return self.side is not None and (self.quantity > ZERO) == (self.side == "long")

    def is_about(self, fill: Fill) -> bool:
        """Whether the fill may account for it; a fill without a side may belong to either."""
        return self.symbol == fill.symbol and (self.side is None or fill.position_side in (None, self.side))

    def effect(self, quantity: Decimal, price: Decimal) -> Decimal:
        """The effect of a fill of `quantity` (signed) at `price`, against the mark at which it is valued."""
        if not self.is_marked:
            return ZERO
        return self.unit * quantity * (self.x - _linear_price(price, inverse=self.inverse))

    def less(self, quantity: Decimal) -> UnfilledTrade:
        """The remainder after `quantity` (signed) is accounted for, with its proportional span."""
        left = self.quantity - quantity
        span = abs(self.span * left / self.quantity) if self.quantity else self.span
        return replace(self, quantity=left, span=span)


class PositionMoves(Struct, frozen=True):
    """The moves of positions between two snapshots; `by_marks` is None if a price or a contract's value is unknown.

    `traded` is Σ |Δ quantity| × mark, `repriced` Σ |quantity| × |Δ mark|, `gross` the earlier notional, `liquidated`
    the notional by which positions near their liquidation shrank. `unfilled`: trades without a fill. `settled`: the
    profit that left each position of unchanged size according to its entry price; None if one is unknown.
    """

    by_marks: Decimal | None = ZERO
    traded: Decimal = ZERO
    repriced: Decimal = ZERO
    gross: Decimal = ZERO
    liquidated: Decimal = ZERO
    unfilled: tuple[UnfilledTrade, ...] = ()
    settled: tuple[Decimal, ...] | None = ()

    @property
    def is_covered(self) -> bool:
        """Whether fills account for every position that shrank, so that all realised P&L is known."""
        return not any(each.closes for each in self.unfilled)

    def __add__(self, other: PositionMoves) -> PositionMoves:
        """The sum of the moves of different symbols."""
        return PositionMoves(
            None if self.by_marks is None or other.by_marks is None else self.by_marks + other.by_marks,
            self.traded + other.traded,
            self.repriced + other.repriced,
            self.gross + other.gross,
            self.liquidated + other.liquidated,
            self.unfilled + other.unfilled,
            None if self.settled is None or other.settled is None else self.settled + other.settled,
        )


UNVALUED = PositionMoves(by_marks=None, settled=None)
"""The moves of a symbol that cannot be valued."""


def wallet_change(before: AccountSnapshot, after: AccountSnapshot, unrealized: Decimal | None) -> Decimal | None:
    """ΔW, the change of the wallet; `unrealized` is ΔU. None if unknown.

    If both snapshots report every wallet, it is Σ (w₁ − w₀) p₁, which no haircut or old price affects.
    """
    alone = single_wallet(before), single_wallet(after)
    if alone[0] is not None and alone[1] is not None:
        return alone[1] - alone[0]
    first, second = _wallets(before), _wallets(after)
    if first is not None and second is not None:
        if first == second:
            return ZERO
        moved = sum((amount * price for asset, (amount, price) in second.items() if asset not in first), ZERO)
        for asset, (amount, price) in first.items():
            now, now_price = second.get(asset, (ZERO, price))
            moved += (now - amount) * now_price
        return moved
    if unrealized is None or before.equity is None or after.equity is None:
        return None
    return after.equity - before.equity - unrealized - collateral_effect(before, after)


def collateral_effect(before: AccountSnapshot, after: AccountSnapshot) -> Decimal:
    """C, the effect of asset prices on the amounts held before. An asset is counted once."""
    first = holdings(before)
    second = holdings(after) if first else {}
    return sum((amount * (second[it][1] - price) for it, (amount, price) in first.items() if it in second), ZERO)


def _wallets(account: AccountSnapshot) -> dict[str, tuple[Decimal, Decimal]] | None:
    """Asset → (wallet, price) if the wallet of every priced asset is reported, else None."""
    found = wallets(account)
    return None if found is None else {asset: (wallet, price) for asset, wallet, price in found}


def sizes_changed(before: AccountSnapshot, after: AccountSnapshot) -> bool:
    """Whether a position's quantity differs, or the positions of either snapshot are unknown."""
    one, other = before.positions, after.positions
    if one is None or other is None:
        return True
    return [*map(_size, one)] != [*map(_size, other)] and _sizes(one) != _sizes(other)


def entries_changed(before: AccountSnapshot, after: AccountSnapshot) -> bool:
    """Whether an entry price differs between snapshots with the same positions; unknown entries count as equal."""
    try:
        return [*map(_entry, before.positions or ())] != [*map(_entry, after.positions or ())]
    except InvalidOperation:  # a signalling NaN
        return True


def _sizes(positions: Iterable[Position]) -> dict[tuple[str, str], Decimal]:
    found: dict[tuple[str, str], Decimal] = {}
    for each in positions:
        if each.contracts:
            found[each.key] = found.get(each.key, ZERO) + each.contracts
    return found


class _SymbolHolding(Struct):
    """A symbol in one snapshot of an account: sizes by side, mark, value of a contract."""

    unit: Decimal | None = None
    """The value of a contract per unit of x, in the account's currency; None if unknown."""
    sizes: dict[Side, Decimal] = field(default_factory=dict)
    mark: Decimal | None = None
    notional: Decimal | None = ZERO
    """The sum of its positions' notionals; None if one is unknown, and for options."""
    pnl: Decimal | None = ZERO
    distance: dict[str, Decimal | None] = field(default_factory=dict)
    entries: dict[Side, Decimal | None] = field(default_factory=dict)
    """Σ size × x(entry) of each side; None if an entry price is unknown."""

    @property
    def net(self) -> Decimal:
        return self.sizes.get("long", ZERO) - self.sizes.get("short", ZERO)

    @property
    def held(self) -> Decimal:
        """Contracts of both sides."""
        return sum(self.sizes.values(), ZERO)

    def add(self, position: Position, *, inverse: bool) -> None:
        """Add one position of the symbol."""
        self.sizes[position.side] = self.sizes.get(position.side, ZERO) + position.contracts
        self.distance[position.side] = liquidation_distance(position)
        self._add_entry(position, inverse=inverse)
        self.pnl = None if self.pnl is None or position.unrealized_pnl is None else self.pnl + position.unrealized_pnl
        if position.mark_price is not None and sane(position.mark_price) and position.mark_price > ZERO:
            self.mark = position.mark_price
        if self.notional is None or position.notional is None or is_option(position.symbol):
            self.notional = None
            return
        self.notional += abs(position.notional)
        if self.unit is None and position.notional and self.mark and position.contracts:
            each = abs(position.notional) / position.contracts
            self.unit = each * self.mark if inverse else each / self.mark

    def _add_entry(self, position: Position, *, inverse: bool) -> None:
        so_far, entry = self.entries.get(position.side, ZERO), position.entry_price
        if so_far is None or entry is None or not sane(entry) or entry <= ZERO:
            self.entries[position.side] = None
        else:
            self.entries[position.side] = so_far + position.contracts * _linear_price(entry, inverse=inverse)


class _SymbolChange(Struct, frozen=True):
    """A symbol in `one` snapshot and the `other`, with the fills between them; for `hedged` see `is_hedged`."""

    symbol: str
    one: _SymbolHolding
    other: _SymbolHolding
    fills: Sequence[Fill]
    inverse: bool
    hedged: bool

    @property
    def sizes(self) -> dict[Side, Decimal]:
        """The growth of the position of each side."""
        return {side: self.other.sizes.get(side, ZERO) - self.one.sizes.get(side, ZERO) for side in _SIDES}

    @property
    def moved(self) -> Decimal:
        return sum((abs(change) for change in self.sizes.values()), ZERO)

    def unfilled(self, unit: Decimal, x0: Decimal, x1: Decimal, *, is_marked: bool = True) -> tuple[UnfilledTrade, ...]:
        """The trades that positions show and fills do not, separately for each side in hedge mode."""
        sizes = self.sizes

        def of(quantity: Decimal, side: Side | None, *, closes: bool) -> UnfilledTrade:
            span = abs(unit * quantity * (x1 - x0)) if is_marked else ZERO
            inverse = is_marked and self.inverse
            return UnfilledTrade(self.symbol, quantity, unit, x1, inverse, closes, is_marked, span, side)

        if not self.hedged:
            quantity = self.other.net - self.one.net - sum(map(signed_amount, self.fills), ZERO)
            return (of(quantity, None, closes=any(it < ZERO for it in sizes.values())),) if quantity else ()
        left, unplaced = self._by_side(sizes)
        found = [of(left[side], side, closes=sizes[side] < ZERO) for side in _SIDES if left[side]]
        return (*found, of(-unplaced, None, closes=False)) if unplaced else tuple(found)

    def _by_side(self, sizes: Mapping[Side, Decimal]) -> tuple[dict[Side, Decimal], Decimal]:
        """The part of each side's change that fills do not explain, signed like trades, and the unmatched part of the
        fills.

        A fill without a side may belong to either. It is matched first with the side that it opens, so that a position
        closed without a fill stays unexplained.
        """
        left: dict[Side, Decimal] = {"long": sizes["long"], "short": -sizes["short"]}
        bought = sold = ZERO
        for fill in self.fills:
            if fill.position_side is not None:
                left[fill.position_side] -= signed_amount(fill)
            elif fill.side == "buy":
                bought += fill.amount
            else:
                sold -= fill.amount
        unplaced = ZERO
        for quantity, sides in ((bought, _SIDES), (sold, _SIDES[::-1])):
            rest = quantity
            for side in sides:
                part = matched_part(rest, left[side])
                left[side] -= part
                rest -= part
            unplaced += rest
        return left, unplaced


def signed_amount(fill: Fill) -> Decimal:
    """The amount of a fill, negative for a sale."""
    return fill.amount if fill.side == "buy" else -fill.amount


def matched_part(quantity: Decimal, wanted: Decimal) -> Decimal:
    """The part of a quantity that is wanted; zero if the two have opposite signs."""
    return min(quantity, wanted, key=abs) if quantity * wanted > ZERO else ZERO


def is_hedged(symbol: str, before: AccountSnapshot, after: AccountSnapshot) -> bool:
    """Whether the account can hold both sides of a symbol: it is in hedge mode, or a snapshot shows both."""
    if "hedge" in (before.position_mode, after.position_mode):
        return True
    return any(
        len({each.side for each in account.positions or () if each.symbol == symbol and each.contracts}) > 1
        for account in (before, after)
    )


def position_moves(
    before: AccountSnapshot, after: AccountSnapshot, rules: Instruments, fills: Sequence[Fill] = ()
) -> PositionMoves:
    """The effect of marks and trades on the positions from `before` to `after`, with the `fills` between them.

    A symbol that vanished is marked by the later snapshot's `marks`, else by its last mark. On a market of holdings,
    `by_marks` is only the effect of trades; asset prices are part of `collateral_effect`. Unknown positions show no
    trade: fills do.
    """
    if before.positions is None or after.positions is None:
        return UNVALUED
    first, second = _symbols(before, rules), _symbols(after, rules)
    later = {mark.symbol: mark.mark_price for mark in after.marks or () if sane(mark.mark_price)}
    executed: dict[str, list[Fill]] = {}
    for fill in fills:
        executed.setdefault(fill.symbol, []).append(fill)
    moves = PositionMoves()
    none, holds = _SymbolHolding(), before.market in HOLDINGS
    in_hedge_mode = "hedge" in (before.position_mode, after.position_mode)
    # In the order of the snapshots, so that stored state is deterministic.
    for symbol in dict.fromkeys((*first, *second, *executed)):
        one, other = first.get(symbol, none), second.get(symbol, none)
        known = rules.get((after.account, symbol))
        contract = contract_value(after, symbol, known) or (Decimal(1) if holds else None)
        hedged = in_hedge_mode or len(one.sizes) > 1 or len(other.sizes) > 1
        change = _SymbolChange(symbol, one, other, executed.get(symbol, ()), is_inverse(symbol, known), hedged)
        moves += _symbol_moves(change, later.get(symbol), contract, holds=holds)
    return moves


def _symbols(account: AccountSnapshot, rules: Instruments) -> dict[str, _SymbolHolding]:
    found: dict[str, _SymbolHolding] = {}
    for position in account.positions or ():
        if sane(position.contracts) and position.contracts:
            symbol = position.symbol
            known = rules.get((account.account, symbol))
            if symbol not in found:
                found[symbol] = _SymbolHolding(contract_value(account, symbol, known))
            found[symbol].add(position, inverse=is_inverse(symbol, known))
    return found


def _symbol_moves(
    change: _SymbolChange, later_mark: Decimal | None, contract: Decimal | None, *, holds: bool
) -> PositionMoves:
    """The moves of one symbol."""
    one, other, fills, inverse = change.one, change.other, change.fills, change.inverse
    moved = change.moved
    unit = other.unit or one.unit or contract
    mark0, mark1 = one.mark, other.mark or later_mark
    if mark1 is None:
        mark1 = mark0 if mark0 is not None else next((fill.price for fill in reversed(fills)), None)
    mark0 = mark0 if mark0 is not None else mark1
    if unit is None or mark0 is None or mark1 is None or mark0 <= ZERO or mark1 <= ZERO:
        return _moves_without_mark(change)
    x0, x1 = _linear_price(mark0, inverse=inverse), _linear_price(mark1, inverse=inverse)
    effect = ZERO if holds else unit * one.net * (x1 - x0)
    effect += unit * sum(
        (signed_amount(it) * (x1 - _linear_price(it.price, inverse=inverse)) for it in fills if it.price > ZERO), ZERO
    )
    each = unit / mark1 if inverse else unit * mark1
    filled = sum((abs(fill.amount) for fill in fills), ZERO)
    shrunk = {side: -grown for side, grown in change.sizes.items() if grown < ZERO}
    near = sum((size * each for side, size in shrunk.items() if _is_near(one, side, mark0, mark1)), ZERO)
    return PositionMoves(
        by_marks=effect,
        traded=max(moved, filled) * each,
        repriced=abs(unit * one.held * (x1 - x0)),
        gross=_notional(unit, one, mark0, inverse=inverse),
        liquidated=near,
        unfilled=change.unfilled(unit, x0, x1),
        settled=() if holds else _settled(change, unit),
    )


def _settled(change: _SymbolChange, unit: Decimal) -> tuple[Decimal, ...] | None:
    """The profit that left the positions of unchanged size: ± size × unit × (x(entry₁) − x(entry₀)) of each side."""
    found = []
    for side, size in change.one.sizes.items():
        if not size or change.other.sizes.get(side) != size:
            continue
        before, after = change.one.entries.get(side), change.other.entries.get(side)
        if before is None or after is None:
            return None
        moved = unit * (after - before)
        if moved:
            found.append(moved if side == "long" else -moved)
    return tuple(found)


def _moves_without_mark(change: _SymbolChange) -> PositionMoves:
    """The moves of a symbol without a mark, from its own profit and its earlier notional."""
    one, other, moved = change.one, change.other, change.moved
    if not moved:
        if one.pnl is None or other.pnl is None or change.fills:
            return UNVALUED
        by_profit = other.pnl - one.pnl
        return PositionMoves(by_profit, repriced=abs(by_profit), settled=None)
    if not one.held or not one.notional:
        return UNVALUED
    each = one.notional / one.held
    unfilled = change.unfilled(each, Decimal(1), Decimal(1), is_marked=False)
    return PositionMoves(None, traded=moved * each, gross=one.notional, unfilled=unfilled)


def _is_near(one: _SymbolHolding, side: Side, mark0: Decimal, mark1: Decimal) -> bool:
    """Whether the mark was close to the liquidation price, or moved at least half the way to it."""
    distance = one.distance.get(side)
    if distance is None or not one.sizes.get(side):
        return False
    approached = (mark0 - mark1) / mark0 if side == "long" else (mark1 - mark0) / mark0
    return distance <= NEAR_LIQUIDATION or approached >= distance / 2


def _notional(unit: Decimal, one: _SymbolHolding, mark: Decimal, *, inverse: bool) -> Decimal:
    return unit * one.held / mark if inverse else unit * one.held * mark


def _linear_price(price: Decimal, *, inverse: bool) -> Decimal:
    return -1 / price if inverse else price
