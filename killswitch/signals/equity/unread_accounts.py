"""What a scope is worth while accounts of it cannot be read: a range, by their last snapshots and by prices elsewhere.

An account that cannot be read contributes its last equity, and for each thing that it held N × [lo, hi]: N is the
signed notional (long +, short −), lo ≤ 0 ≤ hi the lowest and the highest relative move of its mark since then, as other
accounts show it. It may have been closed at any price on the way. `MARGIN` of the gross is added to either side, since
the marks of two venues differ. Anything from zero upwards where such a mark is not seen; exactly the last equity where
nothing was held.

Assumed is that nobody opened, grew or flipped a position while the account could not be read, and that no money came to
it or left it: the bounds are wrong then. Money is Decimal in the scope's currency, moves are fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.signals.currency import ONE
from killswitch.signals.equity.change import holdings
from killswitch.signals.position import HOLDINGS, ZERO, base_of, notional, sign
from killswitch.signals.unit_value import fall_from
from killswitch.signals.view import Instruments


@dataclass(frozen=True, slots=True)
class Range:
    """Between `low` and `high`, which is +∞ where there is no upper bound."""

    low: Decimal
    high: Decimal

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def above(self, equity: Decimal) -> Range:
        """What an account of this equity is worth once it has made as much: no less than nothing by that."""
        return Range(max(equity + self.low, min(equity, ZERO)), equity + self.high)

    def times(self, rate: Decimal) -> Range:
        """In another currency, of which one unit of this one is worth `rate`."""
        return Range(self.low * rate, self.high * rate)


ANYTHING = Range(ZERO, Decimal("Infinity"))
NOTHING = Range(ZERO, ZERO)
MARGIN = Decimal("0.01")
"""Of the gross: by how much the mark of an account that is dark may have moved otherwise than those that are seen."""


@dataclass(frozen=True, slots=True)
class Move:
    """The lowest and the highest relative move of a mark, no move included."""

    low: Decimal = ZERO
    high: Decimal = ZERO

    def and_also(self, move: Decimal) -> Move:
        return Move(min(self.low, move), max(self.high, move))

    def __or__(self, other: Move) -> Move:
        return Move(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True)
class Holding:
    """A position or an asset that an account held. `notional`: signed, in its currency; None is not known.

    `inverse`: settled in its base, which makes more of a fall, and less of a rise, than the move itself.
    """

    symbol: str
    notional: Decimal | None
    inverse: bool = False

    def made(self, move: Move) -> Range:
        """Between what it may have made if it was kept or reduced at prices within the move; its notional is known."""
        assert self.notional is not None
        low, high = move.low, move.high
        if self.inverse and low <= -1:
            return ANYTHING  # worth nothing by now, so that no number of coins is enough
        if self.inverse:
            # 1 − x₀/x in coins of x₀ each, which may be worth up to `high` more by now (Deribit, "Inverse futures").
            low = low / (1 + low) * (1 + high)
        ends = (self.notional * low, self.notional * high, ZERO)
        return Range(min(ends), max(ends))


def held_by(account: AccountSnapshot, rules: Instruments) -> tuple[Holding, ...] | None:
    """What the account's price risk comes from: positions, and assets other than its currency; None is unknown."""
    if account.positions is None or account.complete is False:
        return None
    assets = {asset: amount * price for asset, (amount, price) in holdings(account).items() if amount * price != ZERO}
    found = [Holding(asset, worth) for asset, worth in assets.items()]
    for position in account.positions:
        if not position.contracts or (account.market in HOLDINGS and base_of(position.symbol) in assets):
            continue
        instrument = rules.get((account.account, position.symbol))
        worth = notional(position, account, instrument)
        signed = None if worth is None or not sane(worth) else worth * sign(position)
        found.append(Holding(position.symbol, signed, instrument is not None and instrument.inverse))
    return tuple(found)


@dataclass(slots=True)
class Prices:
    """Marks of readable accounts, then and now: how far each symbol, and each base asset, has moved since."""

    _moves: dict[str, Move] = field(default_factory=dict)
    _now: dict[str, list[Decimal]] = field(default_factory=dict)

    @classmethod
    def seen(cls, then: Iterable[AccountSnapshot], now: Iterable[AccountSnapshot]) -> Prices:
        """The moves that the accounts of `now` show beside their snapshots of `then`."""
        found, before = cls(), {account.account: marks_of(account) for account in then}
        for account in now:
            earlier = before.get(account.account, {})
            for symbol, mark in marks_of(account).items():
                found._now.setdefault(symbol, []).append(mark)
                if symbol in earlier:
                    found._note((symbol, base_of(symbol)), mark / earlier[symbol] - 1)
        return found

    def _note(self, names: Iterable[str], move: Decimal) -> None:
        for name in names:
            self._moves[name] = self._moves.get(name, Move()).and_also(move)

    def move_of(self, symbol: str, mark: Decimal | None) -> Move | None:
        """How far the symbol has moved from `mark`, its last one in the account that is dark; None where nobody shows.

        What is seen of the same symbol beside that mark, and of any symbol of its base beside its own.
        """
        own = self._moves.get(symbol, self._moves.get(base_of(symbol)))
        seen = [now / mark - 1 for now in self._now.get(symbol, ())] if mark else []
        if own is None and not seen:
            return None
        found = own or Move()
        for move in seen:
            found = found.and_also(move)
        return found


