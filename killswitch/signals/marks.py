"""Marks of what a scope holds, sampled, and the returns between them.

A sample is taken at the first observation in each stretch of `every` microseconds, counted from the epoch, so that
ticks which come a little late skip none. Samples say nothing about the account: they outlive resets, which re-base what
is known of the account's fall.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView

MarkKey = tuple[str, str]
"""(account, symbol): two venues may mark one symbol differently."""


class Marks:
    """The samples of the last `keep` microseconds. A return spans at most `max_gap`."""

    def __init__(self, every: int, keep: int, max_gap: int) -> None:
        self.every = every
        self._max_gap = max_gap
        self._keep = keep
        self._samples: deque[tuple[int, Mapping[MarkKey, float]]] = deque()

    def sample(self, view: ScopeView) -> dict[MarkKey, float] | None:
        """The view's marks if they are a sample, which is then remembered; None between two samples."""
        if not self.is_due(view.as_of):
            return None
        marks = {
            (account.account, position.symbol): float(position.mark_price)
            for account, position in view.positions()
            if position.mark_price is not None and position.mark_price > ZERO
        }
        self.recall(view.as_of, marks)
        return marks

    def is_due(self, at: int) -> bool:
        """Whether an observation at `at` is the first in its stretch."""
        return not self._samples or at // self.every != self._samples[-1][0] // self.every

    def recall(self, at: int, marks: Mapping[MarkKey, float]) -> None:
        """Remember a sample that was taken at `at`."""
        self._samples.append((at, marks))
        while self._samples[0][0] < at - self._keep:
            self._samples.popleft()

    def returns(self, keys: Sequence[MarkKey], now: int, window: int, every: int) -> list[list[float]]:
        """The simple returns of each key between samples that lie `every` apart, oldest first, all of the same times.

        Of the last `window` microseconds before `now`. Where a mark is missing, or two samples lie too far apart, there
        is no return.
        """
        found: list[list[float]] = [[] for _ in keys]
        before: tuple[int, Mapping[MarkKey, float]] | None = None
        for at, marks in self._samples:
            if at < now - window or at > now or (before is not None and at // every == before[0] // every):
                continue
            if (
                before is not None
                and at - before[0] <= self._max_gap
                and all(k in marks and k in before[1] for k in keys)
            ):
                for series, key in zip(found, keys, strict=True):
                    series.append(marks[key] / before[1][key] - 1.0)
            before = at, marks
        return found
