"""The job of one decision on one account: its targets, cancels, timetable and outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from itertools import groupby

from killswitch.execution.decide.ladder import MARKET
from killswitch.execution.decide.target_verdict import TargetAction, TargetVerdict
from killswitch.execution.state.intents import position_targets
from killswitch.journal.entries import (
    Cancelled,
    Entry,
    Finished,
    GivenUp,
    PositionKey,
    Undecodable,
    WholeBookClose,
    is_plan,
    known,
)
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget, TargetName
from killswitch.model.decision import Cancel, Decision, Unwinding
from killswitch.model.snapshot import Closing, ClosingStatus, Instrument, Residual

_AFTER_FEES = Decimal("0.98")
"""No venue charges more than two percent of a sale."""


class AccountJob:
    """The job of one decision on one account, folded from the decision and its journal entries."""

    def __init__(
        self, decision: Decision, account: str, entries: Sequence[Entry] = (), *, is_enforced: bool = False
    ) -> None:
        """Fold `entries`, the decision's journal in sequence; those of other accounts are skipped.

        `is_enforced`: whether the account's venue is known to enforce reduce-only.
        """
        self.decision = decision
        self.account = account
        self.targets = position_targets(decision, account, is_enforced=is_enforced)
        self._by_key = {target.key: target for target in self.targets}
        unwinding = decision.unwinding
        self.ladder = unwinding.ladder if unwinding is not None and unwinding.ladder else MARKET
        self.timetable = Timetable(unwinding)
        self.cancels = [cancel for cancel in decision.cancels if cancel.account == account]
        self._uncancellable: dict[str, str] = {}
        self._in_turn = _in_turn(decision, account)
        self.unsupplied: set[TargetName] = set()
        """Hops whose preceding sale brought in an unknown amount."""
        self.short: set[TargetName] = set()
        """Hops for which less has arrived than the sale was paid, by more than fees can explain."""
        self.planned: int | None = None
        """The journal sequence at which the job begins; None if the decision planned nothing on this account."""
        self.finished: Finished | None = None
        self.given_up: str | None = None
        """Which operator gave up the job, and why; None if nobody did. No order is sent for such a job."""
        for entry in entries:
            if entry.account == account:
                self._apply(entry, PositionTarget.replay)

    def apply(self, entry: Entry) -> None:
        """Apply one new entry of this decision on this account. ForbiddenTransitionError if it cannot follow."""
        self._apply(entry, PositionTarget.apply)

    def _apply(self, entry: Entry, apply: Callable[[PositionTarget, Entry], None]) -> None:
        if self.planned is None and is_plan(entry):
            self.planned = entry.sequence
        match entry:
            case Finished():
                self.finished = entry
                touched: Sequence[PositionTarget] = self.targets
            case WholeBookClose():
                touched = [target for target in self.targets if target.state is TargetState.READY]
            case Undecodable() if entry.key is None:
                touched = self.targets
            case GivenUp():
                author, why = entry.author or "unknown", entry.reason or "no reason given"
                self.given_up = f"given up by {author}: {why}"
                return
            case Cancelled():
                self.cancels = [cancel for cancel in self.cancels if cancel.order != entry.order]
                return
            case _:
                target = self.target_of(entry)
                touched = () if target is None else (target,)
        for target in touched:
            apply(target, entry)

    def check(self, entry: Entry) -> None:
        """Raise what `apply` would raise, and change nothing: an entry that cannot be folded must not be written."""
        touched = self.targets if isinstance(entry, Finished) else [self.target_of(entry)]
        for target in touched:
            if target is not None:
                target.check(entry)

    def target_at(self, key: PositionKey) -> PositionTarget | None:
        """The target of a position; None if the job has none."""
        return self._by_key.get(key)

    def target_of(self, entry: Entry) -> PositionTarget | None:
        """The target that `entry` is about; None if there is none in this job."""
        return None if entry.key is None else self._by_key.get(entry.key)

    def turn(self, is_over: Callable[[PositionTarget], bool]) -> PositionKey | None:
        """The position whose turn it is, where planning interleaved the slices of several positions; None elsewhere.

        A target for which `is_over` holds, or whose last order filled nothing, does not delay the others.
        """
        if not self._in_turn:
            return None
        done = {target.key: target.filled for target in self.targets}
        for key, contracts in self._in_turn:
            target = self._by_key[key]
            if done[key] >= contracts:
                done[key] -= contracts
            elif not (is_over(target) or target.attempts_without_fill or target.state is TargetState.AT_TARGET):
                return key
        return None

    def supply(self, target: PositionTarget, shown: Decimal, instrument: Instrument | None) -> None:
        """Set the amount that a hop sells: what the orders before it have brought in so far, in whole steps.

        It is what they were paid, as far as it has arrived: a fee may have been deducted. `shown`: the position in
        the hop's symbol. While much less has arrived, the venue's positions may lag: the hop is `short`.
        """
        if target.purpose != "hop" or target.after is None:
            return
        received = [each.proceeds for each in self._sources(target)]
        if not received or None in received:
            # The proceeds are unknown: they cannot be separated from what was held before.
            self.unsupplied.add(target.name)
            return
        size = (instrument.contract_size if instrument is not None else None) or Decimal(1)
        paid = sum((each for each in received if each is not None), ZERO) / size
        arrived = max(ZERO, shown + target.filled - target.kept_holding)
        (self.short.add if arrived < paid * _AFTER_FEES else self.short.discard)(target.name)
        available = min(paid, arrived)
        if instrument is not None and instrument.amount_step:
            available = (available / instrument.amount_step).to_integral_value(ROUND_FLOOR) * instrument.amount_step
        target.decided = target.largest = max(available, target.filled)

    def _sources(self, target: PositionTarget) -> list[PositionTarget]:
        """The sales whose proceeds a hop sells: several holdings may be sold through one asset."""
        intents = self.decision.intents
        places = dict.fromkeys(
            (intents[hop.after].symbol, intents[hop.after].position_side)
            for hop in intents
            if hop.after is not None
            and 0 <= hop.after < len(intents)
            and hop.account == self.account
            and (hop.symbol, hop.position_side) == target.key
        )
        return [self._by_key[key] for key in places if key in self._by_key]

    def due_cancels(self, *, after_closing: bool) -> list[Cancel]:
        """Due cancels: entry orders at once, others after closing or once an order blocks the close of its symbol."""
        blocked = {target.symbol for target in self.targets if target.is_blocked}
        return [
            cancel
            for cancel in self.cancels
            if cancel.order not in self._uncancellable
            and (after_closing or cancel.why == "entry" or cancel.symbol in blocked)
        ]

    def cancels_all(self, order: str) -> bool:
        """Whether the decision cancels this order permanently."""
        return any(cancel.order == order for cancel in self.decision.cancels)

    @property
    def has_uncancellable(self) -> bool:
        """Whether an order could not be cancelled, so that the job does not end as flat."""
        return bool(self._uncancellable)

    def cannot_cancel(self, cancel: Cancel, why: str) -> None:
        """Record that the venue refuses to cancel this order: it is reported, and not retried in this process."""
        self._uncancellable[cancel.order] = why

    def result(self, at: datetime, verdicts: Sequence[TargetVerdict], shown: Mapping[PositionKey, Decimal]) -> Finished:
        """The outcome: status, reason if not flat, cost, delay, and what is left of each position."""
        status, reason = self._outcome(verdicts)
        return Finished(
            self.decision.id,
            at,
            self.account,
            status=status,
            reason=reason,
            cost=self.cost(),
            delay=self.delay(),
            left=self._left(shown),
        )

    def _outcome(self, verdicts: Sequence[TargetVerdict]) -> tuple[ClosingStatus, str | None]:
        reasons = [verdict.reason for verdict in verdicts if verdict.reason]
        reasons += [f"order {order} cannot be cancelled: {why}" for order, why in self._uncancellable.items()]
        without_status = [name for target in self.targets for name in target.abandoned]
        reasons += [f"the status of order {name} was never known" for name in without_status]
        if not reasons:
            return "flat", None
        if without_status or any(verdict.do is TargetAction.ABANDON for verdict in verdicts):
            return "abandoned", "; ".join(reasons)
        blocked = all(verdict.do is not TargetAction.GIVE_UP for verdict in verdicts)
        return ("blocked" if blocked else "residual"), "; ".join(reasons)

    def closing(self, shown: Mapping[PositionKey, Decimal]) -> Closing:
        """The progress so far, for the next snapshot. `shown`: positions as last polled and trusted."""
        status: ClosingStatus
        if self.finished is not None:
            recorded = {target.key: known(self.finished.left.get(target.key)) for target in self.targets}
            left = {key: amount for key, amount in recorded.items() if amount is not None}
            status, cost = self.finished.final_status, known(self.finished.cost)
        else:
            has_begun = any(target.attempt > 0 or target.state is TargetState.AT_TARGET for target in self.targets)
            left, status, cost = self._left(shown), "closing" if has_begun else "planned", self.cost()
        residual = tuple(Residual(self.account, *key, amount) for key, amount in left.items())
        return Closing(self.decision.id, status, residual, cost, self.decision.scope)

    def _left(self, shown: Mapping[PositionKey, Decimal]) -> dict[PositionKey, Decimal]:
        """The positions not at their targets, and how far each is from it."""
        return {target.key: left for target in self.targets if (left := _distance(target, shown)) > ZERO}

    def cost(self) -> Decimal | None:
        """Fees and slippage so far, never below 0; None if a part of it is unknown."""
        total = _total(target.cost for target in self.targets)
        return None if total is None else max(ZERO, total)

    def delay(self) -> Decimal | None:
        """What the market's move before the orders cost so far, below 0 where it gained; None if a part is unknown."""
        return _total(target.delay for target in self.targets)


