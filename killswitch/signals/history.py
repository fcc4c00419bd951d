"""What one policy remembers of one scope: unit value, windows, P&L per position.

A history is a fold over snapshots: `observe` is its only mutator but for `rebase`, and everything that it
returns follows from what it was given. Serialised it is a `HistoryState` and its rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from killswitch.signals.changes import Changes, Resolved
from killswitch.signals.ledger import Gathered, Ledger
from killswitch.signals.marks import MarkKey, Marks
from killswitch.signals.position import ZERO
from killswitch.signals.rows import Correction, HistoryState, Row, StoredRow, corrected, unstored
from killswitch.signals.units import Track
from killswitch.signals.view import PnlKey, ScopeView

JUMP = 1.02
"""A rise by more than this between two observations is looked at before it counts as a peak."""


@dataclass(frozen=True, slots=True)
class EquityTerms:
    """How the policy judges equity: see `EquityRule` of the graph (microseconds, fraction)."""

    max_gap: int
    tolerance: float
    flow_grace: int


@dataclass(frozen=True, slots=True)
class News:
    """What became of unexplained money: a change appeared, was explained by the ledger, or counts as loss now.

    `anew`: money came into a wiped-out account, so that a new series begins. An explained change says from when
    on unit values were `factor` times too high.
    """

    kind: Literal["appeared", "explained", "lost", "anew"]
    amount: Decimal
    since: int = 0
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What a scope came to at one instant: equity, unrealised P&L per open position, and marks."""

    at: int
    equity: Decimal
    pnl: dict[PnlKey, Decimal]
    marks: dict[MarkKey, float]


