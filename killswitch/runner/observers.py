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
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, Snapshot
from killswitch.model.tracing import AS_OF, Span
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.dead_man.memory import TimerView
from killswitch.store.errors import StoreError


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


class Witnesses:
    """All who watch one run."""

    def __init__(self, witnesses: tuple[Witness, ...]) -> None:
        self._witnesses = witnesses
        self._failing: dict[int, str] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        """Who could not take in the last report, and why; and what is wrong in the background."""
        behind = (witness.problem for witness in self._witnesses if isinstance(witness, Troubled))
        return (*self._failing.values(), *(problem for problem in behind if problem is not None))

    def tell(self, report: TickReport) -> None:
        """Tell every one of them. What fails is a problem until it works again; raises only StoreError."""
        for number, witness in enumerate(self._witnesses):
            try:
                witness.ticked(report)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - a full disk under the output must not leave positions open
                self._failing[number] = f"{type(witness).__name__} cannot be told what happens: {error}"
            else:
                self._failing.pop(number, None)

    def stopped(self, timers: tuple[TimerView, ...], problems: tuple[str, ...]) -> None:
        """A clean stop: how it left the venues' timers, and what is still wrong. Raises only StoreError."""
        for witness in self._witnesses:
            if isinstance(witness, Lasting):
                witness.stopped(timers, problems)


def describe(span: Span, report: TickReport) -> None:
    """Say on the tick's span what came of it."""
    span.set(AS_OF, to_micros(report.snapshot.as_of))
    span.set("killswitch.scheduled", report.snapshot.scheduled)
    span.set("killswitch.streams.silent", sum(stream.state != "heard" for stream in report.streams))
    span.set("killswitch.timers.armed", sum(timer.state == "armed" for timer in report.timers))
    span.set("killswitch.decisions", len(report.decisions))
    span.set("killswitch.acting_on", len(report.acting_on))
    span.set("killswitch.notices", len(report.notices))
    span.set("killswitch.problems", len(report.problems))


def unsaid(notices: tuple[Notice, ...], snapshot: Snapshot) -> tuple[Notice, ...]:
    """The notices but those of a close that left something: its end is told to people as such."""
    said = {shortfall(closing) for closing in snapshot.closings}
    return tuple(notice for notice in notices if notice.text not in said)


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
