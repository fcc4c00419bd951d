"""Bounds of a scope's equity while accounts are unavailable, from their last snapshots and prices at other accounts.

An unavailable account contributes its last equity, and N × [lo, hi] for each holding: N is the signed notional (long +,
short −), lo ≤ 0 ≤ hi the lowest and the highest relative move of its mark since then, as shown by other accounts. The
holding may have been closed at any price in between. `MARGIN` of the gross is added on both sides, since the marks of
two venues differ. If no mark is available, the range is from zero to infinity; if nothing was held, it is exactly the
last equity.

The bounds assume that no position was opened, enlarged or flipped, and no money transferred, while the account was
unavailable. Money is Decimal in the scope's currency, moves are fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct, field

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.valuation.account_facts import holdings
from killswitch.valuation.currency_conversion import ONE
from killswitch.valuation.position_measures import HOLDINGS, ZERO, base_of, notional, sign
from killswitch.valuation.scope_view import Instruments
from killswitch.valuation.unit_value import fall_from


class MoneyRange(Struct, frozen=True):
    """A range from `low` to `high`, which is +∞ without an upper bound."""

    low: Decimal
    high: Decimal

    def __add__(self, other: MoneyRange) -> MoneyRange:
        return MoneyRange(self.low + other.low, self.high + other.high)

    def above(self, equity: Decimal) -> MoneyRange:
        """The range of the equity after a P&L in this range; losses do not take it below zero."""
        return MoneyRange(max(equity + self.low, min(equity, ZERO)), equity + self.high)

    def times(self, rate: Decimal) -> MoneyRange:
        """The range converted to another currency at `rate`."""
        return MoneyRange(self.low * rate, self.high * rate)


ANYTHING = MoneyRange(ZERO, Decimal("Infinity"))
NOTHING = MoneyRange(ZERO, ZERO)
MARGIN = Decimal("0.01")
"""The fraction of the gross by which the mark of an unavailable account may have moved differently from others."""


class PriceMove(Struct, frozen=True):
    """The lowest and the highest relative move of a mark; zero is included."""

    low: Decimal = ZERO
    high: Decimal = ZERO

    def __or__(self, other: PriceMove) -> PriceMove:
        return PriceMove(min(self.low, other.low), max(self.high, other.high))


class RiskHolding(Struct, frozen=True):
    """A position or an asset that an account held. `notional`: signed, in the account's currency; None is unknown.

    `inverse`: settled in its base, which amplifies a fall and dampens a rise.
    """

    symbol: str
    notional: Decimal | None
    inverse: bool = False

    def pnl_range(self, move: PriceMove) -> MoneyRange:
        """The range of its P&L if it was kept or reduced at prices within the move; requires a known notional."""
        assert self.notional is not None
        low, high = move.low, move.high
        if self.inverse and low <= -1:
            return ANYTHING  # a worthless coin: no number of coins covers the loss
        if self.inverse:
            # 1 − x₀/x in coins of x₀ each, which may be worth up to `high` more by now (Deribit, "Inverse futures").
            low = low / (1 + low) * (1 + high)
        ends = (self.notional * low, self.notional * high, ZERO)
        return MoneyRange(min(ends), max(ends))


def risk_holdings(account: AccountSnapshot, rules: Instruments) -> tuple[RiskHolding, ...] | None:
    """The holdings with price risk: positions, and assets other than the account's currency; None if unknown."""
    if account.positions is None or account.complete is False:
        return None
    assets = {asset: amount * price for asset, (amount, price) in holdings(account).items() if amount * price != ZERO}
    found = [RiskHolding(asset, value) for asset, value in assets.items()]
    for position in account.positions:
        if not position.contracts or (account.market in HOLDINGS and base_of(position.symbol) in assets):
            continue
        instrument = rules.get((account.account, position.symbol))
        value = notional(position, account, instrument)
        signed = None if value is None or not sane(value) else value * sign(position)
        found.append(RiskHolding(position.symbol, signed, instrument is not None and instrument.inverse))
    return tuple(found)


class PriceMoves(Struct):
    """The moves of symbols and base assets since an earlier time, by the marks of available accounts."""

    _moves: dict[str, PriceMove] = field(default_factory=dict)
    _now: dict[str, list[Decimal]] = field(default_factory=dict)

    @classmethod
    def between(cls, then: Iterable[AccountSnapshot], now: Iterable[AccountSnapshot]) -> PriceMoves:
        """The moves from the snapshots of `then` to those of `now`."""
        found, before = cls(), {account.account: marks_of(account) for account in then}
        for account in now:
            earlier = before.get(account.account, {})
            for symbol, mark in marks_of(account).items():
                found._now.setdefault(symbol, []).append(mark)
                if symbol in earlier:
                    move = mark / earlier[symbol] - 1
                    for name in (symbol, base_of(symbol)):
                        found._moves[name] = found._moves.get(name, PriceMove()) | PriceMove(move, move)
        return found

    def move_of(self, symbol: str, mark: Decimal | None) -> PriceMove | None:
        """The move of the symbol from `mark`, its last mark in the unavailable account; None if no account shows it.

        It combines current marks of the symbol, compared with that mark, and moves of any symbol with the same base.
        """
        own = self._moves.get(symbol, self._moves.get(base_of(symbol)))
        seen = [now / mark - 1 for now in self._now.get(symbol, ())] if mark else []
        if own is None and not seen:
            return None
        found = own or PriceMove()
        return PriceMove(min((found.low, *seen)), max((found.high, *seen)))


