"""Unit values that later ones are compared with: those at the open of a session, and the first one.

No reset moves the open of a session. An operator's reset accepts the loss of a declared capital. A correction of the
past corrects them, and a new series of unit values begins without them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.signals.history.collector import FollowedHistory, HistoryCollector, Needs
from killswitch.signals.sessions import Anchor, TradingSession, last_open, next_open

if TYPE_CHECKING:
    from killswitch.signals.history.rows import Correction
    from killswitch.signals.history.sample_table import Floats, Instants


class AnchoredValue(Struct, frozen=True):
    """An observation: its time (microseconds), unit value, and equity in the scope's currency."""

    at: int
    value: float
    equity: Decimal


class SkippedBars(Struct, frozen=True):
    """Bars of a backtest without a tick: when they are (microseconds), and what a tick would have observed at each."""

    at: Sequence[int]
    observed: Callable[[int], AnchoredValue]


class Opening(Struct, frozen=True):
    """The last open of an anchor, its next one, and the last observation at or before the open.

    `observed` is None if there was none within `max_gap`. `anchor`: a digest of what was declared under the name.
    """

    anchor: str
    opened: int
    next: int
    observed: AnchoredValue | None


class OpeningsState(Struct):
    """The serialised form of `OpeningValues`."""

    last: AnchoredValue | None
    openings: dict[str, Opening]


