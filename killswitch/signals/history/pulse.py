"""Collectors of what machines report at each tick: latencies of polls, the lateness of ticks, heartbeats;
and the age of each account's last observation, over restarts too."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct, field
from msgspec import json as msgjson

from killswitch.model.instant import SECOND, to_micros
from killswitch.signals.history.collector import Collector, Needs

if TYPE_CHECKING:
    from killswitch.model.snapshot import AccountSnapshot
    from killswitch.valuation.scope_view import ScopeView

_SLACK = 256
"""Polls that are forgotten before the memory of a window is compacted."""
ROUNDING = 1e-9
"""By how much 1 − q may differ from the fraction that is written."""


def quantile(ordered: array[int], q: float) -> float:
    """The quantile of sorted numbers by linear interpolation (type 7 of Hyndman and Fan 1996, NumPy's default)."""
    place = (len(ordered) - 1) * q
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


class _Window:
    """The latencies of one account in one window (microseconds), sorted."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._at = array("q")
        self._latency = array("q")
        self._begin = 0
        """The index of the first poll that is not forgotten."""
        self.ordered = array("q")

    def add(self, at: int, latency: int) -> None:
        self._at.append(at)
        self._latency.append(latency)
        insort(self.ordered, latency)

    def advance(self, now: int) -> None:
        """Drop what is older than the window; both ends are included."""
        edge = now - self._length
        while self._begin < len(self._at) and self._at[self._begin] < edge:
            del self.ordered[bisect_left(self.ordered, self._latency[self._begin])]
            self._begin += 1
        if self._begin > _SLACK and self._begin * 2 > len(self._at):
            del self._at[: self._begin], self._latency[: self._begin]
            self._begin = 0

    @property
    def times(self) -> list[int]:
        """When each poll was, in order."""
        return self._at[self._begin :].tolist()

    @property
    def latencies(self) -> list[int]:
        """The latency of each poll, in order of time."""
        return self._latency[self._begin :].tolist()


class _LatencyState(Struct):
    """The samples of the longest window: each time as the distance from the one before, and the latencies."""

    times: dict[str, list[int]]
    latencies: dict[str, list[int]]


class Latencies(Collector):
    """The latency of each poll of each account, in whole microseconds."""

    name: ClassVar[str] = "latencies"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._lengths = sorted({each["window"] for each in needs if isinstance(each["window"], int)})
        self._windows: dict[str, dict[int, _Window]] = {}

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the polls of a snapshot. A pass woken by a push repeats the accounts that it did not poll."""
        earlier = {} if before is None or view.scheduled else {each.account: each for each in before.accounts}
        for account in view.accounts:
            health, last = account.health, earlier.get(account.account)
            if health is None or health.latency_ms is None or not math.isfinite(health.latency_ms):
                continue
            if last is None or not _is_repeated(account, last):
                for window in self._of(account.account).values():
                    window.add(view.as_of, round(health.latency_ms * 1000))
        for windows in self._windows.values():
            for window in windows.values():
                window.advance(view.as_of)

    def _of(self, account: str) -> dict[int, _Window]:
        found = self._windows.get(account)
        if found is None:
            found = self._windows[account] = {length: _Window(length) for length in self._lengths}
        return found

    def quantile(self, account: str, q: float, window: int) -> float | None:
        """The quantile of one account in milliseconds; None with fewer than 1 ÷ (1 − q) polls in the window."""
        found = self._windows.get(account)
        ordered = None if found is None else found[window].ordered
        if ordered is None or len(ordered) * (1.0 - q) < 1.0 - ROUNDING:
            return None
        return quantile(ordered, q) / 1000

    def restart(self, now: int, *, accept: bool) -> None:
        """Windows begin now."""
        self._windows.clear()

    def state(self) -> object:
        """The samples of the longest window, which has those of all others."""
        times: dict[str, list[int]] = {}
        latencies: dict[str, list[int]] = {}
        for account, windows in self._windows.items():
            window = windows[self._lengths[-1]]
            if at := window.times:
                times[account] = [at[0], *(later - earlier for earlier, later in pairwise(at))]
                latencies[account] = window.latencies
        return _LatencyState(times, latencies)

    def restore(self, stored: bytes) -> None:
        """Restore the samples; a window that is shorter drops the older ones at the next snapshot."""
        state = msgjson.decode(stored, type=_LatencyState)
        for account, distances in state.times.items():
            at = 0
            for distance, latency in zip(distances, state.latencies.get(account, ()), strict=False):
                at += distance
                for window in self._of(account).values():
                    window.add(at, latency)
            for window in self._of(account).values():
                window.advance(at)


def _is_repeated(account: AccountSnapshot, last: AccountSnapshot) -> bool:
    """Whether this is the last answer of the account again."""
    return (account.observed_at, account.quality, account.health) == (last.observed_at, last.quality, last.health)


class _LatenessState(Struct):
    seconds: float | None


class TickLateness(Collector):
    """How late the last scheduled tick was, in seconds: from when it was due until its snapshot was complete."""

    name: ClassVar[str] = "tick_lateness"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self.seconds: float | None = None
        """None while no scheduled tick states when it was due."""

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add a snapshot; a pass between two ticks has no due time."""
        if view.scheduled:
            due = None if view.tick is None else view.tick.due
            self.seconds = None if due is None else max(0.0, (view.as_of - to_micros(due)) / SECOND)

    def restart(self, now: int, *, accept: bool) -> None:
        """A reset does not change how late a tick was."""

    def state(self) -> object:
        """The last lateness."""
        return _LatenessState(self.seconds)

    def restore(self, stored: bytes) -> None:
        """Restore it. MsgspecError if it is damaged."""
        self.seconds = msgjson.decode(stored, type=_LatenessState).seconds


class WatchedHeartbeats(Collector):
    """Since when a scope watches each heartbeat: one that was never sent is at least as old."""

    name: ClassVar[str] = "watched_heartbeats"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._names = sorted({str(each["name"]) for each in needs})
        self._since: dict[str, int] = {}

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Begin to watch with the first snapshot that a policy which reads the heartbeat sees."""
        for name in self._names:
            self._since.setdefault(name, view.as_of)

    def age(self, view: ScopeView, name: str) -> tuple[float, float]:
        """Bounds of the seconds since the last heartbeat; unbounded above if there was none."""
        if view.tick is None:
            return -math.inf, math.inf
        last = view.tick.heartbeats.get(name)
        if last is None:
            return max(0.0, (view.as_of - self._since.get(name, view.as_of)) / SECOND), math.inf
        seconds = max(0.0, (view.as_of - to_micros(last)) / SECOND)
        return seconds, seconds

    def restart(self, now: int, *, accept: bool) -> None:
        """A reset does not change since when it is watched."""

    def state(self) -> object:
        """Name → since when."""
        return self._since

    def restore(self, stored: bytes) -> None:
        """Restore them. MsgspecError if they are damaged."""
        self._since = msgjson.decode(stored, type=dict[str, int])


_ANY_AGE = (-math.inf, math.inf)


class LastObserved(Struct):
    """The last observation of each account. Times in microseconds.

    `at`: account → time of its last observation. `awaited`: account → since when it is watched without an observation.
    """

    at: dict[str, int] = field(default_factory=dict)
    awaited: dict[str, int] = field(default_factory=dict)

    def observe(self, view: ScopeView) -> None:
        """Record one snapshot of the scope. An account without `observed_at` that is not `ok` was not observed."""
        for account in view.accounts:
            if account.observed_at is not None:
                self.at[account.account] = to_micros(account.observed_at)
                self.awaited.pop(account.account, None)
            elif account.account not in self.at:
                self.awaited.setdefault(account.account, view.as_of)

    def age(self, view: ScopeView) -> tuple[float, float]:
        """The age of the scope's oldest observation in seconds, as an interval.

        The age of an account that was never observed is at least the time since it is watched, without an upper bound.
        Unknown if an available account does not report when it was observed.
        """
        if not view.accounts:
            return _ANY_AGE
        lowest = highest = 0.0
        for account in view.accounts:
            name = account.account
            if account.observed_at is None and account.quality == "ok":
                return _ANY_AGE
            seen = self.at.get(name)
            if seen is None and name not in self.awaited:
                return _ANY_AGE
            age = (view.as_of - (self.awaited[name] if seen is None else seen)) / SECOND
            lowest = max(lowest, age)
            highest = math.inf if seen is None else max(highest, age)
        return lowest, highest
