"""Writes the blob that `ksctl status` reads, after every tick."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from itertools import pairwise

import msgspec
from msgspec import structs

from killswitch.graph.nodes import PolicySet
from killswitch.model.store import Store
from killswitch.planning.tick import Interpreter
from killswitch.runner.clock import Timeline
from killswitch.runner.dead_man.memory import TimerView
from killswitch.runner.loop import TickReport
from killswitch.runner.status_blob import (
    LIVE_NAME,
    RunnerView,
    account_view,
    decode_view,
    encode_view,
    machine_views,
    orphan_views,
    unfinished_close_views,
)

LOOKED_BACK = 10
"""Of so many of the newest scheduled ticks, the two that are farthest apart are shown."""


class Publisher:
    """A witness that leaves what it saw in the store."""

    def __init__(
        self,
        store: Store,
        interpreter: Interpreter,
        policies: PolicySet,
        armed: frozenset[str],
        *,
        timeline: Timeline,
        owner: str,
        started_at: datetime,
        interval: float,
        live: bool,
        paths: tuple[str, ...],
        lock_folder: str | None,
        union: str | None,
    ) -> None:
        self._store = store
        self._interpreter = interpreter
        self._policies = policies
        self._armed = armed
        self._timeline = timeline
        self._owner = owner
        self._started_at = started_at
        self._interval = interval
        self._live = live
        self._paths = paths
        # An unarmed run writes no locks; where the last armed one wrote them must not be forgotten for it.
        self._lock_folder, self._union = (lock_folder, union) if armed else _known_places(store, lock_folder, union)
        self._ticks = 0
        self._ticked_at: deque[datetime] = deque(maxlen=LOOKED_BACK)
        self._view: RunnerView | None = None

    def ticked(self, report: TickReport) -> None:
        snapshot = report.snapshot
        self._ticks += snapshot.scheduled  # a pass woken by a push is not counted as a tick
        if snapshot.scheduled:
            self._ticked_at.append(snapshot.as_of)
        view = RunnerView(
            owner=self._owner,
            started_at=self._started_at,
            as_of=snapshot.as_of,
            ticks=self._ticks,
            duration_ms=round(report.seconds * 1000, 3),
            interval=self._interval,
            live=self._live,
            policies=self._paths,
            policy_set=self._policies.digest,
            lock_folder=self._lock_folder,
            union=self._union,
            accounts=tuple(account_view(each, armed=each.account in self._armed) for each in snapshot.accounts),
            machines=machine_views(self._interpreter.status(), self._policies),
            closings=snapshot.closings,
            problems=report.problems,
            orphans=orphan_views(self._interpreter.orphans()),
            streams=report.streams,
            timers=report.timers,
            suspended=report.suspended,
            apart=max((round((b - a).total_seconds(), 3) for a, b in pairwise(self._ticked_at)), default=None),
            clock=self._timeline.state(),
            unfinished_closes=unfinished_close_views(self._interpreter.unfinished_hands()),
        )
        self._view = view
        self._store.put_live(LIVE_NAME, encode_view(view))

    def stopped(self, timers: tuple[TimerView, ...], problems: tuple[str, ...]) -> None:
        """What a clean stop has changed since the last tick."""
        if self._view is not None:
            self._store.put_live(LIVE_NAME, encode_view(structs.replace(self._view, timers=timers, problems=problems)))


def _known_places(store: Store, lock_folder: str | None, union: str | None) -> tuple[str | None, str | None]:
    """Lock folder and union of the last run here, where it had any; else those given."""
    blob = store.live(LIVE_NAME)
    try:
        view = None if blob is None else decode_view(blob)
    except msgspec.DecodeError:
        view = None  # written by another version, which can only be asked for again
    return (lock_folder, union) if view is None or view.lock_folder is None else (view.lock_folder, view.union)
