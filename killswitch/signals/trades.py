"""What an account has traded lately, and which part of that its fills account for.

Positions show a trade between two snapshots, fills tell its price: earlier than the position, with it, or minutes
later. Until they do, the trade may have been made at any price near the mark, and that bounds what it may have cost.

Times in microseconds, money as Decimal in the account's currency.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.signals.equity_change import PositionMoves, Rules, Untold, position_moves
from killswitch.signals.ledger import FillRow
from killswitch.signals.loss_or_flow import TRADED, TRADES_AFTER, TRADES_BEFORE, is_about
from killswitch.signals.position import ZERO

KEPT = 300 * SECOND
"""How long trades are remembered, for fills that come late."""
EARLY = 10 * SECOND
"""How long before its position a fill may be known."""


class Trade(Struct):
    """What was traded between two snapshots, the later one read `at`: the notional, and what no fill accounts for.

    `settled`: worth and positions were of one moment, so that the equity of `at` holds all of it: what changes later is
    not its doing.
    """

    at: int
    since: int
    traded: Decimal
    untold: tuple[Untold, ...]
    settled: bool = False


class EarlyFill(Struct, frozen=True):
    """A fill of a position that had not changed when it became known, `at`; `quantity` is signed."""

    at: int
    symbol: str
    quantity: Decimal


class FilledNotional(Struct, frozen=True):
    """The notional of a fill, by the fill's own time."""

    at: int
    amount: Decimal


class TradesState(Struct):
    """Trades as serialised."""

    trades: list[Trade] = []
    early: list[EarlyFill] = []
    filled: list[FilledNotional] = []


@dataclass(frozen=True, slots=True)
class Traded:
    """What one observation shows: the moves of positions, the fills of its own time, and those of earlier trades."""

    moves: PositionMoves
    timely: list[FillRow]
    late: list[FillRow]


class Trades:
    """One account's."""

    def __init__(self, state: TradesState | None = None) -> None:
        state = state or TradesState()
        self._trades = deque(state.trades)
        self._early = list(state.early)
        self._filled = deque(state.filled)

    def state(self) -> TradesState:
        """Everything, for storing."""
        return TradesState(list(self._trades), self._early, list(self._filled))

    def observe(
        self, at: int, since: int, before: AccountSnapshot, account: AccountSnapshot, rules: Rules, fills: list[FillRow]
    ) -> Traded:
        """Take what the positions of two snapshots and the new fills show. Both accounts are sound."""
        self._forget_before(at)
        timely = [row for row in fills if self._is_timely(row, before, account, since)]
        late = [row for row in fills if row not in timely]
        self._early += [EarlyFill(at, it.fill.symbol, _signed(it)) for it in late if self._trade_of(it) is None]
        self._filled.extend(FilledNotional(to_micros(row.fill.at), _notional(row, rules)) for row in fills)
        moves = position_moves(before, account, rules, [row.fill for row in timely])
        moves = self._without_early_fills(at, moves, before, account)
        if moves.traded:
            self._trades.append(Trade(at, since, moves.traded, moves.untold))
        return Traded(moves, timely, late)

    def settle(self, at: int) -> None:
        """The equity of `at` holds all of what was traded until then."""
        if self._trades and self._trades[-1].at == at:
            self._trades[-1].settled = True

    def fill(self, row: FillRow, currency: str) -> tuple[int, Decimal] | None:
        """Account for a part of a trade by a late fill: when that trade was seen, and what the fill made of it.

        None where no position shows such a trade. `currency`: the account's.
        """
        trade = self._trade_of(row)
        return None if trade is None else (trade.at, _take_off(trade, row) - fee_of(row, currency))

    def notional(self, at: int) -> Decimal:
        """X: the notional that was traded shortly before and after `at`, by positions or by fills."""
        by_fills = sum((each.amount for each in self._filled if _is_near(each.at, at)), ZERO)
        return max(sum((trade.traded for trade in self._about(at)), ZERO), by_fills)

    def bound(self, at: int) -> Decimal:
        """What trades that no fill accounts for may have made: 20% of their notional beyond the price's own way.

        Net of each symbol: a position that comes and goes in the venue's answers was not traded each time.
        """
        net: dict[str, list[Untold]] = {}
        for trade in self._about(at):
            for each in trade.untold:
                net.setdefault(each.symbol, []).append(each)
        return sum((_bound_of(untold) for untold in net.values()), ZERO)

    def _about(self, at: int) -> list[Trade]:
        return [it for it in self._trades if _is_near(it.at, at) and (it.at >= at or not it.settled)]

    def _trade_of(self, row: FillRow) -> Trade | None:
        """The trade that a fill is a part of: of the fill's own time, else of as good as that."""
        happened = to_micros(row.fill.at)
        about = [it for it in self._trades if is_about(happened, it.since, it.at) and _has(it, row)]
        inside = [it for it in about if it.since < happened <= it.at]
        return min(inside or about, key=lambda it: abs(it.at - happened), default=None)

    def _is_timely(self, row: FillRow, before: AccountSnapshot, account: AccountSnapshot, since: int) -> bool:
        """Whether a fill is of the time between the two snapshots, and not of a position that had changed before."""
        if to_micros(row.fill.at) > since:
            return True
        return self._trade_of(row) is None and _size(row.fill.symbol, before) != _size(row.fill.symbol, account)

    def _without_early_fills(
        self, at: int, moves: PositionMoves, before: AccountSnapshot, account: AccountSnapshot
    ) -> PositionMoves:
        """Fills that were known before their position changed account for its change, and are no trade of their own."""
        self._early = [each for each in self._early if at - each.at <= EARLY]
        untold = []
        for each in moves.untold:
            if _size(each.symbol, before) == _size(each.symbol, account):
                self._early.append(EarlyFill(at, each.symbol, -each.quantity))
                continue
            known = sum((early.quantity for early in self._early if early.symbol == each.symbol), ZERO)
            if each.quantity != known:
                untold.append(replace(each, quantity=each.quantity - known))
            self._early = [early for early in self._early if early.symbol != each.symbol]
        return dataclasses.replace(moves, untold=tuple(untold)) if moves.untold else moves

    def _forget_before(self, at: int) -> None:
        while self._filled and self._filled[0].at < at - KEPT:
            self._filled.popleft()
        while self._trades and self._trades[0].at < at - KEPT:
            self._trades.popleft()


