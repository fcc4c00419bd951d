"""Samples of marks of a scope's positions, and the age of each account's last observation.

The first observation in each interval of `every` microseconds since the epoch is a sample, so that slightly late ticks
skip none. Samples survive resets, which re-base the account's drawdown.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from killswitch.model.instant import SECOND, to_micros
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView

MarkKey = tuple[str, str]
"""(account, symbol), since two venues may mark one symbol differently."""


class Marks:
    """The samples of the last `keep` microseconds. A return spans at most `max_gap`."""

    def __init__(self, every: int, keep: int, max_gap: int) -> None:
        self.every = every
        self._max_gap = max_gap
        self._keep = keep
        self._samples: deque[tuple[int, Mapping[MarkKey, float]]] = deque()

    def sample(self, view: ScopeView) -> dict[MarkKey, float] | None:
        """Record the view's marks if a sample is due, and return them; None otherwise."""
        if not self.is_due(view.as_of):
            return None
        marks = {
            (account.account, position.symbol): float(position.mark_price)
            for account, position in view.positions()
            if position.mark_price is not None and position.mark_price > ZERO
        }
        self.add(view.as_of, marks)
        return marks

    def is_due(self, at: int) -> bool:
        """Whether an observation at `at` is the first in its interval."""
        return not self._samples or at // self.every != self._samples[-1][0] // self.every

    def add(self, at: int, marks: Mapping[MarkKey, float]) -> None:
        """Add a sample of the time `at`."""
        self._samples.append((at, marks))
        while self._samples[0][0] < at - self._keep:
            self._samples.popleft()

    def returns(self, keys: Sequence[MarkKey], now: int, window: int, every: int) -> list[list[float]]:
        """The simple returns of each key between samples `every` microseconds apart, oldest first, all at the same
        times.

        They cover the last `window` microseconds before `now`. There is no return where a mark is missing, or where two
        samples are too far apart.
        """
        found: list[list[float]] = [[] for _ in keys]
        last: tuple[int, Mapping[MarkKey, float]] | None = None
        for at, marks in self._samples:
            if at < now - window or at > now or (last is not None and at // every == last[0] // every):
                continue
            if last is not None and at - last[0] <= self._max_gap and all(k in marks and k in last[1] for k in keys):
                for series, key in zip(found, keys, strict=True):
                    series.append(marks[key] / last[1][key] - 1.0)
            last = at, marks
        return found


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
