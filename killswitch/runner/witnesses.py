"""Whoever watches a run. They are told after the acting, and none of them can end the run or keep another in the dark.

Only the store can: a runner that cannot record must not act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Snapshot
from killswitch.planning.readings import MachineStatus
from killswitch.runner.deadman_memory import TimerView
from killswitch.runner.listening import StreamView
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
