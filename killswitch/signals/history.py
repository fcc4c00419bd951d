"""What one policy remembers of one scope: unit value, windows, P&L per position.

A history is a fold over snapshots: `observe` is its only mutator but for `rebase`, and everything that it
returns follows from what it was given. Serialised it is a `HistoryState` and its rows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from decimal import Decimal

from msgspec import Struct

from killswitch.signals.ledger import Ledger
from killswitch.signals.position import ZERO
from killswitch.signals.units import Track, TrackState, fall_from
from killswitch.signals.view import PnlKey, ScopeView

Interval = tuple[float, float]
UNKNOWN: Interval = (-math.inf, math.inf)


class Row(Struct, frozen=True, gc=False):
    """One observation: unit value in either reading, and each position's P&L since the start of observation."""

    at: int
    value: float
    other: float | None
    pnl: dict[PnlKey, Decimal] | None


class StoredRow(Struct, frozen=True, array_like=True):
    """A row as serialised: JSON has no tuple keys."""

    at: int
    value: float
    other: float | None
    pnl: list[tuple[str, str, str, Decimal]] | None


class HistoryState(Struct):
    """The serialised part of a history that rows do not hold."""

    begun_at: int | None
    rebased: bool
    last_at: int | None
    gaps: list[tuple[int, int]]
    main: TrackState
    other: TrackState | None
    unexplained: Decimal
    unexplained_since: int | None
    written_off: Decimal
    equity: Decimal | None
    open_pnl: Decimal | None
    failures: int
    seen: list[tuple[str, int]]
    realized: list[tuple[str, str, str, Decimal]]