class OpeningValues(HistoryCollector):
    """The observation at the last open of each anchor in use."""

    name = "opening_values"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._anchors: dict[str, Anchor] = {}
        for need in needs:
            anchor = cast(Anchor, need["anchor"])
            self._anchors[_name_of(anchor)] = anchor
        self._max_gap = max_gap
        self._last: AnchoredValue | None = None
        self._openings: dict[str, Opening] = {}

    def at_open(self, anchor: Anchor) -> AnchoredValue | None:
        """The last observation at or before the last open of the anchor; None if there was none within `max_gap`."""
        found = self._openings.get(_name_of(anchor))
        return None if found is None else found.observed

    def ahead(self, anchor: Anchor, at: Instants, values: Floats) -> Iterator[tuple[int, int, float | None]]:
        """Each open up to the last of the instants `at`, the next one, and the unit value at or before it.

        The value is None if it is not of `max_gap` before. `values`: the unit values at `at`.
        """
        current = self._openings.get(_name_of(anchor))
        if current is None:
            return
        yield current.opened, current.next, None if current.observed is None else current.observed.value
        opened = current.next
        while opened <= at[-1]:
            place, until = int(at.searchsorted(opened, "right")) - 1, next_open(anchor, opened)
            is_known = place >= 0 and opened - int(at[place]) <= self._max_gap
            yield opened, until, float(values[place]) if is_known else None
            opened = until

    def skip(self, bars: SkippedBars) -> None:
        """Pass the opens among bars without a tick."""
        last = bars.at[-1]
        for name, anchor in self._anchors.items():
            before = self._openings.get(name)
            if before is not None and last >= before.next:
                opened = last_open(anchor, last)
                place = bisect_right(bars.at, opened) - 1
                seen = self._last if place < 0 else bars.observed(place)
                is_known = seen is not None and 0 <= opened - seen.at <= self._max_gap
                observed = seen if is_known else None
                self._openings[name] = Opening(repr(anchor), opened, next_open(anchor, last), observed)
        self._last = bars.observed(len(bars.at) - 1)

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Pass the opens until now, and record the observation."""
        if history.view is None:
            return
        now = history.view.as_of
        seen = None
        if equity is not None:
            row = history.rows[-1]
            seen = AnchoredValue(row.at, row.value, equity)
        for name, anchor in self._anchors.items():
            before = self._openings.get(name)
            if before is None or now >= before.next or now < before.opened:
                opened = last_open(anchor, now)
                observed = self._observed_before(opened)
                before = self._openings[name] = Opening(repr(anchor), opened, next_open(anchor, now), observed)
            if seen is not None and seen.at == before.opened:
                self._openings[name] = replace(before, observed=seen)
        self._last = seen or self._last

    def _observed_before(self, opened: int) -> AnchoredValue | None:
        last = self._last
        return last if last is not None and 0 <= opened - last.at <= self._max_gap else None

    def correct(self, correction: Correction) -> None:
        """Correct the unit values."""
        self._last = _corrected(self._last, correction)
        self._openings = {
            name: replace(each, observed=_corrected(each.observed, correction)) for name, each in self._openings.items()
        }

    def begin_series(self) -> None:
        """Drop all: the series that begins has no value at its last open."""
        self._last = None
        self._openings = {name: replace(each, observed=None) for name, each in self._openings.items()}

    def restart(self, now: int, *, accept: bool) -> None:
        """Nothing: no reset moves the open of a session."""

    def state(self) -> OpeningsState:
        """Everything."""
        return OpeningsState(self._last, self._openings)

    def restore(self, stored: bytes) -> None:
        """Restore what belongs to anchors that are declared as they were."""
        state = msgjson.decode(stored, type=OpeningsState)
        self._last = state.last
        self._openings = {
            name: each
            for name, each in state.openings.items()
            if name in self._anchors and each.anchor == repr(self._anchors[name])
        }


class FirstEquity(AnchoredValue, frozen=True, omit_defaults=True):
    """The first observation under a declared capital.

    `is_accepted`: it is that of an operator's reset, since which what was left counts as the capital. `is_renewed`: the
    next known observation takes its place, because equity was unknown at the reset.
    """

    is_accepted: bool = False
    is_renewed: bool = False


class FirstEquities(HistoryCollector):
    """The first observation under each declared capital."""

    name = "first_equities"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._capitals = [_text_of(cast(Decimal, need["capital"])) for need in needs]
        self._first: dict[str, FirstEquity] = {}
        self._last: AnchoredValue | None = None
        """The last observation, in this run."""

    def under(self, capital: Decimal) -> FirstEquity | None:
        """The first observation under this capital; None before it."""
        return self._first.get(_text_of(capital))

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Record the first observation."""
        if equity is None:
            return
        row = history.rows[-1]
        self._last = AnchoredValue(row.at, row.value, equity)
        for capital in self._capitals:
            first = self._first.get(capital)
            if first is None or first.is_renewed or first.at == row.at:
                is_accepted = first is not None and (first.is_renewed or first.is_accepted)
                self._first[capital] = FirstEquity(row.at, row.value, equity, is_accepted=is_accepted)

    def correct(self, correction: Correction) -> None:
        """Correct the unit values."""
        self._last = _corrected(self._last, correction)
        for capital, first in self._first.items():
            corrected = _corrected(first, correction)
            assert corrected is not None
            self._first[capital] = replace(first, value=corrected.value)

    def begin_series(self) -> None:
        """Begin with the next observation, as the start of the scope does."""
        self._first.clear()
        self._last = None

    def restart(self, now: int, *, accept: bool) -> None:
        """With `accept`, what is left counts as the capital: the same loss would trip again at once. Else nothing."""
        if not accept:
            return
        last = self._last
        for capital, first in self._first.items():
            if last is not None and last.at == now:
                self._first[capital] = FirstEquity(last.at, last.value, last.equity, is_accepted=True)
            else:
                self._first[capital] = replace(first, is_renewed=True)

    def state(self) -> dict[str, FirstEquity]:
        """Everything."""
        return self._first

    def restore(self, stored: bytes) -> None:
        """Restore the first observations under capitals that are still declared."""
        state = msgjson.decode(stored, type=dict[str, FirstEquity])
        self._first = {capital: first for capital, first in state.items() if capital in self._capitals}


def _name_of(anchor: Anchor) -> str:
    """A word is no name of a document, since names of documents have no underscore."""
    return anchor.name if isinstance(anchor, TradingSession) else anchor


def _text_of(capital: Decimal) -> str:
    """The same text for every spelling of a number."""
    return f"{capital.normalize():f}"


def _corrected(seen: AnchoredValue | None, correction: Correction) -> AnchoredValue | None:
    from killswitch.signals.history.rows import restated

    return None if seen is None else replace(seen, value=restated(seen.at, seen.value, correction))
