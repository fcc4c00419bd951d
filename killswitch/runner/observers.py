"""Observers of a run, notified after acting. A failing observer affects nobody else.

Only the store can: a runner that cannot record must not act.

Whatever goes wrong there, foreseen or not, is a problem that is paged, and the pass goes on to close (ADR 0115). Only
the store ends a run: a runner that cannot record must not act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from killswitch.accounts.poll.poller import FIRST_ANSWER
from killswitch.accounts.poll.push_listener import StreamView
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import AccountSnapshot, Closing, Snapshot
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.dead_man.memory import TimerView


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one tick saw, decided and set going."""

    snapshot: Snapshot
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]
    acting_on: tuple[str, ...]
    """Ids of the decisions that are acted on; the others are recorded only."""
    problems: tuple[str, ...]
    """What is wrong with the runner's own means (locks, closing, recording), in words, for as long as it is."""
    seconds: float
    machines: Callable[[], tuple[MachineStatus, ...]] = tuple
    """Every policy on every scope as the tick left it; worked out when asked, and true until the next tick."""
    streams: tuple[StreamView, ...] = ()
    """The private streams that are listened to."""
    timers: tuple[TimerView, ...] = ()
    """The venues' dead-man timers."""
    suspended: tuple[str, ...] = ()
    """Accounts whose broker refuses every new order by our word."""


class Witness(Protocol):
    """Whoever watches a run: the terminal, the status blob."""

    def ticked(self, report: TickReport) -> None: ...


@runtime_checkable
class Troubled(Protocol):
    """A witness that works in the background, and may have something to complain of when it is not spoken to."""

    @property
    def problem(self) -> str | None: ...


@runtime_checkable
class Lasting(Protocol):
    """A witness whose word is read after the run, and must not say then what is over."""

    def stopped(self, timers: tuple[TimerView, ...], problems: tuple[str, ...]) -> None: ...


def reading_words(account: AccountSnapshot) -> str:
    """How an account could not be read, as what it is said to be; empty where it could."""
    if account.quality == "ok":
        return ""
    reason = account.reason or "no reason given"
    # Nobody has said yet that anything is wrong with it.
    return f"not read yet: {reason}" if reason.startswith(FIRST_ANSWER) else f"{account.quality}: {reason}"


def shortfall(closing: Closing) -> str | None:
    """What a person must know of a closing that has ended and left something; None for all others."""
    if closing.status not in ("residual", "blocked", "abandoned"):
        return None
    residual = closing.residual
    left = ", ".join(f"{r.contracts.normalize():f} {r.symbol} {r.position_side} on {r.account}" for r in residual)
    end = f"the closing of decision {closing.decision} ended {closing.status}"
    return f"{end}; left: {left or 'no position known'} (ksctl explain {closing.decision} says why)"
