"""The history of one scope for one policy: unit value, windows, P&L per position.

A history is a deterministic fold over snapshots. It is serialised as a `HistoryState` and its rows.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from decimal import Decimal
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.magnitude import sound_account
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.words import ChangeCause
from killswitch.pnl_explain.account_trail import AccountTrailState
from killswitch.pnl_explain.explanation import NO_CHANGES, ChangeEvent, EquityTerms, ExplainedChanges, Explanation
from killswitch.pnl_explain.ledger import ScopeLedger
from killswitch.pnl_explain.pending_changes import (
    Interpretation,
    ResolvedChange,
    UnexplainedChanges,
    optimistic,
    pessimistic,
    suspicious,
)
from killswitch.pnl_explain.unavailable_accounts import MoneyRange, UnavailableAccounts, UnitRange, total_of, unit_range
from killswitch.signals.arguments import HedgeLegs
from killswitch.signals.history.anchored_values import AnchoredValue, OpeningValues, SkippedBars
from killswitch.signals.history.collector import (
    NO_COLLECTORS,
    Collector,
    Collectors,
    Needs,
    follow_each,
    observe_each,
)
from killswitch.signals.history.group_estimates import GroupEstimates
from killswitch.signals.history.prices import PriceSamples, StoredSamples
from killswitch.signals.history.pulse import LastObserved
from killswitch.signals.history.rows import (
    Correction,
    HistoryState,
    StoredUnitValueRow,
    UnitValueRow,
    corrected,
    decode_row,
)
from killswitch.signals.history.samples import PriceKey
from killswitch.valuation.position_measures import HOLDINGS, ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView
from killswitch.valuation.unit_value import UnitValueTrack

DUST = Decimal("0.001")
"""The fraction of equity that transfers may leave in an empty scope, whatever else a policy calls noise."""
_time_of = attrgetter("at")
JUMP = 1.02
"""The rise between two observations above which a new peak is corroborated first."""


class ObservedScope(Struct, frozen=True):
    """The scope at one instant: equity, unrealised P&L per open position, and marks."""

    at: int
    equity: Decimal
    pnl: dict[PnlKey, Decimal]
    marks: dict[PriceKey, float]


class _Emptying(Struct, frozen=True):
    """Transfers that took all but dust: the equity just before them, and the equity up to which the scope is empty."""

    equity: Decimal
    empty_below: float


class History:
    """The history of one scope. Windows are in microseconds; intervals are (lo, hi) floats."""

    def __init__(
        self,
        windows: Iterable[int],
        keep: int,
        terms: EquityTerms,
        collectors: Mapping[type[Collector], Needs] = NO_COLLECTORS,
        hedges: Sequence[HedgeLegs] = (),
    ) -> None:
        self._keep = keep
        self.hedges = tuple(hedges)
        """The declared hedges, whose legs count together where a loss is attributed."""
        self.collectors = Collectors(collectors, terms.max_gap)
        self.prices = self.collectors.get(PriceSamples)
        """Samples of prices if a signal, a ranking or a correlation group reads them, else None."""
        self.groups = self.collectors.get(GroupEstimates)
        """Estimated correlation groups if the policy set has any, else None."""
        self.terms = terms
        """How the policy evaluates equity."""
        self.track = UnitValueTrack(sorted(set(windows)))
        self.explanation = Explanation(terms)
        self.interpretations: tuple[Interpretation, Interpretation] = (optimistic, pessimistic)
        """The interpretations of open changes for the lower and the upper end of an interval."""
        self.rows: deque[UnitValueRow] = deque()
        self.view: ScopeView | None = None
        self.unknown: str | None = "nothing was observed yet"
        self.begun_at: int | None = None
        self.rebased = False
        self.last_at: int | None = None
        self.gaps: deque[tuple[int, int]] = deque()
        self.failures = 0
        """Consecutive scheduled observations of unknown equity; any known one resets the count."""
        self.last_observed = LastObserved()
        self.members: frozenset[str] = frozenset()
        self._rebase_due: bool | None = None
        self._corrections: list[Correction] = []
        self.corrected_now: list[Correction] = []
        """Corrections of earlier unit values by the last observation."""
        self.equity: Decimal | None = None
        """The last known equity in the scope's currency, or the one that a copy assumes."""
        self.transferred = ZERO
        """The transfers for which the last observation issued or redeemed units at once, in the scope's currency."""
        self._equity: Decimal | None = None
        self._peak_before = 0.0
        self._by_side: dict[int, tuple[Decimal, Decimal]] = {}
        """The time of a row → its P&L by side, where a signal has read that."""
        self.unit_range: UnitRange | None = None
        """The bounds of the unit value while accounts are unavailable."""
        self.equity_ranges: Mapping[str, MoneyRange] | None = None
        """The range of each member's equity then, without transfers since its last known equity."""
        self._unavailable_accounts = UnavailableAccounts()

    @property
    def current_equity(self) -> Decimal | None:
        """The last known equity of the scope, in its currency; None before the first."""
        return self._equity

    @property
    def why_unknown(self) -> str | None:
        """The reason why the scope is unknown, or None: its equity, or its book if it has no equity of its own."""
        return self.view.unknown if self.view is not None and not self.view.has_equity else self.unknown

    @property
    def max_gap(self) -> int:
        """The maximum gap in a window that counts as known (microseconds)."""
        return self.terms.max_gap

    @property
    def ledger(self) -> ScopeLedger:
        """The ledger of flows and fills, with the realised P&L of each position."""
        return self.explanation.ledger

    @property
    def changes(self) -> UnexplainedChanges:
        """The changes of equity that are or were unexplained."""
        return self.explanation.changes

    def observe(self, view: ScopeView) -> list[ChangeEvent]:
        """Observe one snapshot of the scope; returns the events of unexplained changes."""
        before = self.view
        observe_each([(self.collectors, view, before)])
        events = self._observe(view, before)
        if view.unknown is not None or view.has_equity:
            follow_each([(self.collectors, self, None if view.unknown is not None else view.equity)])
        return events

    @staticmethod
    def observe_each(scopes: Sequence[tuple[History, ScopeView]]) -> list[list[ChangeEvent]]:
        """Observe one snapshot of several scopes of a policy; returns the events of each.

        Each step is of all scopes, which keeps its code in the caches.
        """
        before = [history.view for history, _ in scopes]
        observe_each([(history.collectors, view, was) for (history, view), was in zip(scopes, before, strict=True)])
        events = [history._observe(view, was) for (history, view), was in zip(scopes, before, strict=True)]
        follow_each([
            (history.collectors, history, None if view.unknown is not None else view.equity)
            for history, view in scopes
            if view.unknown is not None or view.has_equity
        ])  # fmt: skip
        return events

    def _observe(self, view: ScopeView, before: ScopeView | None) -> list[ChangeEvent]:
        """Observe a snapshot that the collectors have observed, and follow after that."""
        self.view, self.corrected_now = view, []
        if self.groups is not None:
            self.groups.estimate(view, self.prices)
        self.ledger.collect(view, before)
        self.last_observed.observe(view)
        self.unknown = view.unknown
        if view.unknown is None and not view.has_equity:
            return self._observe_without_equity(view)
        if view.unknown is not None or view.equity is None:
            # A pass triggered by a push repeats the other accounts without polling them again.
            self.failures += view.scheduled
            events = self._settle(view, self.explanation.settle_available(view.available()))
            self._bound_equity(view)
            return events
        self.failures = 0
        self.unit_range = self.equity_ranges = None
        self._unavailable_accounts.clear()
        at = view.as_of
        events = self._append_row(view, view.equity)
        if self.last_at is not None and at - self.last_at > self.terms.max_gap:
            self.gaps.append((self.last_at, at))
        if self.begun_at is None:
            self.begun_at = at
        self.last_at = at
        self._forget_before(at - self._keep)
        if self._rebase_due is not None:
            self._rebase(accept=self._rebase_due)
        return events

    def _observe_without_equity(self, view: ScopeView) -> list[ChangeEvent]:
        """Observe a scope that is only a part of accounts: it has no unit value, and nothing is unexplained in it."""
        self.failures, self.unknown = 0, "the scope has no equity of its own"
        self.begun_at = view.as_of if self.begun_at is None else self.begun_at
        self.members |= {account.account for account in view.accounts}
        self.ledger.drop()
        return []

    def _bound_equity(self, view: ScopeView) -> None:
        """Bound the scope's equity while accounts are unavailable; adds no row.

        If none of its own accounts is available, everything stays unknown.
        """
        readable = view.available_accounts()
        if self.members.isdisjoint(readable) or self._equity is None or self._rebase_due is not None:
            self.unit_range = self.equity_ranges = None
            return
        trails = self.explanation.trails.items()
        last = {name: sound_account(trail.before) for name, trail in trails if trail.before is not None}
        available = view.available()
        unsettled = self.explanation.unsettled(available, available.profits())
        self.equity_ranges = self._unavailable_accounts.equity_ranges(
            readable, last, self.members, view.instruments, unsettled, view.rates_of(last)
        )
        self.unit_range = unit_range(view.as_of, total_of(self.equity_ranges), self.track.units, self.unit_range)

    @property
    def equity_range(self) -> MoneyRange | None:
        """The range of the members' equity while accounts are unavailable, without transfers since then."""
        return None if self.equity_ranges is None else total_of(self.equity_ranges)

    def with_available_view(self, view: ScopeView) -> History:
        """A copy with another view of the available accounts; it must not observe."""
        other = copy(self)
        other._unavailable_accounts = deepcopy(self._unavailable_accounts)
        other._bound_equity(view)
        return other

    def fast_forward(
        self, tail: Iterable[ObservedScope], highest: Decimal, at: Sequence[int], seen_at: Callable[[int], Decimal]
    ) -> None:
        """Add observations between which only prices moved, with the same result as `observe` for each.

        `tail` are the last of them, oldest first, as far back as the longest window; `highest` is the highest
        equity of all. Nothing may be unknown or unexplained, and none may come later than `max_gap` after another.
        `at`: when all of them are; `seen_at`: the equity of one, by its number.
        """
        units = self.track.units
        for seen in tail:
            value = float(seen.equity) / units
            self.track.value = value
            self.track.record(seen.at, value)
            if self.prices is not None:
                self.prices.add(seen.at, seen.marks)
            self.rows.append(UnitValueRow(seen.at, value, self._total(seen.pnl)))
            self.last_at, self._equity = seen.at, seen.equity
        opening_values = self.collectors.get(OpeningValues)
        if opening_values is not None:
            opening_values.skip(SkippedBars(at, lambda number: _anchored(at[number], seen_at(number), units)))
        self.changes.observe_peak(float(highest) / units, self.last_at or 0)
        self._peak_before = self.changes.peak
        self._forget_before((self.last_at or 0) - self._keep)

    @property
    def is_explained(self) -> bool:
        """Whether the newest observation is known, and no change, row or re-base is pending."""
        settled = not self.changes.all and not self.ledger.rows and not self.track.is_empty
        return self.unknown is None and self.explanation.complete and settled and self._rebase_due is None

    def _forget_before(self, edge: int) -> None:
        while self.rows[0].at < edge:
            self._by_side.pop(self.rows.popleft().at, None)
        while self.gaps and self.gaps[0][1] <= edge:
            self.gaps.popleft()

    def _append_row(self, view: ScopeView, equity: Decimal) -> list[ChangeEvent]:
        at, pnl = view.as_of, view.pnl()
        events = self._account_for(view, equity, view.profits())
        self.track.observe(at, float(equity), is_flat=_is_flat(view))
        value = self.track.value
        self._peak_before = self.changes.peak
        self.changes.observe_peak(value, at)
        self._by_side.pop(at, None)
        self.rows.append(UnitValueRow(at, value, self._total(pnl)))
        self._equity = self.equity = equity
        return events

    def _joined(self, view: ScopeView) -> Decimal:
        """The equity of accounts that join the scope, which is not a gain."""
        if len(view.accounts) == len(self.members):
            return ZERO
        new = [each for each in view.accounts if each.account not in self.members]
        self.members |= {account.account for account in view.accounts}
        brought = (view.converted(each.equity, each) for each in new if each.equity is not None)
        return ZERO if self._equity is None else sum(brought, ZERO)

    def _total(self, pnl: dict[PnlKey, Decimal] | None) -> dict[PnlKey, Decimal] | None:
        """Unrealised plus realised P&L per position, closed ones included."""
        realized = self.ledger.realized
        if pnl is None or not realized:
            return pnl
        total = dict(realized)
        if self.view is not None and self.view.reference is not None:
            total = {key: value * self.view.rate(key[0]) for key, value in realized.items()}
        for key, value in pnl.items():
            total[key] = total.get(key, ZERO) + value
        return total

    def highest_row(self, window: int) -> UnitValueRow:
        """The row of the highest unit value in the window, the latest of equal ones: nothing was lost between them."""
        at = self.track.highest_at(window)
        if at is not None:
            row = self.rows[bisect_left(self.rows, at, key=_time_of)]
            if row.at == at:
                return row
        edge = self.rows[-1].at - window
        return max((row for row in self.rows if row.at >= edge), key=lambda row: (row.value, row.at))

    def pnl_by_side(self, row: UnitValueRow) -> tuple[Decimal, Decimal]:
        """The P&L of a row's long and of its short positions, of rows whose P&L is known."""
        found = self._by_side.get(row.at)
        if found is None:
            long = short = ZERO
            for (_, _, side), made in (row.pnl or {}).items():
                if side == "long":
                    long += made
                else:
                    short += made
            found = self._by_side[row.at] = long, short
        return found

    # Explaining how equity changed

    def _account_for(self, view: ScopeView, equity: Decimal, profits: dict[str, Decimal | None]) -> list[ChangeEvent]:
        """Issue units for transfers, and record unexplained changes."""
        at, value = view.as_of, float(equity)
        rows = self.ledger.rows
        transferred = sum((it.amount * view.rate(it.account) for it in rows if it.moved), ZERO) if rows else ZERO
        joined = self._joined(view)
        found = self.explanation.explain(view, profits, self._equity)
        self.transferred = ZERO
        if self._equity is None:
            self.track.open(at, value)
            return []
        is_refilled = self.track.value <= 0.0 < min(float(transferred + joined), value)
        if is_refilled and self.changes.emptying(optimistic) is None:  # a fall that is pending may still be a loss
            self._restart_series(at, value)
            return [ChangeEvent("anew", transferred + joined)]
        if found == NO_CHANGES and not (joined or self.track.is_empty or self.changes.all or rows):
            return []
        for each in found.resolved:
            self._correct(at, each)
        flow = found.flow + joined
        if self.track.is_empty:
            events = self._add_at_no_units(found)
            came = sum((it.converted_amount for it in found.appeared if it.moved), flow)
            self.track.refill(float(self._equity + came), value)
        else:
            gone = self._emptying(view, equity, flow, found)
            before, was = float(self._equity + flow), self.track.value
            if gone is not None:
                self.track.redeem_all(float(gone.equity), gone.empty_below)
                before, was = float(gone.equity), self.track.value
            elif flow:
                self.track.issue(float(flow), value, least=self._least_value())
            events = self._add_changes(found, before, was, gone)
        self.transferred = flow + sum((it.converted_amount for it in found.appeared if it.moved), ZERO)
        return [*found.events, *events, *self._settle(view, self.explanation.settle(view))]

    def _emptying(self, view: ScopeView, equity: Decimal, flow: Decimal, found: ExplainedChanges) -> _Emptying | None:
        """How transfers took all but dust; None if they did not, or not for certain.

        Marks the falls that may have taken everything: pending ones, and those next to a contract, where nothing is
        empty.
        """
        before = self._equity or ZERO
        if equity + equity > before or not ZERO <= equity <= self._dust(before):
            return None
        dust = self._dust(before)
        falls = [each for each in found.appeared if each.amount < ZERO and not each.lost]
        moved = flow + sum((each.converted_amount for each in falls if each.kind == "money"), ZERO)
        is_flat = _is_flat(view)
        if is_flat and moved < ZERO and equity - moved > dust:
            return _Emptying(equity - moved, float(dust))
        for each in falls:
            if each.kind == "trade" or not is_flat:
                each.emptied = equity - each.converted_amount > dust
        return None

    def _least_value(self) -> float:
        """The least unit value for a deposit: that of dust while it is unknown whether all was lost, else none."""
        pending = self.changes.emptying(optimistic)
        return 0.0 if pending is None else float(self._dust(Decimal(pending.before))) / self.track.units

    def _dust(self, equity: Decimal) -> Decimal:
        """The equity at or below which a scope of `equity` without contracts is empty."""
        return equity * min(DUST, Decimal(str(self.terms.tolerance)))

    def _settle(self, view: ScopeView, settled: ExplainedChanges) -> list[ChangeEvent]:
        for each in settled.resolved:
            self._correct(view.as_of, each)
        return settled.events

    def _add_changes(
        self, found: ExplainedChanges, before: float, value: float, gone: _Emptying | None
    ) -> list[ChangeEvent]:
        """Add the new changes in order; those that emptied the scope are settled as transfers at once."""
        events = []
        emptying = self.changes.emptying(optimistic)
        if emptying is not None:
            before = max(before, float(self._dust(Decimal(emptying.before))))
        for change in found.appeared:
            change.before, change.value = before, value
            if change.is_open:
                pending = change.kind == "trade"
                events.append(ChangeEvent("appeared", change.converted_amount, pending=pending, change=change.id))
            if gone is not None and change.kind == "money" and change.amount < ZERO and change.is_open:
                change.emptied = change.moved = True
            else:
                before += float(change.converted_amount)
            self.changes.add(change)
        return events

    def _add_at_no_units(self, found: ExplainedChanges) -> list[ChangeEvent]:
        """Add the new changes of an empty scope: what comes buys units, and a change of dust has no effect."""
        for change in found.appeared:
            change.before, change.value, change.moved = 0.0, self.track.value, not change.lost
            self.changes.add(change)
        moved = [change for change in found.appeared if change.moved]
        return [ChangeEvent("appeared", change.converted_amount, change=change.id) for change in moved]

    def _correct(self, now: int, part: ResolvedChange) -> None:
        """Correct unit values after a change was resolved differently than it counted before."""
        if part.factor == 1.0 or not math.isfinite(part.factor):
            return
        value = part.value or self.track.value
        if part.undone:
            self.track.revert_correction(part.at, part.factor, value, part.before, float(self._equity or ZERO))
        else:
            dust = float(self._dust(Decimal(part.before))) if math.isfinite(part.before) else 0.0
            self.track.correct(part.at, part.factor, value, dust)
        amount = -part.amount if part.undone else part.amount
        correction = Correction(part.at, now, part.factor, value, part.undone, amount)
        self.corrected_now.append(correction)
        self.collectors.correct(correction)
        kept = [each for each in self._corrections if each.end > now - self._keep]
        self._corrections = [*kept, correction]
        self.rows = deque(corrected(row, correction) for row in self.rows)
        self._record_anew()

    def _record_anew(self) -> None:
        """Rebuild the windows of unit values from the rows."""
        self.track.clear_windows()
        for row in self.rows:
            self.track.record(row.at, row.value)

    def has_jumped(self) -> bool:
        """Whether the newest unit value is far above the previous one."""
        return len(self.rows) > 1 and self.rows[-1].value > JUMP * self.rows[-2].value

    def limit_peak(self, equity: Decimal) -> None:
        """Limit the newest observation to the unit value of `equity`, because a price in it was not corroborated."""
        if self.track.units <= 0.0:
            return
        value = min(self.rows[-1].value, float(equity) / self.track.units)
        self.rows[-1] = replace(self.rows[-1], value=value)
        self.changes.peak = max(self._peak_before, value)
        self._record_anew()
        self.collectors.follow(self, equity if self.equity is None else min(equity, self.equity))

    def retain_members(self, present: frozenset[str]) -> None:
        """Remove accounts that are no longer present, after an operator command; the rest begins a new series."""
        if self.members <= present:
            return
        self.members &= present
        self.ledger.joined = {name: at for name, at in self.ledger.joined.items() if name in self.members}
        self.explanation.retain_members(self.members)
        self._equity = None
        self._begin_series(None)

    def draw_out(self, names: frozenset[str]) -> None:
        """Accounts that the policy no longer draws into the scope: a redemption at their last value, no loss or gain.

        Where that value was never known, the rest begins a new series.
        """
        gone = self.members & names
        if not gone:
            return
        taken = self._last_equity(gone)
        self.members -= gone
        self.ledger.joined = {name: at for name, at in self.ledger.joined.items() if name in self.members}
        self.explanation.draw_out(gone)
        if self._equity is None:
            return
        left = None if taken is None else self._equity - taken
        if taken is None or left is None or left <= ZERO:
            self._equity = None
            self._begin_series(None)
            return
        self.track.issue(-float(taken), float(left))
        self._equity = self.equity = left

    def _last_equity(self, names: Iterable[str]) -> Decimal | None:
        """The sum of the last known equities of these accounts, in the scope's currency; None if one is not known."""
        found = ZERO
        for name in names:
            trail = self.explanation.trails.get(name)
            last = None if trail is None else trail.before
            if last is None or last.equity is None or self.view is None:
                return None
            found += last.equity * self.view.rate(name)
        return found

    def _restart_series(self, at: int, equity: float) -> None:
        self.track.open(at, equity)
        self.ledger.joined = dict.fromkeys(self.ledger.joined, at)
        self.ledger.drop()
        self.explanation.changes = UnexplainedChanges(peak=equity, peak_at=at)
        self._begin_series(at)

    def _begin_series(self, at: int | None) -> None:
        self._corrections = []
        self._by_side.clear()
        self.rows.clear()
        self.gaps.clear()
        self.begun_at, self.rebased = at, True
        self.collectors.begin_series()

    def accept_until(self, at: int, now: int) -> bool:
        """Settle unexplained changes up to `at` as transfers, by an operator's reset processed `now` (microseconds).

        Returns whether there were any.
        """
        before = len(self.changes.unexplained)
        for each in self.changes.accept_until(at):
            self._correct(now, each)
        return len(self.changes.unexplained) < before

    def restate(self, change: str, cause: ChangeCause, now: int) -> list[Correction]:
        """Restate an unexplained change as an operator knows its cause; returns the corrections of unit values."""
        before = len(self.corrected_now)
        self.collectors.restate(change, cause, now)
        for each in self.explanation.restate(change, cause).resolved:
            self._correct(now, each)
        return self.corrected_now[before:]

    def rebase(self, *, accept: bool) -> None:
        """Reset the history: windows begin now and count as complete; with `accept`, the peak and the start as well.

        While equity is unknown, those of equity begin with the next known one.
        """
        if self.view is not None:
            self.collectors.restart(self.view.as_of, accept=accept)
        self._rebase(accept=accept)

    def _rebase(self, *, accept: bool) -> None:
        self._rebase_due = accept if self.unknown is not None else None
        self.rows = deque([self.rows[-1]] if self.rows and self._rebase_due is None else [])
        self._by_side.clear()
        self.gaps.clear()
        self._record_anew()
        self.rebased, self.begun_at = True, self.last_at if self._rebase_due is None else None
        if accept and self.last_at is not None:
            self.track.accept(self.last_at)
            self.changes.accept(self.track.value, self.last_at)

    def with_equity(self, equity: Decimal) -> History:
        """A copy with another current equity; it shares the past, so it must not observe."""
        other = copy(self)
        other.track, other.equity = self.track.with_equity(float(equity)), equity
        return other

    def with_worst_interpretation(self) -> History:
        """A copy that uses the worst interpretation of every open change; it must not observe."""
        other = copy(self)
        other.interpretations = (suspicious, suspicious)
        emptied = [it for it in self.changes.suspects(self.last_at or 0) if it.moved]
        if emptied and self.track.is_empty:
            other.track = copy(self.track)
            last = emptied[-1]
            other.track.revert_correction(last.at, 0.0, last.value, last.before, float(self._equity or ZERO))
        return other

    # Serialising

    def observed_last(self, live: History) -> None:
        """Continue from the last view of a history that this one replaces during a run."""
        self.view, self.unknown = live.view, live.unknown
        self.unit_range, self.equity_ranges = live.unit_range, live.equity_ranges

    def state(self) -> HistoryState:
        """The state to store with the rows."""
        ledger, trails, arrived = self.explanation.state()
        return HistoryState(
            begun_at=self.begun_at, rebased=self.rebased, rebase_due=self._rebase_due, last_at=self.last_at,
            gaps=list(self.gaps), track=self.track.state(), changes=self.changes.all,
            peak=self.changes.peak, peak_at=self.changes.peak_at,
            corrections=self._corrections, equity=self._equity,
            failures=self.failures, members=sorted(self.members), ledger=ledger, trails=trails,
            observed=self.last_observed.at, awaited=self.last_observed.awaited, arrived=arrived,
            collected=self.collectors.state(),
        )  # fmt: skip

    def restore(
        self,
        state: HistoryState,
        rows: Iterable[StoredUnitValueRow],
        samples: Iterable[Sequence[StoredSamples]] = (),
    ) -> None:
        """Restore a stored history of the same policy; its windows may differ. `samples`: of prices, oldest first."""
        self.begun_at, self.rebased, self._rebase_due = state.begun_at, state.rebased, state.rebase_due
        self.last_at, self.gaps, self.failures = state.last_at, deque(state.gaps), state.failures
        self._corrections, self._equity, self.equity = state.corrections, state.equity, state.equity
        self.members = frozenset(state.members)
        self.last_observed = LastObserved(dict(state.observed), dict(state.awaited))
        trails = state.trails or _before_trails(state)
        if self.members:
            for change in state.changes:  # state of versions in which changes belonged to the scope
                change.account = change.account or min(self.members)
        self.explanation.restore(
            state.ledger, trails, UnexplainedChanges(state.changes, state.peak, state.peak_at), state.arrived
        )
        self.track.restore(state.track)
        self.collectors.restore(state.collected)
        for row in rows:
            if self.prices is not None and row.marks is not None:  # of an earlier version
                self.prices.add(row.at, {(account, symbol): mark for account, symbol, mark in row.marks})
            if self.begun_at is not None and row.at >= self.begun_at:  # rows before a reset are dropped
                self._replay(row)
        if self.prices is not None:
            for each in samples:
                self.prices.replay(each)

    def _replay(self, stored_row: StoredUnitValueRow) -> None:
        row = decode_row(stored_row)
        for correction in self._corrections:
            if row.at < correction.end:
                row = corrected(row, correction)
        self.rows.append(row)
        self.track.record(row.at, row.value)


def _anchored(at: int, equity: Decimal, units: float) -> AnchoredValue:
    return AnchoredValue(at, float(equity) / units, equity)


def _is_flat(view: ScopeView) -> bool:
    """Whether the scope is known to hold no contracts; holdings are none, since they are the money."""
    return all(
        account.market in HOLDINGS
        or (account.positions is not None and not any(each.contracts for each in account.positions))
        for account in view.accounts
    )


def _before_trails(state: HistoryState) -> dict[str, AccountTrailState]:
    """The trail of a single account, from state stored by versions without trails."""
    if state.equity is None or state.last_at is None or len(state.members) != 1:
        return {}
    (name,) = state.members
    last = AccountSnapshot(name, "", "swap", "", "ok", equity=state.equity, unrealized=state.open_pnl)
    return {name: AccountTrailState(last, state.last_at, state.open_pnl)}
