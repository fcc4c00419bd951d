"""The sums of a run, bar by bar: equity, P&L by side, positions, and trading costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import numpy as np

from killswitch.lab.outcome import BacktestFiring, Liquidation, Run, RunCurve
from killswitch.lab.price_matrix import Floats, Instants, PriceMatrix
from killswitch.lab.static_book import StaticBook
from killswitch.model.decision import Decision
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Fill, Side, Snapshot
from killswitch.planning.targets.merge import ordered_symbols

_MONEY = Decimal("0.00000001")
_UNIT, _UP_FROM = 1e6, 0.5333333
"""Equity is kept to a millionth, rounded up from slightly more than half of one: exact sums of money often lie at
the half, where the last bits of floats would decide."""
_MEAN = Decimal("0.0001")  # a mean of thousands of float sums has no more reliable decimals
_FRACTION = Decimal("0.000000000001")
ZERO = Decimal(0)


class PnlAccumulator:
    """Accumulates the P&L of one run that begins at instant `begins` of the matrix. Sums are over all accounts."""

    def __init__(self, matrix: PriceMatrix, begins: int, *, with_curve: bool) -> None:
        """`with_curve` also keeps the series of the charts."""
        self._matrix = matrix
        self._begins = begins
        bars = len(matrix) - begins
        self._equity: Floats = np.zeros(bars)
        self._gross: Floats = np.zeros(bars)
        self._chart_series = _ChartSeries(bars, matrix.symbols) if with_curve else None
        self._size = {i.symbol: i.contract_size or Decimal(1) for i in matrix.instruments}
        self._realized: dict[Side, Decimal] = {"long": ZERO, "short": ZERO}
        self._seen: set[tuple[str, str]] = set()
        self._marks: dict[tuple[str, str], Decimal] = {}
        self._liquidated: dict[tuple[datetime, str, str, Side], tuple[Decimal, Decimal]] = {}
        self._first_equity: Decimal | None = None
        self._last_equity = ZERO
        self._sums: dict[str, Decimal] = defaultdict(Decimal)
        self.bars = 0
        """The number of bars so far."""

    def remember_marks(self, decision: Decision, snapshot: Snapshot) -> None:
        """Remember the marks against which the decision's fills are measured."""
        wanted = ordered_symbols(decision)
        for account in snapshot.accounts:
            for position in account.positions or ():
                key = (account.account, position.symbol)
                if key in wanted and position.mark_price is not None:
                    self._marks[key] = position.mark_price
            for watched in account.watched or ():  # what a hedge opens is held by nobody yet
                key = (account.account, watched.symbol)
                if key in wanted and watched.mark_price is not None:
                    self._marks[key] = watched.mark_price

    def add_bar(self, snapshot: Snapshot) -> None:
        """Add the next bar from the snapshot of its tick."""
        self.bars += 1
        self.add_last_bar_again(snapshot)

    def add_last_bar_again(self, snapshot: Snapshot) -> None:
        """Add the last bar once more, with what was closed after its tick."""
        place = self.bars - 1
        equity, gross = ZERO, ZERO
        for account in snapshot.accounts:
            equity += account.equity or ZERO  # the paper market always knows it
            for fill in account.fills or ():
                self._add_fill(account.account, fill)
            gross += sum((position.notional or ZERO for position in account.positions or ()), ZERO)
        if self._first_equity is None:
            self._first_equity = equity
        self._last_equity = equity
        self._equity[place], self._gross[place] = float(equity), float(gross)
        if self._chart_series is not None:
            self._chart_series.add_bar(place, snapshot, self._realized)

    def add_quiet_bars(self, count: int, book: StaticBook) -> None:
        """Add `count` bars in which only prices moved."""
        first, end = self._begins + self.bars, self._begins + self.bars + count
        here = slice(self.bars, self.bars + count)
        for account in book.accounts:
            self._equity[here] += account.equities(first, end)
            self._gross[here] += account.gross(first, end)
        if self._chart_series is not None:
            self._chart_series.add_quiet_bars(here, book, first, end, self._realized)
        self.bars += count

    def _add_fill(self, account: str, fill: Fill) -> None:
        if (account, fill.id) in self._seen:
            return
        self._seen.add((account, fill.id))
        quantity = fill.amount * self._size[fill.symbol]
        self._realized[fill.position_side or "long"] += fill.realized_pnl or ZERO
        self._sums["fees"] += fill.fee or ZERO
        self._sums["turnover"] += quantity * fill.price
        mark = self._marks.get((account, fill.symbol))
        if fill.cause == "liquidation":
            # the venue liquidates in steps: those inside one bar are one liquidation
            key = (fill.at, account, fill.symbol, fill.position_side or "long")
            contracts, value = self._liquidated.get(key, (ZERO, ZERO))
            self._liquidated[key] = (contracts + fill.amount, value + fill.amount * fill.price)
        elif mark is not None:
            self._sums["slippage"] += quantity * (mark - fill.price) * (1 if fill.side == "sell" else -1)

    # -- results -----------------------------------------------------------------------------------------

    def run(self, rule: str, book: str, firings: Sequence[BacktestFiring], notices: int, *, complete: bool) -> Run:
        """Return all results after the last bar. At least one bar must have been added."""
        # Rounding of floats must not decide the minimum.
        equity: Floats = np.floor(self._equity[: self.bars] * _UNIT + (1 - _UP_FROM)) / _UNIT
        peaks = np.maximum.accumulate(equity)
        falls = np.where(peaks > 0, (peaks - equity) / np.where(peaks > 0, peaks, 1.0), 0.0)
        worst, lowest = int(np.argmax(falls)), int(np.argmin(equity))
        peak = int(np.argmax(equity[: worst + 1]))
        gross = self._gross[: self.bars]
        at = self._matrix.at[self._begins : self._begins + self.bars]
        return Run(
            rule=rule, book=book, market=self._matrix.name,
            begins=self._instant(0), ends=self._instant(self.bars - 1), bars=self.bars, complete=complete,
            start_equity=self._first_equity or ZERO, final_equity=self._last_equity,
            lowest_equity=_rounded(float(equity[lowest]), _MONEY), lowest_at=self._instant(lowest),
            worst_drawdown=_rounded(float(falls[worst]), _FRACTION),
            worst_from=self._instant(peak), worst_at=self._instant(worst),
            gross_start=_rounded(float(gross[0]), _MONEY), gross_end=_rounded(float(gross[-1]), _MONEY),
            gross_mean=_rounded(float(gross.mean()), _MEAN),
            turnover=self._sums["turnover"], fees=self._sums["fees"], slippage=self._sums["slippage"],
            firings=tuple(firings), liquidations=self._liquidations(), notices=notices,
            course=None if self._chart_series is None else self._chart_series.curve(at, equity),
        )  # fmt: skip

    def _liquidations(self) -> tuple[Liquidation, ...]:
        return tuple(
            Liquidation(at, account, symbol, side, contracts, value / contracts)
            for (at, account, symbol, side), (contracts, value) in self._liquidated.items()
        )

    def _instant(self, bar: int) -> datetime:
        return from_micros(int(self._matrix.at[self._begins + bar]))


