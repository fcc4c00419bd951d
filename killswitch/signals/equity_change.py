"""How one account's equity changed between two snapshots, and how much of that prices and trades account for.

Prices move unrealised profit and never the wallet. Transfers move the wallet and never unrealised profit. Trades move
both. With E = Σ w p + U (wallet amounts at the prices of the assets, plus unrealised profit), for two snapshots 0, 1:

- C = Σ w₀ (p₁ − p₀), what the prices of held assets made; the wallet moved by ΔW = ΔE − ΔU − C.
- M = Σ k (q₀ (x₁ − x₀) + Σ dq (x₁ − x(price))), what marks made, trades at the prices of their fills, where q is the
  signed size, k the value of a contract per unit of x, and x(m) = m; of an inverse contract x(m) = −1 ÷ m.

All money is Decimal in the account's currency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter

from msgspec import Struct

from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument, Position
from killswitch.signals.position import ZERO, liquidation_distance, sign
from killswitch.signals.soundness import sane

HOLDINGS = frozenset({"spot", "margin", "equity"})
"""Markets whose positions are holdings: their whole value is in the equity, and not only their profit."""
NEAR_LIQUIDATION = Decimal("0.05")
"""A position that shrank from within this distance of its liquidation price may have been liquidated."""
SPLIT = Decimal("0.01")
"""Size and mark that jump inversely leave the notional as it was, but for this fraction: a split, and no trade."""

Rules = Mapping[tuple[str, str], Instrument]
"""(account, symbol) → the symbol's rules."""

_size = attrgetter("symbol", "side", "contracts")


class Untold(Struct, frozen=True):
    """A signed `quantity` of a symbol that was traded, and that no fill accounts for.

    It is valued at the later mark: `unit` is the value of a contract per unit of x, and `x` that of the mark. `closes`:
    whether it may have realised something. One that is not marked is valued by its notional before. `span`: what the
    price made of the quantity meanwhile, of which the trade may have had any part.
    """

    symbol: str
    quantity: Decimal
    unit: Decimal
    x: Decimal
    inverse: bool
    closes: bool
    is_marked: bool = True
    span: Decimal = ZERO

    @property
    def notional(self) -> Decimal:
        """Its notional at the later mark."""
        return abs(self.quantity * self.unit / self.x) if self.inverse else abs(self.quantity * self.unit * self.x)

    def effect(self, quantity: Decimal, price: Decimal) -> Decimal:
        """What a fill of `quantity` (signed) at `price` makes of it, against the mark at which it was valued."""
        if not self.is_marked:
            return ZERO
        return self.unit * quantity * (self.x - _x(price, inverse=self.inverse))


@dataclass(frozen=True, slots=True)
class PositionMoves:
    """What the positions of two snapshots say; `by_marks` None where a price or a contract's value is unknown.

    `traded` is Σ |Δ quantity| × mark, `repriced` Σ |quantity| × |Δ mark|, `gross` the earlier notional, `liquidated`
    the notional by which positions near their liquidation shrank. `untold`: what was traded and no fill says so.
    """

    by_marks: Decimal | None
    traded: Decimal
    repriced: Decimal
    gross: Decimal
    liquidated: Decimal
    untold: tuple[Untold, ...] = ()

    @property
    def is_covered(self) -> bool:
        """Whether fills account for every position that shrank, so that they say all that was realised."""
        return not any(each.closes for each in self.untold)


def wallet_change(before: AccountSnapshot, after: AccountSnapshot, unrealized: Decimal | None) -> Decimal | None:
    """ΔW, by which the wallet moved; `unrealized` is ΔU. None where either cannot be known.

    Where both snapshots give every wallet it is Σ (w₁ − w₀) p₁: neither a haircut nor an old price moves a wallet.
    """
    alone = _alone(before), _alone(after)
    if alone[0] is not None and alone[1] is not None:
        return alone[1] - alone[0]
    second = _wallets(after)
    if second is not None and before.unrealized is not None and before.balances == after.balances:
        return ZERO  # nearly every snapshot: nothing is to be multiplied
    first = _wallets(before)
    if first is not None and second is not None:
        moved = sum((amount * price for asset, (amount, price) in second.items() if asset not in first), ZERO)
        for asset, (amount, price) in first.items():
            now, now_price = second.get(asset, (ZERO, price))
            moved += (now - amount) * now_price
        return moved
    if unrealized is None or before.equity is None or after.equity is None:
        return None
    return after.equity - before.equity - unrealized - collateral_effect(before, after)