def marks_of(account: AccountSnapshot) -> dict[str, Decimal]:
    """Symbol → mark, from positions, `marks`, and priced assets (by the name of the asset)."""
    found = {mark.symbol: mark.mark_price for mark in account.marks or ()}
    found |= {each.symbol: each.mark_price for each in account.positions or () if each.mark_price is not None}
    found |= {asset: price for asset, (_, price) in holdings(account).items()}
    return {symbol: mark for symbol, mark in found.items() if sane(mark) and mark > ZERO}


def unavailable_equity_range(
    last: AccountSnapshot, held: tuple[RiskHolding, ...] | None, moves: Mapping[str, PriceMove | None]
) -> MoneyRange:
    """The equity range of an unavailable account. `moves`: the move of each symbol it held; None is unknown."""
    if last.equity is None or not sane(last.equity) or held is None:
        return ANYTHING
    made = NOTHING
    for each in held:
        move = moves.get(each.symbol)
        if move is None or each.notional is None:
            return ANYTHING
        margin = MARGIN * abs(each.notional)
        made += each.pnl_range(move) + MoneyRange(-margin, margin)
    return made.above(last.equity)


class UnsettledChanges(Struct, frozen=True):
    """The unsettled changes of an available account: transfers (`moved`) by its rows, and unexplained changes.

    `unexplained` may be transfers or profit and loss: the range covers both.
    """

    moved: Decimal = ZERO
    unexplained: Decimal = ZERO


def available_equity_range(equity: Decimal, unsettled: UnsettledChanges) -> MoneyRange:
    """The equity range of an available account, without transfers since its units were issued."""
    value = equity - unsettled.moved
    return MoneyRange(value - max(ZERO, unsettled.unexplained), value - min(ZERO, unsettled.unexplained))


class UnavailableAccounts:
    """The moves of marks of a scope's unavailable accounts, accumulated over ticks."""

    def __init__(self) -> None:
        self._moves: dict[str, dict[str, PriceMove | None]] = {}
        """Account → symbol → move so far; None once the mark was not available at a tick."""

    def clear(self) -> None:
        """Forget all moves, when every account is available."""
        self._moves.clear()

    def equity_ranges(
        self,
        readable: Mapping[str, AccountSnapshot],
        last: Mapping[str, AccountSnapshot],
        members: Iterable[str],
        rules: Instruments,
        unsettled: Mapping[str, UnsettledChanges],
        rates: Mapping[str, Decimal] | None = None,
    ) -> dict[str, MoneyRange]:
        """The range of each member's equity, in the currency that `rates` convert to, or in its own.

        `readable`: the available accounts, including those outside the scope, whose prices count. `last`: the last
        usable snapshot of each account. A move still counts after the price returns, since a holding may have been
        closed at it.
        """
        prices = PriceMoves.between(last.values(), readable.values())
        ranges: dict[str, MoneyRange] = {}
        for name in members:
            account, found = readable.get(name), ANYTHING
            if account is not None and account.equity is not None:
                self._moves.pop(name, None)
                found = available_equity_range(account.equity, unsettled.get(name, UnsettledChanges()))
            elif name in last:
                held = risk_holdings(last[name], rules)
                found = unavailable_equity_range(last[name], held, self._moved(name, last[name], held or (), prices))
            rate = ONE if rates is None else rates.get(name)
            ranges[name] = ANYTHING if rate is None else found.times(rate)
        return ranges

    def _moved(
        self, name: str, last: AccountSnapshot, held: Iterable[RiskHolding], prices: PriceMoves
    ) -> Mapping[str, PriceMove | None]:
        """The moves so far of the symbols that the account held."""
        before, marks = self._moves.get(name, {}), marks_of(last)
        found: dict[str, PriceMove | None] = {}
        for symbol in dict.fromkeys(each.symbol for each in held):
            move, so_far = prices.move_of(symbol, marks.get(symbol)), before.get(symbol, PriceMove())
            found[symbol] = None if move is None or so_far is None else move | so_far
        self._moves[name] = found
        return found


def total_of(ranges: Mapping[str, MoneyRange]) -> MoneyRange:
    """The range of the sum."""
    return sum(ranges.values(), NOTHING)


# Falls of a range


class UnitRange(Struct, frozen=True):
    """The bounds of the unit value at `at` (microseconds), and its highest possible value while accounts are
    unavailable.

    An unknown upper bound is +∞.
    """

    at: int
    low: float
    high: float
    highest: float

    def fall_from(self, highest: tuple[float, float]) -> tuple[float, float]:
        """The bounds of the fall from a highest value, which is itself between two bounds.

        The lower bound is the best case, from the lower highest value to the upper current value; the upper bound is
        the worst case.
        """
        low, high = highest
        least = fall_from(low, self.high) if low > 0.0 and self.high != float("inf") else 0.0
        top = max(high, self.highest)
        return least, 1.0 if top == float("inf") else fall_from(top, self.low)


def unit_range(at: int, equity: MoneyRange, units: float, before: UnitRange | None) -> UnitRange | None:
    """The unit value range of an equity range; None without units. `before`: that of the previous such tick."""
    if units <= 0.0:
        return None
    high = float(equity.high) / units
    return UnitRange(at, float(equity.low) / units, high, max(high, before.highest if before is not None else high))
