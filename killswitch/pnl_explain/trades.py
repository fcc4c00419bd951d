"""Recent trades of an account, and the part of them that fills account for.

Positions show a trade between two snapshots; fills report its price earlier, at the same time, or minutes later. Until
then, the trade may have been executed at any price near the mark, which bounds its cost.

Times in microseconds, money as Decimal in the account's currency.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Fill, Side
from killswitch.pnl_explain.classification import TRADES_AFTER, TRADES_BEFORE, UNFILLED_TRADE_BOUND, is_at_about
from killswitch.pnl_explain.decomposition import (
    PositionMoves,
    UnfilledTrade,
    is_hedged,
    matched_part,
    position_moves,
    signed_amount,
)
from killswitch.pnl_explain.ledger import FillRow
from killswitch.valuation.position_measures import ZERO, contract_value, is_inverse
from killswitch.valuation.scope_view import Instruments

KEPT = 300 * SECOND
"""How long trades are kept for late fills."""
EARLY = 10 * SECOND
"""How long before its position a fill may be reported."""


class Trade(Struct):
    """The trades between two snapshots, the later one at `at`: the notional, and the part without fills.

    `settled`: equity and positions were of one moment, so that the equity of `at` includes all of it.
    """

    at: int
    since: int
    traded: Decimal
    unfilled: tuple[UnfilledTrade, ...] = field(name="untold")  # the stored key of earlier versions
    settled: bool = False


class EarlyFill(Struct, frozen=True):
    """A fill that was reported, `at`, before its position changed; `quantity` is signed.

    `side`: its position in hedge mode; None if unknown, and in one-way mode.
    """

    at: int
    symbol: str
    quantity: Decimal
    side: Side | None = None


class FilledNotional(Struct, frozen=True):
    """The notional of a fill, at the time of the fill."""

    at: int
    amount: Decimal


class ObservedTrades(Struct, frozen=True):
    """The result of one observation: the moves of positions, the fills of its interval, and those of earlier trades."""

    moves: PositionMoves
    timely: list[FillRow]
    late: list[FillRow]


class Trades(Struct):
    """The recent trades of one account, as they are stored."""

    trades: list[Trade] = []
    early: list[EarlyFill] = []
    filled: list[FilledNotional] = []

    def observe(
        self,
        at: int,
        since: int,
        before: AccountSnapshot,
        account: AccountSnapshot,
        rules: Instruments,
        fills: list[FillRow],
    ) -> ObservedTrades:
        """Observe the positions of two snapshots and the new fills. Both accounts are sound."""
        self._forget_before(at)
        timely: list[FillRow] = []
        late: list[FillRow] = []
        for row in fills:
            (timely if self._is_timely(row, before, account, since) else late).append(row)
        for row in late:
            if self._trade_of(row) is None:
                side = _side_of(row.fill, before, account)
                self.early.append(EarlyFill(at, row.fill.symbol, signed_amount(row.fill), side))
        self.filled.extend(FilledNotional(to_micros(row.fill.at), _notional(row.fill, account, rules)) for row in fills)
        moves = position_moves(before, account, rules, [row.fill for row in timely])
        moves = self._without_early_fills(at, moves, before, account)
        if moves.traded:
            self.trades.append(Trade(at, since, moves.traded, moves.unfilled))
        return ObservedTrades(moves, timely, late)

    def mark_settled(self, at: int) -> None:
        """Mark the trades of `at` as included in its equity."""
        if self.trades and self.trades[-1].at == at:
            self.trades[-1].settled = True

    def match_late_fill(self, row: FillRow, currency: str) -> tuple[int, Decimal] | None:
        """Account for part of a trade by a late fill; returns the time of the trade and the effect of the fill.

        None if no position shows such a trade. `currency` is the account's.
        """
        trade = self._trade_of(row)
        return None if trade is None else (trade.at, _match_fill(trade, row) - fee_of(row, currency))

    def notional(self, at: int) -> Decimal:
        """X, the notional traded shortly before and after `at`, by positions or by fills."""
        by_fills = sum((each.amount for each in self.filled if _is_near(each.at, at)), ZERO)
        return max(sum((trade.traded for trade in self._about(at)), ZERO), by_fills)

    def bound(self, at: int) -> Decimal:
        """The bound of the effect of trades without fills: 20% of their notional, plus the price move.

        Net for each position: one that comes and goes in the venue's answers was not traded each time.
        """
        net: dict[tuple[str, Side | None], list[UnfilledTrade]] = {}
        for trade in self._about(at):
            for each in trade.unfilled:
                net.setdefault((each.symbol, each.side), []).append(each)
        return sum((_net_bound(unfilled) for unfilled in net.values()), ZERO)

    def is_covered(self, at: int) -> bool:
        """Whether fills account for every position that shrank shortly before or after `at`."""
        return not any(each.closes for trade in self._about(at) for each in trade.unfilled)

    def _about(self, at: int) -> list[Trade]:
        return [it for it in self.trades if _is_near(it.at, at) and (it.at >= at or not it.settled)]

    def _trade_of(self, row: FillRow) -> Trade | None:
        """The trade that a fill belongs to: one at the time of the fill, else the nearest one."""
        happened = to_micros(row.fill.at)
        about = [it for it in self.trades if is_at_about(happened, it.since, it.at) and _matches(it, row)]
        inside = [it for it in about if it.since < happened <= it.at]
        return min(inside or about, key=lambda it: abs(it.at - happened), default=None)

    def _is_timely(self, row: FillRow, before: AccountSnapshot, account: AccountSnapshot, since: int) -> bool:
        """Whether a fill belongs to the interval between the snapshots, and not to an earlier change of a position."""
        if to_micros(row.fill.at) > since:
            return True
        if self._trade_of(row) is not None:
            return False
        side = _side_of(row.fill, before, account)
        return _size(row.fill.symbol, side, before) != _size(row.fill.symbol, side, account)

    def _without_early_fills(
        self, at: int, moves: PositionMoves, before: AccountSnapshot, account: AccountSnapshot
    ) -> PositionMoves:
        """Match fills that were reported before their position changed with that change, so that they are no separate
        trade."""
        self.early = [each for each in self.early if at - each.at <= EARLY]
        unfilled = []
        for each in sorted(moves.unfilled, key=lambda it: not it.opens):
            if _size(each.symbol, each.side, before) == _size(each.symbol, each.side, account):
                self.early.append(EarlyFill(at, each.symbol, -each.quantity, each.side))
                continue
            known = self._match_early(each)
            if each.quantity != known:
                unfilled.append(each.less(known))
        return replace(moves, unfilled=tuple(unfilled)) if moves.unfilled else moves

    def _match_early(self, unfilled: UnfilledTrade) -> Decimal:
        """Remove the matching early fills; returns the quantity that they account for.

        A fill without a side counts up to the change of this side's position.
        """
        known, kept = ZERO, []
        for early in sorted(self.early, key=lambda it: it.side is None):
            if early.symbol != unfilled.symbol or early.side not in (unfilled.side, None):
                kept.append(early)
                continue
            is_own = early.side == unfilled.side
            part = early.quantity if is_own else matched_part(early.quantity, unfilled.quantity - known)
            known += part
            if part != early.quantity:
                kept.append(replace(early, quantity=early.quantity - part))
        self.early = kept
        return known

    def _forget_before(self, at: int) -> None:
        for kept in (self.filled, self.trades):
            while kept and kept[0].at < at - KEPT:
                del kept[0]


def _net_bound(unfilled: list[UnfilledTrade]) -> Decimal:
    """The bound of the net effect of one symbol's trades."""
    largest = max(unfilled, key=lambda each: each.notional)
    quantity = abs(sum((each.quantity for each in unfilled), ZERO))
    if not largest.quantity or not quantity:
        return ZERO
    return (UNFILLED_TRADE_BOUND * largest.notional + largest.span) * quantity / abs(largest.quantity)