def collateral_effect(before: AccountSnapshot, after: AccountSnapshot) -> Decimal:
    """C: what the prices of the assets made of the amounts that were held before. An asset is counted once."""
    first = holdings(before)
    if not first:
        return ZERO
    second = holdings(after)
    effect = ZERO
    for asset, (amount, price) in first.items():
        now = second.get(asset)
        if now is not None:
            effect += amount * (now[1] - price)
    return effect


def holdings(account: AccountSnapshot) -> dict[str, tuple[Decimal, Decimal]]:
    """Asset → (amount, price) of every priced asset but the account's own currency.

    The amount without unrealised profit where it is given, else with it. On a market of holdings a position that is in
    no balance is a holding too.
    """
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for balance in account.balances or ():
        if balance.asset == account.currency or balance.price is None or not sane(balance.price):
            continue
        amount = balance.wallet if balance.wallet is not None else balance.equity
        amount = balance.amount if amount is None else amount
        if sane(amount):
            found[balance.asset] = (amount, balance.price)
    if account.market in HOLDINGS:
        held = {balance.asset for balance in account.balances or ()}
        for position in account.positions or ():
            asset = _base(position.symbol)
            if asset not in held and position.mark_price is not None and sane(position.mark_price):
                amount, _ = found.get(asset, (ZERO, ZERO))
                found[asset] = (amount + position.contracts * sign(position), position.mark_price)
    return found


def _alone(account: AccountSnapshot) -> Decimal | None:
    """The wallet of an account that holds its own currency only; None of any other, and where it is not given."""
    if account.unrealized is None or account.balances is None or len(account.balances) != 1:
        return None
    balance = account.balances[0]
    known = balance.asset == account.currency and balance.wallet is not None and sane(balance.wallet)
    return balance.wallet if known else None


def _wallets(account: AccountSnapshot) -> dict[str, tuple[Decimal, Decimal]] | None:
    """Asset → (wallet, price), where the wallet of every priced asset is given."""
    if not account.balances or account.unrealized is None:
        return None
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for balance in account.balances:
        price = Decimal(1) if balance.asset == account.currency else balance.price
        if balance.wallet is None or price is None or not (sane(balance.wallet) and sane(price)):
            return None
        found[balance.asset] = (balance.wallet, price)
    return found


def sizes_changed(before: AccountSnapshot, after: AccountSnapshot) -> bool:
    """Whether any position's quantity differs, or either snapshot does not know its positions."""
    one, other = before.positions, after.positions
    if one is None or other is None:
        return True
    return [*map(_size, one)] != [*map(_size, other)] and _sizes(one) != _sizes(other)


def _sizes(positions: Iterable[Position]) -> dict[tuple[str, str], Decimal]:
    found: dict[tuple[str, str], Decimal] = {}
    for each in positions:
        if each.contracts:
            found[each.key] = found.get(each.key, ZERO) + each.contracts
    return found


class _Symbol:
    """One symbol of an account before and after: sizes by side, mark, value of a contract."""

    __slots__ = ("distance", "inverse", "mark", "notional", "pnl", "sizes", "unit")

    def __init__(self) -> None:
        self.sizes: dict[str, Decimal] = {}
        self.mark: Decimal | None = None
        self.unit: Decimal | None = None
        self.inverse = False
        self.notional: Decimal | None = ZERO
        """Its positions' own, added up; None where one does not say."""
        self.pnl: Decimal | None = ZERO
        self.distance: dict[str, Decimal | None] = {}

    @property
    def net(self) -> Decimal:
        return self.sizes.get("long", ZERO) - self.sizes.get("short", ZERO)

    def add(self, position: Position, rules: Instrument | None) -> None:
        """Take one row of the symbol."""
        self.sizes[position.side] = self.sizes.get(position.side, ZERO) + position.contracts
        self.distance[position.side] = liquidation_distance(position)
        self.pnl = None if self.pnl is None or position.unrealized_pnl is None else self.pnl + position.unrealized_pnl
        if position.mark_price is not None and sane(position.mark_price) and position.mark_price > ZERO:
            self.mark = position.mark_price
        known = self.notional is not None and position.notional is not None
        self.notional = (self.notional or ZERO) + abs(position.notional or ZERO) if known else None
        self.inverse = rules is not None and rules.inverse
        if self.unit is None and position.notional and self.mark and position.contracts:
            # The notional is in the account's currency, whatever the contract settles in.
            each = abs(position.notional) / position.contracts
            self.unit = each * self.mark if self.inverse else each / self.mark


