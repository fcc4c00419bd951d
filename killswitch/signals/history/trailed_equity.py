"""The highest equity, without what transfers brought, under a floor that follows it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import HOUR
from killswitch.signals.history.collector import FollowedHistory, HistoryCollector, Needs

if TYPE_CHECKING:
    from killswitch.pnl_explain.pending_changes import Interpretation, UnexplainedChange
    from killswitch.signals.history.rows import Correction
    from killswitch.signals.history.scope import History

Trail = Literal["intraday", "end_of_day"]
TRAILS: tuple[Trail, ...] = ("intraday", "end_of_day")
DAY = 24 * HOUR
SETTLED = 48 * HOUR
"""The age at which a change of equity can no longer be identified as a transfer, see `pending_changes`."""
ZERO = Decimal(0)


class Segment(Struct):
    """The highest equity of observations between which no change of equity was unexplained.

    `until`: the last of them; `high_at`: that of the highest (microseconds).
    """

    until: int
    high: Decimal
    high_at: int


class Observed(Struct, frozen=True):
    """The equity of one observation without the transfers counted so far."""

    at: int
    equity: Decimal


class TrailedEquityState(Struct):
    """The serialised form of `TrailedEquity`."""

    begun_at: int | None
    moved: Decimal
    last: Observed | None
    segments: dict[str, list[Segment]]
    renews: bool = False


class TrailedEquity(HistoryCollector):
    """The highest equity at every observation (`intraday`), or at the last one before 00:00 UTC (`end_of_day`).

    Equity counts without the transfers since the first observation, so that a deposit raises equity and all earlier
    highs alike. While a change of equity is unexplained, it is a transfer by one interpretation and none by the other;
    so the highs before and after it are kept apart.
    """

    name = "trailed_equity"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._trails = [trail for trail in TRAILS if any(need["trail"] == trail for need in needs)]
        self._begin()

    def _begin(self) -> None:
        self._begun_at: int | None = None
        self._moved = ZERO
        self._last: Observed | None = None
        self._segments: dict[str, list[Segment]] = {}
        self._renews = False
        """Whether the highest equity begins with the next known one, after an operator's reset."""

    def above(self, history: History, trail: Trail, floor: Callable[[Decimal], Decimal]) -> list[Decimal]:
        """The possible differences between the current equity and the floor, which depends on the highest one.

        The extremes, by the interpretations of open changes and the bounds of an unavailable account; none if unknown.
        """
        segments = self._segments.get(trail)
        current = _current(history)
        if not segments or not current:
            return []
        found = []
        for interpretation in history.interpretations:
            open_changes = self._open(history, interpretation)
            highs = [each.high - _moved_until(open_changes, each.high_at) for each in segments]
            if trail == "intraday" and self._last is not None:
                highs.append(self._last.equity - _moved_until(open_changes, self._last.at))
            moved = self._moved + sum((each.converted_amount for each in open_changes), ZERO)
            found += [equity - moved - floor(max(highs)) for equity in current]
        return found

    def _open(self, history: History, interpretation: Interpretation) -> list[UnexplainedChange]:
        """The open changes since the first observation that are transfers by the interpretation."""
        begun = self._begun_at or 0
        return [it for it in history.changes.open if it.at > begun and interpretation(it) != 1.0]

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Record the equity; that of the observation before becomes part of the highest."""
        if equity is None:
            return
        at, last = history.rows[-1].at, self._last
        if self._begun_at is None:
            self._begun_at = at
        elif last is not None and at > last.at:
            self._moved += history.transferred
            self._add(history, last, at)
        self._last = Observed(at, equity - self._moved)
        for trail in self._trails:
            if self._renews or trail not in self._segments or (self._begun_at == at):
                self._segments[trail] = [Segment(at, self._last.equity, at)]
        self._renews = False

    def _add(self, history: FollowedHistory, seen: Observed, now: int) -> None:
        """Add an observation to the highest equity, of days only the last one."""
        for trail in self._segments:
            if trail == "end_of_day" and seen.at // DAY == now // DAY:
                continue
            segments = self._segments[trail]
            newest = segments[-1]
            if any(newest.until < change.at <= seen.at for change in history.changes.all):
                segments.append(Segment(seen.at, seen.equity, seen.at))
            else:
                newest.until = seen.at
                if seen.equity >= newest.high:
                    newest.high, newest.high_at = seen.equity, seen.at
            while len(segments) > 1 and segments[1].until < now - SETTLED:
                older = segments.pop(0)
                if older.high > segments[0].high:
                    segments[0].high, segments[0].high_at = older.high, older.high_at

    def correct(self, correction: Correction) -> None:
        """Subtract a transfer from all equity since then; one before the first observation does not count."""
        at, amount = correction.start, correction.amount
        if self._begun_at is None or at <= self._begun_at:
            return
        self._moved += amount
        if self._last is not None and self._last.at >= at:
            self._last = Observed(self._last.at, self._last.equity - amount)
        for segment in (each for segments in self._segments.values() for each in segments):
            if segment.high_at >= at:
                segment.high -= amount

    def begin_series(self) -> None:
        """Begin with the next observation."""
        self._begin()

    def restart(self, now: int, *, accept: bool) -> None:
        """An operator's reset makes the current equity the highest; the transfers stay counted."""
        if not accept:
            return
        last = self._last
        self._renews = last is None or last.at < now
        if last is not None and not self._renews:
            self._segments = {trail: [Segment(last.at, last.equity, last.at)] for trail in self._trails}

    def state(self) -> TrailedEquityState:
        """Everything."""
        return TrailedEquityState(self._begun_at, self._moved, self._last, self._segments, self._renews)

    def restore(self, stored: bytes) -> None:
        """Restore what belongs to trails in use; one that is new begins with the next observation."""
        state = msgjson.decode(stored, type=TrailedEquityState)
        self._begun_at, self._moved, self._last = state.begun_at, state.moved, state.last
        self._segments = {trail: each for trail, each in state.segments.items() if trail in self._trails}
        self._renews = state.renews


def _current(history: History) -> tuple[Decimal, ...]:
    """The current equity, or its bounds; empty if it is unknown."""
    if history.unknown is None and history.equity is not None:
        return (history.equity,)
    found = history.equity_range
    return () if found is None else (found.low, found.high)


def _moved_until(transfers: list[UnexplainedChange], at: int) -> Decimal:
    return sum((each.converted_amount for each in transfers if each.at <= at), ZERO)