class _ChartSeries:
    """What only charts show, by bar: P&L of each side, and signed notional of each symbol."""

    def __init__(self, bars: int, symbols: Sequence[str]) -> None:
        self._pnl: dict[Side, Floats] = {"long": np.zeros(bars), "short": np.zeros(bars)}
        self._held: dict[str, Floats] = {symbol: np.zeros(bars) for symbol in symbols}

    def add_bar(self, bar: int, snapshot: Snapshot, realized: Mapping[Side, Decimal]) -> None:
        for side, pnl in self._pnl.items():
            pnl[bar] = float(realized[side])
        for notionals in self._held.values():
            notionals[bar] = 0.0
        for account in snapshot.accounts:
            for position in account.positions or ():
                notional = float(position.notional or ZERO)
                self._pnl[position.side][bar] += float(position.unrealized_pnl or ZERO)
                self._held[position.symbol][bar] += notional if position.side == "long" else -notional

    def add_quiet_bars(
        self, here: slice, book: StaticBook, first: int, end: int, realized: Mapping[Side, Decimal]
    ) -> None:
        for side, pnl in self._pnl.items():
            pnl[here] = float(realized[side])
            for account in book.accounts:
                pnl[here] += account.pnl(side, first, end)
        for account in book.accounts:
            notionals = account.notionals(first, end)
            for (_, symbol, _), notional in zip(account.keys, notionals, strict=True):
                self._held[symbol][here] += notional

    def curve(self, at: Instants, equity: Floats) -> RunCurve:
        bars = len(at)
        return RunCurve(
            at=at.tolist(),
            equity=equity.tolist(),
            long_pnl=self._pnl["long"][:bars].tolist(),
            short_pnl=self._pnl["short"][:bars].tolist(),
            held={symbol: held[:bars].tolist() for symbol, held in self._held.items() if held.any()},
        )


def _rounded(value: float, step: Decimal) -> Decimal:
    return Decimal(repr(value)).quantize(step)