def position_moves(
    before: AccountSnapshot, after: AccountSnapshot, rules: Rules, fills: Sequence[Fill] = ()
) -> PositionMoves:
    """What marks and trades made of the positions from `before` to `after`; `fills` are those of the time between.

    A symbol that vanished is marked by the later snapshot's `marks`, else by its last mark. On a market of holdings
    `by_marks` is what trades made alone: the rest are the prices of assets, see `collateral_effect`.
    """
    first, second = _symbols(before, rules), _symbols(after, rules)
    later = {mark.symbol: mark.mark_price for mark in after.marks or () if sane(mark.mark_price)}
    executed: dict[str, list[Fill]] = {}
    for fill in fills:
        executed.setdefault(fill.symbol, []).append(fill)
    by_marks: Decimal | None = ZERO
    if before.positions is None or after.positions is None:
        by_marks = None
    traded = repriced = gross = liquidated = ZERO
    untold: tuple[Untold, ...] = ()
    none, holds = _Symbol(), before.market in HOLDINGS
    for symbol in first.keys() | second.keys() | executed.keys():
        one, other = first.get(symbol, none), second.get(symbol, none)
        contract = Decimal(1) if holds else _contract(rules.get((after.account, symbol)), symbol, after.currency)
        move = _symbol_moves(symbol, one, other, later.get(symbol), executed.get(symbol, ()), contract, holds=holds)
        if move is None:
            by_marks = None
            continue
        by_marks = None if by_marks is None or move.by_marks is None else by_marks + move.by_marks
        traded, repriced, gross = traded + move.traded, repriced + move.repriced, gross + move.gross
        liquidated += move.liquidated
        untold += move.untold
    return PositionMoves(by_marks, traded, repriced, gross, liquidated, untold)


def _symbols(account: AccountSnapshot, rules: Rules) -> dict[str, _Symbol]:
    found: dict[str, _Symbol] = {}
    for position in account.positions or ():
        if sane(position.contracts) and position.contracts:
            found.setdefault(position.symbol, _Symbol()).add(position, rules.get((account.account, position.symbol)))
    for symbol, each in found.items():
        each.unit = each.unit or _contract(rules.get((account.account, symbol)), symbol, account.currency)
    return found


def _contract(rules: Instrument | None, symbol: str, currency: str) -> Decimal | None:
    """The contract size, where it counts in the account's currency: an inverse one counts in the coin it settles in."""
    if rules is None or rules.contract_size is None:
        return None
    settled = symbol.partition(":")[2].partition("-")[0]
    return None if rules.inverse and settled not in ("", currency) else rules.contract_size