@dataclass(frozen=True, slots=True)
class EquityTerms:
    """How the policy judges equity: see `EquityRule` of the graph (microseconds, fraction)."""

    max_gap: int
    tolerance: float
    flow_grace: int


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A change that nothing explains: it appeared, was explained after all, or counts as loss now."""

    kind: str
    amount: Decimal


class History:
    """The memory of one scope. Windows in microseconds; intervals are (lo, hi) floats."""

    def __init__(self, windows: Iterable[int], keep: int, terms: EquityTerms) -> None:
        self._windows = tuple(sorted(set(windows)))
        self._keep = keep
        self._terms = terms
        self.main = Track(self._windows)
        self.other: Track | None = None
        self.ledger = Ledger()
        self.rows: deque[Row] = deque()
        self.view: ScopeView | None = None
        self.unknown: str | None = "nothing was observed yet"
        self.begun_at: int | None = None
        self.rebased = False
        self.last_at: int | None = None
        self.gaps: deque[tuple[int, int]] = deque()
        self.unexplained = ZERO
        self.unexplained_since: int | None = None
        self.explainable = True
        self.failures = 0
        self._written_off = ZERO
        self._equity: Decimal | None = None
        self._open_pnl: Decimal | None = None

    def observe(self, view: ScopeView) -> Unexplained | None:
        """Take one snapshot of the scope; returns what became of an unexplained change, if anything did."""
        before, self.view = self.view, view
        self.ledger.gather(view, before)
        self.unknown = view.unknown
        if view.unknown is not None or view.equity is None:
            self.failures += 1
            return None
        self.failures = 0
        news = self._enter(view, view.equity)
        at = view.as_of
        if self.last_at is not None and at - self.last_at > self._terms.max_gap:
            self.gaps.append((self.last_at, at))
        if self.begun_at is None:
            self.begun_at = at
        self.last_at = at
        edge = at - self._keep
        while self.rows[0].at < edge:
            self.rows.popleft()
        while self.gaps and self.gaps[0][1] <= edge:
            self.gaps.popleft()
        return news

    def _enter(self, view: ScopeView, equity: Decimal) -> Unexplained | None:
        at, pnl = view.as_of, view.pnl()
        open_pnl = None if pnl is None else sum(pnl.values(), ZERO)
        if open_pnl is not None and not open_pnl.is_finite():
            pnl = open_pnl = None
        news = self._account_for(at, equity, open_pnl)
        value = float(equity)
        self.main.observe(at, value)
        if self.other is not None:
            self.other.observe(at, value)
        self.rows.append(Row(at, self.main.value, self.other.value if self.other else None, self._total(pnl)))
        self._equity, self._open_pnl = equity, open_pnl
        return news

    def _total(self, pnl: dict[PnlKey, Decimal] | None) -> dict[PnlKey, Decimal] | None:
        """Unrealised plus realised P&L per position, closed ones included."""
        realized = self.ledger.realized
        if pnl is None or not realized:
            return pnl
        total = dict(realized)
        for key, value in pnl.items():
            total[key] = total.get(key, ZERO) + value
        return total

    def _account_for(self, at: int, equity: Decimal, open_pnl: Decimal | None) -> Unexplained | None:
        """Issue units for flows, and hold what nothing explains apart."""
        gathered = self.ledger.take()
        if self._equity is None:
            self.main.open(float(equity))
            return None
        value, flow = float(equity), float(gathered.unit_flow)
        if self.main.value <= 0.0 < min(flow, value):  # money into a wiped-out account begins a new series
            self._begin_anew(at, value)
            return None
        if flow:
            self.main.issue(flow, value)
            if self.other is not None:
                self.other.issue(flow, value)
        self.explainable = not (gathered.other is None or open_pnl is None or self._open_pnl is None)
        if gathered.other is not None and open_pnl is not None and self._open_pnl is not None:
            explained = open_pnl - self._open_pnl + gathered.other + gathered.unit_flow
            residual = equity - self._equity - explained
            noise = Decimal(self._terms.tolerance) * max(abs(equity), abs(self._equity))
            if abs(residual) > noise:
                return self._hold_apart(at, residual, value, noise)
        return self._write_off(at)

    def _begin_anew(self, at: int, equity: float) -> None:
        self.main.open(equity)
        self.other = None
        self.unexplained, self.unexplained_since, self._written_off = ZERO, None, ZERO
        self.rows.clear()
        self.gaps.clear()
        self.begun_at, self.rebased = at, True

    def _hold_apart(self, at: int, residual: Decimal, equity: float, noise: Decimal) -> Unexplained | None:
        """Open, extend or end the second reading, in which the unexplained change was a flow."""
        if residual > ZERO and self._written_off > ZERO:  # a late row explains what was counted as loss
            matched = min(residual, self._written_off)
            self._written_off -= matched
            residual -= matched
            if residual <= noise:
                return Unexplained("explained", matched)
        if self.other is None:
            self.other = self.main.fork()
            self.unexplained_since = at
        self.other.issue(float(residual), equity)
        self.unexplained += residual
        if abs(self.unexplained) > noise:
            return Unexplained("appeared", self.unexplained)
        self.main, self.other = self.other, None
        self.unexplained, self.unexplained_since = ZERO, None
        return Unexplained("explained", residual)

    def _write_off(self, at: int) -> Unexplained | None:
        """An unexplained fall that the ledger has not explained in time counts as loss."""
        if self.unexplained >= ZERO or self.unexplained_since is None:
            return None
        if at - self.unexplained_since < self._terms.flow_grace:
            return None
        lost = -self.unexplained
        self._written_off += lost
        self.unexplained, self.unexplained_since, self.other = ZERO, None, None
        return Unexplained("lost", lost)

    def rebase(self, *, accept: bool) -> None:
        """A reset: windows begin now and count as complete; one by hand accepts the loss, peak and start too."""
        self.main.rebase(accept=accept)
        if self.other is not None:
            self.other.rebase(accept=accept)
        self.gaps.clear()
        self.rebased = True
        self.begun_at = self.last_at
        if self.rows and self.last_at is not None:
            last = self.rows[-1]
            self.rows = deque([last])
            self.main.record(last.at, last.value)
            if self.other is not None:
                self.other.record(last.at, self.other.value)

    def supposing(self, equity: float) -> History:
        """The same past with another present equity; shares the past, so it must not observe."""
        other = copy(self)
        other.main = self.main.supposing(equity)
        other.other = self.other.supposing(equity) if self.other else None
        return other

    # What signals read

    def why_partly(self, window: int) -> str | None:
        """Why the window is not wholly known, or None."""
        if self.begun_at is None or self.last_at is None:
            return "nothing was observed yet"
        edge = self.last_at - window
        if not self.rebased and self.begun_at > edge:
            return "history does not reach back to the window's start"
        if self.gaps and self.gaps[-1][1] > edge:
            return f"a gap of {(self.gaps[-1][1] - self.gaps[-1][0]) / 1e6:.0f} s lies in the window"
        return None

    def drawdown(self, window: int) -> Interval:
        """Fall of the unit value in the window; [seen, 1] where the window is partly known."""
        if self.unknown is not None:
            return UNKNOWN
        low = high = self.main.fall(window)
        if self.other is not None:
            other = self.other.fall(window)
            low, high = min(low, other), max(high, other)
        edge = (self.last_at or 0) - window
        if (self.gaps and self.gaps[-1][1] > edge) or (not self.rebased and (self.begun_at or 0) > edge):
            high = 1.0
        return low, high

    def _either(self, falls: Sequence[float]) -> Interval:
        return UNKNOWN if self.unknown is not None else (min(falls), max(falls))

    def drawdown_from_peak(self) -> Interval:
        """Fall from the highest value since the start or the last reset by hand."""
        return self._either([fall_from(t.peak, t.value) for t in (self.main, self.other) if t])

    def loss_from_start(self) -> Interval:
        """Fall from the value at the start or the last reset by hand."""
        return self._either([fall_from(t.start, t.value) for t in (self.main, self.other) if t])

    def unit_value(self) -> Interval:
        """The unit value now, in either reading."""
        return self._either([t.value for t in (self.main, self.other) if t])

    def pnl_change(self, window: int) -> dict[PnlKey, Decimal] | str:
        """P&L of every position since the unit value's highest in the window; or why that is unknown.

        Closed positions are in it. The values sum to the fall that drawdown over the window measures.
        """
        if self.unknown is not None or not self.rows:
            return self.unknown or "nothing was observed yet"
        partly = self.why_partly(window)
        if partly is not None:
            return partly
        now, edge = self.rows[-1], self.rows[-1].at - window
        # of equals the latest: nothing was lost between them
        highest = max((row for row in self.rows if row.at >= edge), key=lambda row: (row.value, row.at))
        if now.pnl is None or highest.pnl is None:
            return "a position's profit and loss is unknown"
        return {key: value - highest.pnl.get(key, ZERO) for key, value in now.pnl.items()}

    # Serialising

    def state(self) -> HistoryState:
        """Everything that rows do not hold."""
        return HistoryState(
            begun_at=self.begun_at, rebased=self.rebased, last_at=self.last_at, gaps=list(self.gaps),
            main=self.main.state(), other=self.other.state() if self.other else None,
            unexplained=self.unexplained, unexplained_since=self.unexplained_since,
            written_off=self._written_off, equity=self._equity, open_pnl=self._open_pnl,
            failures=self.failures, seen=list(self.ledger.seen.items()),
            realized=[(*key, value) for key, value in self.ledger.realized.items()],
        )  # fmt: skip

    def restore(self, state: HistoryState, rows: Iterable[StoredRow]) -> None:
        """Take up where a history of the same policy left off; its windows may be others."""
        self.begun_at, self.rebased, self.last_at = state.begun_at, state.rebased, state.last_at
        self.gaps = deque(state.gaps)
        self.unexplained, self.unexplained_since = state.unexplained, state.unexplained_since
        self._written_off, self.failures = state.written_off, state.failures
        self._equity, self._open_pnl = state.equity, state.open_pnl
        self.ledger.seen = dict(state.seen)
        self.ledger.realized = {(a, s, side): value for a, s, side, value in state.realized}
        self.main.restore(state.main)
        if state.other is not None:
            self.other = Track(self._windows)
            self.other.restore(state.other)
        for row in rows:
            if self.begun_at is not None and row.at >= self.begun_at:  # what was before a reset is forgotten
                self._replay(row)

    def _replay(self, row: StoredRow) -> None:
        pnl = None if row.pnl is None else {(a, s, side): value for a, s, side, value in row.pnl}
        self.rows.append(Row(row.at, row.value, row.other, pnl))
        self.main.record(row.at, row.value)
        if self.other is not None:
            self.other.record(row.at, row.value if row.other is None else row.other)


def stored(row: Row) -> StoredRow:
    """A row as serialised."""
    pnl = None if row.pnl is None else [(*key, value) for key, value in row.pnl.items()]
    return StoredRow(row.at, row.value, row.other, pnl)
