"""Observers of a run: what they receive after each tick, and what they may offer.

They are notified after acting. A failing observer affects nobody else (ADR 0104).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Protocol, runtime_checkable

from msgspec import UNSET, Struct, UnsetType

from killswitch.accounts.poll.push_listener import StreamView
from killswitch.execution.effects.performing import PendingEffect, RunEnd
from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import ENDED_SHORT, AccountSnapshot, Closing, Snapshot
from killswitch.planning.exposures import Exposures
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.dead_man.timer_record import TimerView
from killswitch.runner.hot_reload import TakenSet


class RunnerFacts(Struct, frozen=True, kw_only=True):
    """What only the runner knows: the loop fills it at each tick, and `status` shows it.

    A default is for the view of an older runner.
    """

    streams: tuple[StreamView, ...] = ()
    """The private streams."""
    timers: tuple[TimerView, ...] = ()
    """The venues' dead-man timers."""
    suspended: tuple[str, ...] = ()
    """Accounts whose broker refuses every new order at this program's request."""
    pending_effects: tuple[PendingEffect, ...] | UnsetType = UNSET
    """Effects other than orders, cancels and locks that wait for something, such as an exit; absent if none does."""
    run_end: RunEnd | UnsetType = UNSET
    """How an effect ends the run after this pass; absent if none does."""


class TickReport(Struct, frozen=True):
    """The outcome of one tick: its snapshot, decisions, notices and problems."""

    snapshot: Snapshot
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]
    acting_on: tuple[str, ...]
    """Ids of the decisions that are acted on; the others are recorded only."""
    problems: tuple[str, ...]
    """Current problems of the runner itself: locks, closing, recording, streams, timers."""
    seconds: float
    machines: Callable[[], tuple[MachineStatus, ...]] = tuple
    """The state of every policy on every scope after the tick; computed on call, valid until the next tick."""
    runner: RunnerFacts = RunnerFacts()
    exposures: Callable[[], Exposures | None] = lambda: None
    """Exposure and P&L of the book after the tick; computed on call, valid until the next tick."""
    awaited: frozenset[str] = frozenset()
    """Accounts whose venue has not answered yet and is not overdue: nothing is known to be wrong with them."""

    def outage(self, account: AccountSnapshot) -> str:
        """Why an account of the snapshot could not be polled, for people; empty if it could."""
        if account.quality == "ok":
            return ""
        what = "not polled yet" if account.account in self.awaited else account.quality
        return f"{what}: {account.reason or 'no reason given'}"


class Observer(Protocol):
    """An observer of a run, such as the terminal or the status blob."""

    def ticked(self, report: TickReport) -> None: ...


@runtime_checkable
class HasAlerts(Protocol):
    """An observer that works in the background and reports problems of its own."""

    @property
    def alerts(self) -> Alerts: ...


@runtime_checkable
class CommandsByPolls(Protocol):
    """An observer that may store commands because of what was polled: called before the same tick decides."""

    def polled(self, accounts: tuple[AccountSnapshot, ...]) -> None: ...


@runtime_checkable
class HoldsPolicies(Protocol):
    """An observer that holds the policy set, and takes the next one between two ticks."""

    def reload(self, taken: TakenSet) -> None: ...


@runtime_checkable
class NotifiedOfLastPositions(Protocol):
    """An observer whose output is read after the run, and must show what the closes after the last tick have left."""

    def last_seen(self, accounts: tuple[AccountSnapshot, ...], closings: tuple[Closing, ...]) -> None: ...


@runtime_checkable
class NotifiedOfStop(Protocol):
    """An observer whose output is read after the run, and must be corrected at a clean stop."""

    def stopped(self, timers: tuple[TimerView, ...], problems: tuple[str, ...]) -> None: ...


@runtime_checkable
class SendsRequests(Protocol):
    """An observer with requests under way, which the end of a run cancels."""

    async def abandon(self) -> None: ...


def shortfalls(closings: Iterable[Closing]) -> Alerts:
    """A page for each closing that ended with positions left, and for each that leaves more positions or contracts."""
    return Alerts(
        tuple(
            Alert(
                f"shortfall/{each.decision}/{each.status}", "page", _shortfall_message(each),
                NoticeGroup("runner", "runner", "warning", each.decision),
                measure=(Decimal(len(each.residual)), sum((left.contracts for left in each.residual), Decimal(0))),
                lasts=False,
            )
            for each in closings
            if each.status in ENDED_SHORT
        )
    )  # fmt: skip


def _shortfall_message(closing: Closing) -> str:
    residual = closing.residual
    left = ", ".join(f"{r.contracts.normalize():f} {r.symbol} {r.position_side} on {r.account}" for r in residual)
    end = f"the closing of decision {closing.decision} ended {closing.status}"
    left = f"left: {left}" if left else "no position is known to miss its target; check them at the venue"
    return f"{end}; {left} (ksctl explain {closing.decision} says why)"