def _symbol_moves(
    symbol: str,
    one: _Symbol,
    other: _Symbol,
    told_mark: Decimal | None,
    fills: Sequence[Fill],
    contract: Decimal | None,
    *,
    holds: bool,
) -> PositionMoves | None:
    """What became of one symbol; None where nothing about it can be valued."""
    sizes = {side: other.sizes.get(side, ZERO) - one.sizes.get(side, ZERO) for side in ("long", "short")}
    moved = sum((abs(change) for change in sizes.values()), ZERO)
    unit = other.unit or one.unit or contract
    inverse = one.inverse or other.inverse
    mark0, mark1 = one.mark, other.mark or told_mark
    if mark1 is None:
        mark1 = mark0 if mark0 is not None else next((fill.price for fill in reversed(fills)), None)
    mark0 = mark0 if mark0 is not None else mark1
    by_profit = None if one.pnl is None or other.pnl is None or moved else other.pnl - one.pnl
    if unit is None or mark0 is None or mark1 is None or mark0 <= ZERO or mark1 <= ZERO:
        return _unmarked(symbol, one, sizes, by_profit, fills)
    if one.net and other.net and _is_split(one.net, other.net, mark0, mark1):
        profit = ZERO if one.pnl is None or other.pnl is None else other.pnl - one.pnl
        return PositionMoves(profit, ZERO, ZERO, _notional(unit, one, mark0, inverse=inverse), ZERO)
    x0, x1 = _x(mark0, inverse=inverse), _x(mark1, inverse=inverse)
    executed = [(fill.amount if fill.side == "buy" else -fill.amount, fill.price) for fill in fills]
    effect = ZERO if holds else unit * one.net * (x1 - x0)
    effect += unit * sum((dq * (x1 - _x(price, inverse=inverse)) for dq, price in executed if price > ZERO), ZERO)
    each = unit / mark1 if inverse else unit * mark1
    filled = sum((abs(dq) for dq, _ in executed), ZERO)
    near = sum(
        (
            -change * each
            for side, change in sizes.items()
            if change < ZERO and _is_near(one.distance.get(side), one, side, mark0, mark1)
        ),
        ZERO,
    )
    held = sum(one.sizes.values(), ZERO)
    return PositionMoves(
        by_marks=effect,
        traded=max(moved, filled) * each,
        repriced=abs(unit * held * (x1 - x0)),
        gross=_notional(unit, one, mark0, inverse=inverse),
        liquidated=near,
        untold=_untold(symbol, one, other, sizes, sum((dq for dq, _ in executed), ZERO), (unit, x1), x0),
    )


def _unmarked(
    symbol: str, one: _Symbol, sizes: Mapping[str, Decimal], by_profit: Decimal | None, fills: Sequence[Fill]
) -> PositionMoves | None:
    """What can be said of a symbol without a mark: its own profit, and how much of its notional was traded."""
    moved = sum((abs(change) for change in sizes.values()), ZERO)
    if not moved:
        return None if by_profit is None or fills else PositionMoves(by_profit, ZERO, abs(by_profit), ZERO, ZERO)
    held = sum(one.sizes.values(), ZERO)
    if not held or not one.notional:
        return None
    each = one.notional / held
    closes = any(change < ZERO for change in sizes.values())
    untold = Untold(symbol, moved, each, Decimal(1), inverse=False, closes=closes, is_marked=False)
    return PositionMoves(None, moved * each, ZERO, one.notional, ZERO, (untold,))


def _untold(
    symbol: str,
    one: _Symbol,
    other: _Symbol,
    sizes: Mapping[str, Decimal],
    filled: Decimal,
    value: tuple[Decimal, Decimal],
    x0: Decimal,
) -> tuple[Untold, ...]:
    """What positions show and fills do not. In hedge mode both sides may have changed by the same: that closes too."""
    quantity = other.net - one.net - filled
    shrank = any(change < ZERO for change in sizes.values())
    if not quantity and (bool(filled) or not shrank):
        return ()
    quantity = quantity or sum((abs(change) for change in sizes.values()), ZERO)
    unit, x1 = value
    span = abs(unit * quantity * (x1 - x0))
    return (Untold(symbol, quantity, unit, x1, one.inverse or other.inverse, shrank, span=span),)


def _is_near(distance: Decimal | None, one: _Symbol, side: str, mark0: Decimal, mark1: Decimal) -> bool:
    """Whether the mark was close to the liquidation price, or went more than half of the way to it."""
    if distance is None or not one.sizes.get(side):
        return False
    gone = (mark0 - mark1) / mark0 if side == "long" else (mark1 - mark0) / mark0
    return distance <= NEAR_LIQUIDATION or gone >= distance / 2


def _is_split(size0: Decimal, size1: Decimal, mark0: Decimal, mark1: Decimal) -> bool:
    ratio = size1 / size0
    return abs(ratio - 1) > Decimal("0.2") and ratio > ZERO and abs(ratio * mark1 / mark0 - 1) <= SPLIT


def _notional(unit: Decimal, one: _Symbol, mark: Decimal, *, inverse: bool) -> Decimal:
    held = sum(one.sizes.values(), ZERO)
    return unit * held / mark if inverse else unit * held * mark


def _x(price: Decimal, *, inverse: bool) -> Decimal:
    return -1 / price if inverse else price


def _base(symbol: str) -> str:
    """The asset that a spot symbol is a holding of: `BTC` of `BTC/USDT`, `BTC_USDT` and `BTC`."""
    return symbol.replace("_", "/").partition("/")[0]
