"""The margin ratio of a scope at each of its snapshots, for its change over a window."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from decimal import Decimal
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.signals.history.collector import Collector, Needs

if TYPE_CHECKING:
    from killswitch.valuation.scope_view import ScopeView

_time_of = itemgetter(0)


def margin_ratio(view: ScopeView) -> float | None:
    """Maintenance margin ÷ equity; +∞ if equity is not positive and margin is in use; None if either is unknown."""
    maintenance = None if view.unknown is not None else view.maintenance()
    return None if maintenance is None or view.equity is None else share_of_equity(maintenance, view.equity)


def share_of_equity(part: Decimal, equity: Decimal) -> float:
    """part ÷ equity; +∞ if equity is not positive and the part is."""
    if equity <= 0:
        return math.inf if part > 0 else 0.0
    return float(part / equity)


class _State(Struct):
    """Each time as the distance from the one before, and the ratios, null for an infinite one."""

    times: list[int]
    ratios: list[float | None]
    is_rebased: bool


class MarginRatios(Collector):
    """The known ratios of the longest window, and of `max_gap` before it."""

    name: ClassVar[str] = "margin_ratios"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = max((each["window"] for each in needs if isinstance(each["window"], int)), default=0) + max_gap
        self._max_gap = max_gap
        self._seen: deque[tuple[int, float]] = deque()
        self._is_rebased = False
        """Whether the first one is that of a reset, from which on windows count as complete."""

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the ratio of a snapshot, if it is known."""
        ratio = margin_ratio(view)
        if ratio is not None:
            if self._seen and self._seen[-1][0] == view.as_of:
                self._seen.pop()
            self._seen.append((view.as_of, ratio))
        while self._seen and self._seen[0][0] < view.as_of - self._keep:
            self._seen.popleft()
            self._is_rebased = False

    def before(self, now: int, window: int) -> float | None:
        """The last known ratio at or before the begin of the window; None if there is none within `max_gap` of it."""
        begin = now - window
        place = bisect_right(self._seen, begin, key=_time_of)
        if place == 0:
            return self._seen[0][1] if self._is_rebased and self._seen else None
        at, ratio = self._seen[place - 1]
        return ratio if begin - at <= self._max_gap else None

    def restart(self, now: int, *, accept: bool) -> None:
        """Windows begin with the ratio at the reset, or the first one after it."""
        self._seen = deque(each for each in self._seen if each[0] == now)
        self._is_rebased = True

    def state(self) -> object:
        """The ratios."""
        times = [at for at, _ in self._seen]
        distances = [*times[:1], *(later - earlier for earlier, later in pairwise(times))]
        return _State(distances, [None if math.isinf(it) else it for _, it in self._seen], self._is_rebased)

    def restore(self, stored: bytes) -> None:
        """Restore the ratios; those that are too old for a shorter window go with the next snapshot."""
        state = msgjson.decode(stored, type=_State)
        self._is_rebased, at = state.is_rebased, 0
        self._seen.clear()
        for distance, ratio in zip(state.times, state.ratios, strict=False):
            at += distance
            self._seen.append((at, math.inf if ratio is None else ratio))
