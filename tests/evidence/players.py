"""Rules of other programs over the same books and bars, played by an implementation that shares no line with ours.

- `freqtrade-like`: each position is a trade with a stop-loss of 10%, at market, evaluated at each bar's close.
  freqtrade counts it on the stake with its leverage, so that it is a move of 2% here; many set it by the price, so that
  is there, too. Its protections (`policies/freqtrade-protections`) lock entries and close nothing: they change nothing.
- `v6-like`: the three levels of the documents that `futures-drawdown` was written from, by `tests/oracle/naive.py`,
  with their ranking in raw units (0.40 |P&L change| + 0.25 |loss| + 0.10 share + 0.05 loss ÷ margin) and the losing
  side by the change of P&L over 15 minutes; the proximity to liquidation, at most 0.2 in units of money, is left out.

The costs are those of the page: 0.05% fee, 0.01% half spread, impact 0.1 × the share of the bar's volume, of which at
most 10% is taken. An account at or below 0.5% of its gross at a close is liquidated there, for 0.5% of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from killswitch.lab.bars import BarTable
from killswitch.lab.book import BacktestBook
from tests.evidence.markets import EvidenceBook, Span
from tests.oracle.naive import CLEAR_BELOW, CLEAR_FOR, RULES, Rule

Floats = NDArray[np.float64]

FEE, IMPACT, TAKEN, MAINTENANCE = 0.0006, 0.1, 0.1, 0.005
LEVERAGE = 5.0
STOPS = {"freqtrade-like, 10% of the stake": 0.10 / LEVERAGE, "freqtrade-like, 10% of the price": 0.10}
"""Player → the move against a position at which it is closed."""
V6 = "v6-like"
PLAYERS = (*STOPS, V6)
ONE_SIDE = 0.65
WORST, MOSTLY = 3, 0.6
"""Level 1 halves so many positions; level 2 closes this share of them where neither side is to blame."""


class Held(Struct, frozen=True):
    """A book in arrays: closes and volumes (instants × positions), base units (short below zero), equity."""

    close: Floats
    volume: Floats
    units: Floats
    equity: float
    step: timedelta


def play(part: EvidenceBook, player: str) -> tuple[float, float]:
    """(worst drawdown, final equity ÷ equity at the start) of the book of one swap account."""
    held = held_of(_table(part.span), part.book)
    equity = v6_equity(held) if player == V6 else stopped_equity(held, STOPS[player])
    return worst_fall(equity), float(equity[-1] / held.equity)


@lru_cache(maxsize=8)
def _table(span: Span) -> BarTable:
    return span.table()


def held_of(table: BarTable, book: BacktestBook) -> Held:
    """The book at the first close of all its symbols; a symbol without a bar carries its price, without volume."""
    (account,) = book.accounts
    series = {one.symbol: one for one in table.series}
    chosen = [series[each.symbol] for each in account.positions]
    at = np.asarray(table.opened)
    at = at[at >= max(one.opened[0] for one in chosen)]
    rows = [np.searchsorted(np.asarray(one.opened), at, side="right") - 1 for one in chosen]
    close, volume = (
        np.stack([np.asarray(getattr(one, name))[row] for one, row in zip(chosen, rows, strict=True)], axis=1)
        for name in ("close", "volume")
    )
    fresh = np.stack([np.asarray(one.opened)[row] == at for one, row in zip(chosen, rows, strict=True)], axis=1)
    signed = [float(each.notional) * (1 if each.side == "long" else -1) for each in account.positions]
    units = np.array(signed) / close[0]
    return Held(close, np.where(fresh, volume, 0.0), units, float(account.equity), table.interval)


def worst_fall(equity: Floats) -> float:
    """The greatest fall from an earlier peak, as a fraction of it."""
    peak = np.maximum.accumulate(equity)
    return float(((peak - equity) / peak).max())


def stopped_equity(held: Held, stop: float) -> Floats:
    """Equity at each close where every position is closed on its own when the price moved `stop` against it."""
    moved = (held.close / held.close[0] - 1) * np.sign(held.units)
    return closed_equity(held, [first_true(column <= -stop) for column in moved.T])


def first_true(flags: NDArray[np.bool_]) -> int | None:
    """The first place at which a flag is set; None for none."""
    return int(np.argmax(flags)) if flags.any() else None


def closed_equity(held: Held, begins: Sequence[int | None]) -> Floats:
    """Equity at each close where the close of each position begins at its instant, at market; None: it is kept."""
    units = np.tile(held.units, (len(held.close), 1))
    cost = np.zeros(len(held.close))
    for place, (whole, begin) in enumerate(zip(held.units, begins, strict=True)):
        if begin is None:
            continue
        room = held.volume[begin:, place] * TAKEN
        sold = np.minimum(np.cumsum(room), abs(whole))
        units[begin:, place] = whole - np.sign(whole) * sold
        part = np.diff(sold, prepend=0.0)
        share = np.divide(part, held.volume[begin:, place], out=np.zeros_like(part), where=part > 0)
        cost[begin:] += part * held.close[begin:, place] * (FEE + IMPACT * share)
    moves = np.diff(held.close, axis=0) * units[:-1]
    equity = held.equity + np.concatenate([[0.0], np.cumsum(moves.sum(axis=1))]) - np.cumsum(cost)
    gone = first_true(equity <= MAINTENANCE * (np.abs(units) * held.close).sum(axis=1))
    if gone is not None and units[gone].any():
        left = equity[gone] - MAINTENANCE * float((np.abs(units[gone]) * held.close[gone]).sum())
        equity[gone:] = max(left, 0.0)
    found: Floats = equity
    return found


def v6_equity(held: Held) -> Floats:
    """Equity at each close under the three levels of the naive oracle."""
    account = _V6(held)
    return np.array([account.close_of(number) for number in range(len(held.close))])


class _V6:
    """The state of one account; `close_of` is called for each bar in turn."""

    def __init__(self, held: Held) -> None:
        self._held, self._units, self._target = held, held.units.copy(), held.units.copy()
        self._cash = held.equity - float(held.units @ held.close[0])
        self._equity: list[float] = []
        self._profit = [np.zeros(len(held.units))]
        self._begun, self._level, self._fired, self._fired_equity = 0, 0, 0, 0.0
        self._since: dict[int, int | None] = {}
        self._clear: int | None = None

    def _bars(self, span: timedelta) -> int:
        return span // self._held.step

    def close_of(self, number: int) -> float:
        """Equity after the decision and the fills at this close."""
        price = self._held.close[number]
        if number:
            self._profit.append(self._profit[-1] + self._units * (price - self._held.close[number - 1]))
        equity = self._cash + float(self._units @ price)
        gross = float(np.abs(self._units) @ price)
        self._equity.append(equity)
        if gross and equity <= MAINTENANCE * gross:
            self._cash, self._units[:], self._target[:] = max(equity - MAINTENANCE * gross, 0.0), 0.0, 0.0
        elif gross:
            self._decide(number, price)
        self._fill(number, price)
        self._equity[-1] = self._cash + float(self._units @ price)
        return self._equity[-1]

    def _fall(self, number: int, window: timedelta) -> float:
        seen = self._equity[max(self._begun, number - self._bars(window)) :]
        return 1 - seen[-1] / max(seen)

    def _decide(self, number: int, price: Floats) -> None:
        quarter, hour = (self._fall(number, timedelta(minutes=each)) for each in (15, 60))
        highest = None
        for rule in RULES:
            is_met = quarter >= float(rule.fall_quarter) or hour >= float(rule.fall_hour)
            since = self._since.get(rule.level) if is_met else None
            self._since[rule.level] = (number if since is None else since) if is_met else None
            if is_met and number - (self._since[rule.level] or 0) >= self._bars(rule.confirm):
                highest = rule
        if highest is not None and self._may_fire(highest, number):
            self._level, self._fired, self._fired_equity, self._clear = (
                highest.level, number, self._equity[-1], None,
            )  # fmt: skip
            self._cut(highest.level, number, price)
        else:
            self._reset(number, hour)

    def _may_fire(self, rule: Rule, number: int) -> bool:
        if rule.level != self._level:
            return rule.level > self._level
        return number - self._fired >= self._bars(rule.cooldown) and self._equity[-1] < self._fired_equity

    def _reset(self, number: int, hour: float) -> None:
        if self._level == 0 or not RULES[self._level - 1].resets_itself or hour >= float(CLEAR_BELOW):
            self._clear = None
            return
        self._clear = number if self._clear is None else self._clear
        over = number - self._fired >= self._bars(RULES[self._level - 1].cooldown)
        if over and number - self._clear >= self._bars(CLEAR_FOR):
            self._level, self._begun, self._clear = 0, number, None
            self._since.clear()

    def _cut(self, level: int, number: int, price: Floats) -> None:
        change = self._profit[number] - self._profit[max(0, number - self._bars(timedelta(minutes=15)))]
        losses = {sign: float(np.minimum(change[self._units * sign > 0], 0.0).sum()) for sign in (1, -1)}
        total = sum(losses.values())
        side = next((sign for sign, lost in losses.items() if total < 0 and lost / total >= ONE_SIDE), 0)
        held = np.flatnonzero(self._units * side > 0 if side else self._units != 0)
        loss = np.maximum(-self._profit[number], 0.0)
        notional = np.abs(self._units) * price
        margin = np.maximum(notional / LEVERAGE, 1e-9)
        score = 0.40 * np.abs(change) + 0.25 * loss + 0.10 * notional / notional.sum() + 0.05 * loss / margin
        ranked = held[np.argsort(-score[held], kind="stable")]
        if level == 1:
            self._target[ranked[:WORST]] = self._units[ranked[:WORST]] / 2
        elif level == len(RULES):
            self._target[:] = 0.0
        else:
            self._target[ranked if side else ranked[: max(1, round(MOSTLY * len(ranked)))]] = 0.0

    def _fill(self, number: int, price: Floats) -> None:
        wanted = self._units - self._target
        if not wanted.any():
            return
        volume = self._held.volume[number]
        part = np.minimum(np.abs(wanted), TAKEN * volume)
        share = np.divide(part, volume, out=np.zeros_like(part), where=volume > 0)
        signed = np.sign(wanted) * part
        self._units -= signed
        self._cash += float(signed @ price) - float((part * price) @ (FEE + IMPACT * share))