def _total(parts: Iterable[Decimal | None]) -> Decimal | None:
    """The sum; None if a part is unknown."""
    amounts = list(parts)
    return None if None in amounts else sum((part for part in amounts if part is not None), ZERO)


def _in_turn(decision: Decision, account: str) -> list[tuple[PositionKey, Decimal]]:
    """Positions and contracts of an account's slices, if the slices of several positions are interleaved; else none."""
    mine = [each for each in decision.intents if each.account == account and each.purpose == "reduce"]
    slices: list[tuple[PositionKey, Decimal]] = [((each.symbol, each.position_side), each.contracts) for each in mine]
    runs = [key for key, _ in groupby(key for key, _ in slices)]
    return slices if len(runs) > len(set(runs)) else []


def _distance(target: PositionTarget, shown: Mapping[PositionKey, Decimal]) -> Decimal:
    if target.state is TargetState.AT_TARGET:
        return ZERO
    if target.is_counted_by_fills:
        return target.remaining
    if target.key in shown:
        return shown[target.key] - target.target_size
    return target.decided - target.filled


class Timetable:
    """Evenly spaced order times of one decision on one account, and a pause between two slices of a position.

    Times are counted from the first order, so that one late order does not delay the others. After a restart the
    timetable starts again, with at most one order more than declared in the first minute.
    """

    def __init__(self, unwinding: Unwinding | None) -> None:
        per_minute = None if unwinding is None else unwinding.max_orders_per_minute
        self._every = 0.0 if not per_minute else 60.0 / per_minute
        self._pause = (unwinding.pause or 0.0) if unwinding is not None else 0.0
        self._next: float | None = None
        self._last: dict[tuple[str, str], float] = {}
        self._before: dict[TargetName, tuple[float | None, float | None]] = {}

    @property
    def is_declared(self) -> bool:
        """Whether the policy declares any pace."""
        return bool(self._every or self._pause)

    def due(self, target: PositionTarget) -> float:
        """Monotonic seconds at which the target's next order is due."""
        slice_due = self._last.get(target.key, float("-inf")) + self._pause
        return slice_due if self._next is None else max(self._next, slice_due)

    def record_sent(self, target: PositionTarget, now: float) -> None:
        """Record that an order of the target is sent at `now`."""
        self._before[target.name] = (self._next, self._last.get(target.key))
        if self._every:
            planned = now if self._next is None else self._next
            # A long wait for something else is not followed by a burst of orders.
            self._next = max(planned, now - self._every) + self._every
        if self._pause:
            self._last[target.key] = now

    def undo_sent(self, target: PositionTarget) -> None:
        """Undo `record_sent` for an order that was not sent, nor any order after it."""
        self._next, last = self._before.pop(target.name, (self._next, None))
        if last is None:
            self._last.pop(target.key, None)
        else:
            self._last[target.key] = last