def _bound_of(untold: list[Untold]) -> Decimal:
    """What one symbol's trades may have made, as far as they do not undo each other."""
    largest = max(untold, key=lambda each: each.notional)
    quantity = abs(sum((each.quantity for each in untold), ZERO))
    if not largest.quantity or not quantity:
        return ZERO
    return (TRADED * largest.notional + largest.span) * quantity / abs(largest.quantity)


def fee_of(row: FillRow, currency: str) -> Decimal:
    """What a fill was charged in `currency`; nothing of a fee in another one, which is in that asset's wallet."""
    return row.fill.fee if row.fill.fee is not None and row.fill.fee_currency == currency else ZERO


def _take_off(trade: Trade, row: FillRow) -> Decimal:
    """Account for a part of a trade by one of its fills; what that made, against the mark."""
    quantity, effect, kept = _signed(row), ZERO, []
    for each in trade.untold:
        if each.symbol != row.fill.symbol:
            kept.append(each)
            continue
        effect = each.effect(quantity, row.fill.price)
        if each.quantity != quantity:
            kept.append(replace(each, quantity=each.quantity - quantity))
    trade.untold = tuple(kept)
    return effect


def _size(symbol: str, account: AccountSnapshot) -> list[tuple[str, Decimal]]:
    return sorted((each.side, each.contracts) for each in account.positions or () if each.symbol == symbol)


def _signed(row: FillRow) -> Decimal:
    return row.fill.amount if row.fill.side == "buy" else -row.fill.amount


def _has(trade: Trade, row: FillRow) -> bool:
    return any(each.symbol == row.fill.symbol for each in trade.untold)


def _is_near(then: int, at: int) -> bool:
    return at - TRADES_BEFORE <= then <= at + TRADES_AFTER


def _notional(row: FillRow, rules: Rules) -> Decimal:
    """The notional of a fill; none where the contract's size is not known, since then it bounds nothing."""
    known = rules.get((row.account, row.fill.symbol))
    if known is None or known.contract_size is None:
        return ZERO
    amount = row.fill.amount * known.contract_size
    return amount / row.fill.price if known.inverse else amount * row.fill.price
