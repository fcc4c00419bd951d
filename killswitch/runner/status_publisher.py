"""Writes the blob that `ksctl status` reads, after every tick."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from msgspec import structs

from killswitch.graph.nodes import PolicySet
from killswitch.model.store import Store
from killswitch.planning.tick import Interpreter
from killswitch.runner.clock import Timeline
from killswitch.runner.dead_man.memory import TimerView
from killswitch.runner.observers import TickReport
from killswitch.runner.status_blob import (
    LIVE_NAME,
    RunnerView,
    account_view,
    encode_view,
    machine_views,
    orphan_views,
    unfinished_close_views,
)

LOOKED_BACK = 10
"""Number of scheduled ticks among which the longest distance is shown."""


@dataclass(eq=False)
class StatusPublisher:
    """An observer that stores what `ksctl status` shows."""

    store: Store
    interpreter: Interpreter
    policies: PolicySet
    armed: frozenset[str]
    timeline: Timeline
    view: RunnerView
    """The run itself as `status` shows it; each tick completes it."""
    _ticked_at: deque[datetime] = field(init=False, default_factory=lambda: deque(maxlen=LOOKED_BACK))

    def ticked(self, report: TickReport) -> None:
        snapshot = report.snapshot
        if snapshot.scheduled:
            self._ticked_at.append(snapshot.as_of)
        self._put(
            structs.replace(
                self.view,
                as_of=snapshot.as_of,
                ticks=self.view.ticks + snapshot.scheduled,  # a pass woken by a push is not counted as a tick
                duration_ms=round(report.seconds * 1000, 3),
                accounts=tuple(account_view(each, armed=each.account in self.armed) for each in snapshot.accounts),
                machines=machine_views(self.interpreter.status(), self.policies),
                closings=snapshot.closings,
                problems=report.problems,
                orphans=orphan_views(self.interpreter.orphans()),
                streams=report.streams,
                timers=report.timers,
                suspended=report.suspended,
                apart=max((round((b - a).total_seconds(), 3) for a, b in pairwise(self._ticked_at)), default=None),
                clock=self.timeline.state(),
                unfinished_closes=unfinished_close_views(self.interpreter.unfinished_closes()),
            )
        )

    def stopped(self, timers: tuple[TimerView, ...], problems: tuple[str, ...]) -> None:
        """Update timers and problems at a clean stop."""
        if self.view.clock is not None:
            self._put(structs.replace(self.view, timers=timers, problems=problems))

    def _put(self, view: RunnerView) -> None:
        self.view = view
        self.store.put_live(LIVE_NAME, encode_view(view))