def marks_of(account: AccountSnapshot) -> dict[str, Decimal]:
    """Symbol → mark, of positions, of `marks`, and of priced assets (by the asset's name)."""
    found = {mark.symbol: mark.mark_price for mark in account.marks or ()}
    found |= {each.symbol: each.mark_price for each in account.positions or () if each.mark_price is not None}
    found |= {asset: price for asset, (_, price) in holdings(account).items()}
    return {symbol: mark for symbol, mark in found.items() if sane(mark) and mark > ZERO}


def range_of(last: AccountSnapshot, held: tuple[Holding, ...] | None, moves: Mapping[str, Move | None]) -> Range:
    """What an account that cannot be read is worth. `moves`: of each symbol it held; None, or none, is not known."""
    if last.equity is None or not sane(last.equity) or held is None:
        return ANYTHING
    made = NOTHING
    for each in held:
        move = moves.get(each.symbol)
        if move is None or each.notional is None:
            return ANYTHING
        margin = MARGIN * abs(each.notional)
        made += each.made(move) + Range(-margin, margin)
    return made.above(last.equity)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What is not settled of an account that can be read: money that `moved` by its rows, and what nothing explains.

    `unexplained` may be money that moved or profit and loss: both readings are in the range.
    """

    moved: Decimal = ZERO
    unexplained: Decimal = ZERO


def range_read(equity: Decimal, unsettled: Unsettled) -> Range:
    """What an account that can be read is worth but for money that came or went since its units were issued."""
    value = equity - unsettled.moved
    return Range(value - max(ZERO, unsettled.unexplained), value - min(ZERO, unsettled.unexplained))


class DarkAccounts:
    """What is remembered of a scope's unreadable accounts from tick to tick: how far their marks have moved."""

    def __init__(self) -> None:
        self._moves: dict[str, dict[str, Move | None]] = {}
        """Account → symbol → move so far; None once the mark was not seen: what it was then is not known."""

    def clear(self) -> None:
        """Every account could be read."""
        self._moves.clear()

    def equity_range(
        self,
        readable: Mapping[str, AccountSnapshot],
        last: Mapping[str, AccountSnapshot],
        members: Iterable[str],
        rules: Instruments,
        unsettled: Mapping[str, Unsettled],
        rates: Mapping[str, Decimal] | None = None,
    ) -> Range:
        """The range of the members' equity together, in the currency that `rates` convert to; without any, their own.

        `readable`: the accounts that can be read, also those outside of the scope, whose prices count. `last`: of each
        account the last snapshot that could be used. A move counts on though the price comes back: what was held may
        have been closed at it.
        """
        prices = Prices.seen(last.values(), readable.values())
        total = NOTHING
        for name in members:
            account, found = readable.get(name), ANYTHING
            if account is not None and account.equity is not None:
                self._moves.pop(name, None)
                found = range_read(account.equity, unsettled.get(name, Unsettled()))
            elif name in last:
                held = held_by(last[name], rules)
                found = range_of(last[name], held, self._moved(name, last[name], held or (), prices))
            rate = ONE if rates is None else rates.get(name)
            total += ANYTHING if rate is None else found.times(rate)
        return total

    def _moved(
        self, name: str, last: AccountSnapshot, held: Iterable[Holding], prices: Prices
    ) -> Mapping[str, Move | None]:
        """How far what the account held has moved so far."""
        before, marks = self._moves.get(name, {}), marks_of(last)
        found: dict[str, Move | None] = {}
        for symbol in dict.fromkeys(each.symbol for each in held):
            move, so_far = prices.move_of(symbol, marks.get(symbol)), before.get(symbol, Move())
            found[symbol] = None if move is None or so_far is None else move | so_far
        self._moves[name] = found
        return found


# Falls of a range


@dataclass(frozen=True, slots=True)
class UnitRange:
    """The unit value at `at` (microseconds) as far as it is known, and the highest it may have been while in the dark.

    Without end upwards is +∞.
    """

    at: int
    low: float
    high: float
    highest: float

    def fall_from(self, highest: tuple[float, float]) -> tuple[float, float]:
        """The fall from a highest value, which is itself between two bounds.

        At least what it is in the best case: from the lower highest to the upper value. At most what it is in the
        worst.
        """
        low, high = highest
        least = fall_from(low, self.high) if low > 0.0 and self.high != float("inf") else 0.0
        top = max(high, self.highest)
        return least, 1.0 if top == float("inf") else fall_from(top, self.low)


def unit_range(at: int, equity: Range, units: float, before: UnitRange | None) -> UnitRange | None:
    """The unit value of an equity between two bounds; None without units. `before`: that of the last dark tick."""
    if units <= 0.0:
        return None
    high = float(equity.high) / units
    return UnitRange(at, float(equity.low) / units, high, max(high, before.highest if before is not None else high))