class History:
    """The memory of one scope. Windows in microseconds; intervals are (lo, hi) floats."""

    def __init__(self, windows: Iterable[int], keep: int, terms: EquityTerms, marks: Marks | None = None) -> None:
        self._keep = keep
        self.marks = marks
        """Sampled where a ranking reads returns; else None."""
        self._terms = terms
        self.track = Track(sorted(set(windows)))
        self.changes = Changes()
        self.ledger = Ledger()
        self.rows: deque[Row] = deque()
        self.view: ScopeView | None = None
        self.unknown: str | None = "nothing was observed yet"
        self.begun_at: int | None = None
        self.rebased = False
        self.last_at: int | None = None
        self.gaps: deque[tuple[int, int]] = deque()
        self.explainable = True
        self.failures = 0
        """Scheduled observations in a row that told nothing; a known one ends the row, whatever called for it."""
        self.members: frozenset[str] = frozenset()
        self._rebase_due: bool | None = None
        self._corrections: list[Correction] = []
        self._equity: Decimal | None = None
        self._open_pnl: Decimal | None = None
        self._peak_before = 0.0

    def observe(self, view: ScopeView) -> list[News]:
        """Take one snapshot of the scope; returns what became of unexplained money."""
        before, self.view = self.view, view
        self.ledger.gather(view, before)
        self.unknown = view.unknown
        if view.unknown is not None or view.equity is None:
            # A pass woken by a push gives the other accounts again as they were read last: that is no reading more.
            self.failures += view.scheduled
            return []
        self.failures = 0
        at = view.as_of
        news = self._enter(view, view.equity)
        if self.last_at is not None and at - self.last_at > self._terms.max_gap:
            self.gaps.append((self.last_at, at))
        if self.begun_at is None:
            self.begun_at = at
        self.last_at = at
        self._forget_before(at - self._keep)
        if self._rebase_due is not None:
            self.rebase(accept=self._rebase_due)
        return news

    def pass_over(self, tail: Iterable[Observed], highest: Decimal) -> None:
        """Take observations between which nothing but prices moved, as `observe` would have one by one.

        `tail` are the last of them, oldest first, from as far back as any window reads; `highest` is the highest
        equity of all. Nothing may be unknown or unexplained, and none may come later than `max_gap` after another.
        """
        units = self.track.units
        for seen in tail:
            value = float(seen.equity) / units
            self.track.value = value
            self.track.record(seen.at, value)
            sampled = self.marks is not None and self.marks.is_due(seen.at)
            if sampled and self.marks is not None:
                self.marks.recall(seen.at, seen.marks)
            self.rows.append(Row(seen.at, value, self._total(seen.pnl), seen.marks if sampled else None))
            self.last_at, self._equity = seen.at, seen.equity
            self._open_pnl = sum(seen.pnl.values(), ZERO)
        self._peak_before = self.changes.peak = max(self.changes.peak, float(highest) / units)
        self._forget_before((self.last_at or 0) - self._keep)

    @property
    def explained(self) -> bool:
        """Whether the newest observation is known, and nothing is unexplained, late or about to be re-based."""
        return self.unknown is None and self.explainable and not self.changes.all and self._rebase_due is None

    def _forget_before(self, edge: int) -> None:
        while self.rows[0].at < edge:
            self.rows.popleft()
        while self.gaps and self.gaps[0][1] <= edge:
            self.gaps.popleft()

    def _enter(self, view: ScopeView, equity: Decimal) -> list[News]:
        at, pnl = view.as_of, view.pnl()
        open_pnl = None if pnl is None else sum(pnl.values(), ZERO)
        if open_pnl is not None and not open_pnl.is_finite():
            pnl = open_pnl = None
        if len(view.accounts) != len(self.members):
            self._meet(view)
        news = self._account_for(at, equity, open_pnl)
        self.track.observe(at, float(equity))
        value = self.track.value
        self._peak_before = self.changes.peak
        self.changes.peak = max(self.changes.peak, value)
        marks = None if self.marks is None else self.marks.sample(view)
        self.rows.append(Row(at, value, self._total(pnl), marks))
        self._equity, self._open_pnl = equity, open_pnl
        return news

    def _meet(self, view: ScopeView) -> None:
        """An account that joins the scope brings its equity as a flow, and its positions' P&L is not the scope's."""
        for account in view.accounts:
            if account.account in self.members:
                continue
            if self._equity is not None and account.equity is not None:
                self.ledger.gathered.flows.append(account.equity)
                self.ledger.gathered.add(_minus(view.pnl_of(account)))
        self.members |= {account.account for account in view.accounts}

    def _total(self, pnl: dict[PnlKey, Decimal] | None) -> dict[PnlKey, Decimal] | None:
        """Unrealised plus realised P&L per position, closed ones included."""
        realized = self.ledger.realized
        if pnl is None or not realized:
            return pnl
        total = dict(realized)
        for key, value in pnl.items():
            total[key] = total.get(key, ZERO) + value
        return total

    # Explaining how equity changed

    def _account_for(self, at: int, equity: Decimal, open_pnl: Decimal | None) -> list[News]:
        """Issue units for flows, and hold what nothing explains apart."""
        gathered, value = self.ledger.take(), float(equity)
        if self._equity is None:
            self.track.open(at, value)
            return []
        if self.track.value <= 0.0 < min(float(gathered.unit_flow), value):
            self._begin_anew(at, value)
            return [News("anew", gathered.unit_flow)]
        news: list[News] = []
        flow, residual = gathered.unit_flow, ZERO
        self.explainable = gathered.whole and open_pnl is not None and self._open_pnl is not None
        if open_pnl is not None and self._open_pnl is not None:
            explained = open_pnl - self._open_pnl + gathered.pnl + flow
            residual = equity - self._equity - explained
            noise = Decimal(self._terms.tolerance) * max(abs(equity), abs(self._equity))
            if abs(residual) > noise:
                matched, late_flow = self._match(at, residual, gathered, news)
                flow -= late_flow
                residual += matched
            if abs(residual) <= noise:
                residual = ZERO
        before, was = float(self._equity + flow), self.track.value
        if flow:
            self.track.issue(float(flow), value)
        if residual:
            self.changes.appear(at, residual, before, was)
            news.append(News("appeared", residual))
        lost = self.changes.write_off(at, self._terms.flow_grace)
        if lost:
            news.append(News("lost", lost))
        self.changes.expire(at)
        return news

    def _match(self, at: int, residual: Decimal, gathered: Gathered, news: list[News]) -> tuple[Decimal, Decimal]:
        """Rows that speak of an earlier change: how much of them was matched, and how much of that moved money.

        Such rows leave a residual of the other sign, because equity changed when they happened, not now.
        """
        matched = late_flow = ZERO
        for amount, moved in (*((row, True) for row in self._late_first(gathered.flows)), (gathered.pnl, False)):
            late = _opposite_part(amount, residual + matched)
            if not late:
                continue
            resolved, left = self.changes.explain(late, moved=moved)
            for part in resolved:
                if moved:
                    self._correct(at, part)
                news.append(News("explained", part.amount, part.at, part.factor if moved else 1.0))
            matched += late - left
            late_flow += late - left if moved else ZERO
        return matched, late_flow

    def _late_first(self, flows: list[Decimal]) -> list[Decimal]:
        """Each row that is exactly a change apart, then the rest by sign: a fresh row must not hide a late one."""
        changes = {change.amount for change in self.changes.all}
        rest = [row for row in flows if row not in changes]
        return [
            *(row for row in flows if row in changes),
            sum((row for row in rest if row > ZERO), ZERO),
            sum((row for row in rest if row < ZERO), ZERO),
        ]

    def _correct(self, now: int, part: Resolved) -> None:
        """What was taken for profit or loss was a flow: values since then were on too many or too few units."""
        self.track.correct(part.at, part.factor, part.value)
        self._corrections.append(Correction(part.at, now, part.factor, part.value))
        self._corrections = [each for each in self._corrections if each.end > now - self._keep]
        self.rows = deque(corrected(row, self._corrections[-1]) for row in self.rows)
        self.track.forget()
        for row in self.rows:
            self.track.record(row.at, row.value)

    def jumped(self) -> bool:
        """Whether the newest unit value lies far above the one before it."""
        return len(self.rows) > 1 and self.rows[-1].value > JUMP * self.rows[-2].value

    def doubt(self, equity: Decimal) -> None:
        """The newest observation holds a print that does not hold: it is a peak only as far as `equity` makes it."""
        if self.track.units <= 0.0:
            return
        value = min(self.rows[-1].value, float(equity) / self.track.units)
        self.rows[-1] = replace(self.rows[-1], value=value)
        self.changes.peak = max(self._peak_before, value)
        self.track.forget()
        for row in self.rows:
            self.track.record(row.at, row.value)

    def leave(self, present: frozenset[str]) -> None:
        """A hand took accounts that are gone out of the scope: what is left begins a new series."""
        if self.members <= present:
            return
        self.members &= present
        self.ledger.joined = {name: at for name, at in self.ledger.joined.items() if name in self.members}
        self.ledger.take()
        self._equity = None
        self.changes = Changes()
        self._corrections = []
        self.rows.clear()
        self.gaps.clear()
        self.begun_at, self.rebased = None, True

    def _begin_anew(self, at: int, equity: float) -> None:
        self.track.open(at, equity)
        self.ledger.joined = dict.fromkeys(self.ledger.joined, at)
        self.changes = Changes(peak=equity)
        self._corrections = []
        self.rows.clear()
        self.gaps.clear()
        self.begun_at, self.rebased = at, True

    def rebase(self, *, accept: bool) -> None:
        """A reset: windows begin now and count as complete; one by hand accepts the loss, peak and start too.

        While equity is unknown they begin with the next that is known.
        """
        self._rebase_due = accept if self.unknown is not None else None
        self.rows = deque([self.rows[-1]] if self.rows and self._rebase_due is None else [])
        self.gaps.clear()
        self.track.forget()
        self.rebased, self.begun_at = True, self.last_at if self._rebase_due is None else None
        for row in self.rows:
            self.track.record(row.at, row.value)
        if accept and self.last_at is not None:
            self.track.accept(self.last_at)
            self.changes.accept(self.track.value)

    def supposing(self, equity: Decimal) -> History:
        """The same past with another present equity; shares the past, so it must not observe."""
        other = copy(self)
        other.track = self.track.supposing(float(equity))
        return other

    # Serialising

    def state(self) -> HistoryState:
        """Everything that rows do not hold."""
        return HistoryState(
            begun_at=self.begun_at, rebased=self.rebased, rebase_due=self._rebase_due, last_at=self.last_at,
            gaps=list(self.gaps), track=self.track.state(), changes=self.changes.all, peak=self.changes.peak,
            corrections=self._corrections, equity=self._equity, open_pnl=self._open_pnl,
            failures=self.failures, members=sorted(self.members), ledger=self.ledger.state(),
        )  # fmt: skip

    def restore(self, state: HistoryState, rows: Iterable[StoredRow]) -> None:
        """Take up where a history of the same policy left off; its windows may be others."""
        self.begun_at, self.rebased, self._rebase_due = state.begun_at, state.rebased, state.rebase_due
        self.last_at, self.gaps, self.failures = state.last_at, deque(state.gaps), state.failures
        self._corrections, self._equity, self._open_pnl = state.corrections, state.equity, state.open_pnl
        self.changes = Changes(state.changes, state.peak)
        self.members = frozenset(state.members)
        self.ledger.restore(state.ledger)
        self.track.restore(state.track)
        for row in rows:
            if self.marks is not None and row.marks is not None:  # markets know of no reset
                self.marks.recall(row.at, {(account, symbol): mark for account, symbol, mark in row.marks})
            if self.begun_at is not None and row.at >= self.begun_at:  # what was before a reset is forgotten
                self._replay(row)

    def _replay(self, stored_row: StoredRow) -> None:
        row = unstored(stored_row)
        for correction in self._corrections:
            if row.at < correction.end:
                row = corrected(row, correction)
        self.rows.append(row)
        self.track.record(row.at, row.value)


def _opposite_part(rows: Decimal, residual: Decimal) -> Decimal:
    """The part of `rows` that a residual of the other sign says is late."""
    if rows > ZERO > residual:
        return min(rows, -residual)
    return max(rows, -residual) if rows < ZERO < residual else ZERO


def _minus(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else -amount