def fee_of(row: FillRow, currency: str) -> Decimal:
    """The fee of a fill in `currency`; zero for a fee in another asset, which affects that asset's wallet."""
    return row.fill.fee if row.fill.fee is not None and row.fill.fee_currency == currency else ZERO


def _match_fill(trade: Trade, row: FillRow) -> Decimal:
    """Account for part of a trade by one of its fills; returns its effect against the mark.

    If both sides were traded, a fill without a side is matched with each, the opened side first.
    """
    fill = row.fill
    about = sorted((each for each in trade.unfilled if each.is_about(fill)), key=lambda it: not it.opens)
    left: list[UnfilledTrade] = [each for each in trade.unfilled if not each.is_about(fill)]
    effect, rest = ZERO, signed_amount(fill)
    for each in about:
        part = rest if len(about) == 1 else matched_part(rest, each.quantity)
        rest -= part
        effect = each.effect(signed_amount(fill), fill.price)
        if each.quantity != part:
            left.append(each.less(part))
    trade.unfilled = tuple(left)
    return effect


def _size(symbol: str, side: Side | None, account: AccountSnapshot) -> list[tuple[str, Decimal]]:
    """The contracts of a symbol by side, or of one side if it is given."""
    held = (each for each in account.positions or () if each.symbol == symbol and side in (None, each.side))
    return sorted((each.side, each.contracts) for each in held)


def _side_of(fill: Fill, before: AccountSnapshot, account: AccountSnapshot) -> Side | None:
    """The side of a fill's position; None in one-way mode."""
    return fill.position_side if is_hedged(fill.symbol, before, account) else None


def _matches(trade: Trade, row: FillRow) -> bool:
    return any(each.is_about(row.fill) for each in trade.unfilled)


def _is_near(then: int, at: int) -> bool:
    return at - TRADES_BEFORE <= then <= at + TRADES_AFTER


def _notional(fill: Fill, account: AccountSnapshot, rules: Instruments) -> Decimal:
    """The notional of a fill in the account's currency; zero if its unit is unknown, so that it bounds nothing."""
    known = rules.get((account.account, fill.symbol))
    unit = contract_value(account, fill.symbol, known)
    if unit is None or fill.price <= ZERO:
        return ZERO
    return fill.amount * unit / fill.price if is_inverse(fill.symbol, known) else fill.amount * unit * fill.price
