"""How fast each position loses money, by the rows of a scope's history."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import HOUR, MINUTE
from killswitch.signals.history.collector import FollowedHistory, HistoryCollector, Needs

if TYPE_CHECKING:
    from killswitch.signals.history.rows import UnitValueRow
    from killswitch.signals.history.sample_table import Instants
    from killswitch.signals.history.scope import History
    from killswitch.valuation.held_positions import Floats, PositionSizes
    from killswitch.valuation.scope_view import PnlKey, ScopeView

    Rates = Floats | dict[PnlKey, float | None]
    """The rate of each position, as a column if all are known."""

WINDOWS = (15 * MINUTE, 60 * MINUTE, 240 * MINUTE)
"""The windows over which the rate is averaged."""
DIGITS = 14
"""The decimal digits of an amount that a float has without a rounding error."""
MOST_DECIMALS = 22
"""The greatest power of ten that a float has without a rounding error."""
LEAST = 4
"""A window counts as at least this part of itself (a quarter), so that a position of seconds has no rate of hours."""
ZERO = Decimal(0)
_time_of = attrgetter("at")


class OpenedPosition(Struct, frozen=True):
    """When a position was first seen open (microseconds), and its realised P&L before that."""

    account: str
    symbol: str
    side: str
    at: int
    pnl: Decimal

    @property
    def key(self) -> PnlKey:
        """The identity of the position."""
        return (self.account, self.symbol, self.side)


class _Column(Struct, frozen=True, gc=False):
    """The P&L of a row as a column. `scales`: 10 to the decimals that each amount has without a rounding error."""

    pnl: Mapping[PnlKey, Decimal]
    amounts: Floats
    scales: Floats


class BleedRatesState(Struct):
    """The serialised form of `BleedRates`. `held`: positions at the last known snapshot; None before it."""

    held: list[tuple[str, str, str]] | None
    opened: list[OpenedPosition]


class BleedRates(HistoryCollector):
    """When positions were opened, and the rate at which each loses.

    The rate is the mean over three windows of −ΔP&L ÷ time, per hour, where P&L is unrealised and realised, and a
    window begins when the position was opened if that is later. The P&L at its beginning is that of the last row at or
    before it, within `max_gap`.
    """

    name = "bleed_rates"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._max_gap = max_gap
        self._held: frozenset[PnlKey] | None = None
        self._opened: dict[PnlKey, OpenedPosition] = {}
        self._sizes: PositionSizes | None = None
        """The sizes whose positions are held; None if something else than they decides it."""
        self._keys: list[PnlKey] = []
        """The positions that are held, in the order of `_columns`."""
        self._columns: dict[int, _Column] = {}
        """Time of a row → its P&L as a column."""
        self._read_at: int | None = None
        self._rates: Rates = {}

    @classmethod
    def reach(cls, max_gap: int) -> int:
        """The longest window, and the row before it."""
        return WINDOWS[-1] + max_gap

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Record which positions were opened."""
        self._read_at = None
        view = history.view
        current = None if equity is None or view is None else view.pnl()
        if view is None or current is None:
            return
        sizes = view.facts[0].held.sizes if len(view.facts) == 1 else None
        if sizes is not None and sizes is self._sizes and len(current) == len(sizes.keys):
            return  # as in nearly every tick: nothing was traded, and nothing has become unknown
        self._sizes = sizes if sizes is not None and sizes.are_plain and len(current) == len(sizes.keys) else None
        held = frozenset(current)
        if held == self._held:
            if (keys := [*current]) != self._keys:  # restored: columns are read in the order of the positions
                self._hold(held, keys)
            return
        if self._held is not None:
            before = history.rows[-2].pnl if len(history.rows) > 1 else None
            total = history.rows[-1].pnl or {}
            for key in held - self._held:
                made = total.get(key, ZERO) - current[key] if before is None else before.get(key, ZERO)
                self._opened[key] = OpenedPosition(*key, view.as_of, made)
        self._opened = {key: each for key, each in self._opened.items() if key in held}
        self._hold(held, [*current])

    def _hold(self, held: frozenset[PnlKey] | None, keys: list[PnlKey]) -> None:
        self._held, self._keys = held, keys
        self._columns.clear()

    def rates(self, history: History) -> Mapping[PnlKey, float | None]:
        """Each position's loss per hour in the scope's currency, negative for a gain; None if it is unknown.

        Without positions whose P&L is known, it is empty.
        """
        found = self._read(history)
        return found if isinstance(found, dict) else dict(zip(self._keys, found.tolist(), strict=True))

    def worst(self, history: History) -> tuple[float, bool] | None:
        """The largest of the rates that are known, and whether all are; None without any."""
        found = self._read(history)
        if not isinstance(found, dict):
            return (float(found.max()), True) if len(found) else None
        seen = [rate for rate in found.values() if rate is not None]
        return (max(seen), len(seen) == len(found)) if seen else None

    def _read(self, history: History) -> Rates:
        if history.unknown is not None or not history.rows or history.rows[-1].pnl is None or self._held is None:
            return {}
        if self._read_at != history.rows[-1].at:
            self._read_at, self._rates = history.rows[-1].at, self._computed(history, self._held)
        return self._rates

    def _computed(self, history: History, held: frozenset[PnlKey]) -> Rates:
        now, unknown = history.rows[-1], history.ledger.unknown
        edges = [now.at - window for window in WINDOWS]
        starts = [self._start(history, edge) for edge in edges]
        is_unrealised = held.isdisjoint(history.ledger.realized)  # what is held has realised nothing
        whole = self._of_old_positions(
            now, starts, held & unknown.keys() if unknown else (), history.view if is_unrealised else None
        )
        if whole is not None:
            return whole
        found: dict[PnlKey, float | None] = dict.fromkeys(held)
        for key in held:
            begun = [self._begun(key, start, edge) for start, edge in zip(starts, edges, strict=True)]
            since = [each for each in begun if each is not None and each[0] > unknown.get(key, -1)]
            made = (now.pnl or {}).get(key)
            if made is not None and len(since) == len(WINDOWS):
                spans = zip(WINDOWS, since, strict=True)
                found[key] = sum(float(pnl - made) * _weight(window, now.at - at) for window, (at, pnl) in spans)
        return found

    def _of_old_positions(
        self,
        now: UnitValueRow,
        starts: Sequence[UnitValueRow | None],
        unknown: Collection[PnlKey],
        view: ScopeView | None,
    ) -> Floats | None:
        """The rates by `_keys` if all positions are older than the windows, as in nearly every tick; else None.

        A difference of two amounts is rounded to the decimals that a float has of the larger one.
        """
        rows = [row for row in starts if row is not None and row.pnl is not None]
        oldest = min((row.at for row in rows), default=0)
        if len(rows) < len(WINDOWS) or unknown or not self._keys:
            return None
        if any(each.at >= oldest for each in self._opened.values()):
            return None
        made, begun = self._column(now, view), [self._column(row) for row in rows]
        known = [each for each in begun if each is not None]
        if made is None or len(known) < len(rows):
            return None
        self._forget_before(now.at - WINDOWS[-1] - self._max_gap)
        short, hour, long = (
            _difference(each, made) * _weight(window, now.at - row.at)
            for window, row, each in zip(WINDOWS, rows, known, strict=True)
        )
        found: Floats = short + hour + long
        return found

    def ahead(self, at: Instants, made: Floats, count: int, max_gap: int) -> Floats:
        """The rate of each position at the last `count` of the instants `at`, at which they have made `made` (positions
        × instants); NaN where a window begins before the first, or not long after a position was opened."""
        import numpy as np

        now = at[-count:]
        found: Floats = np.zeros((len(made), count))
        opened = max((each.at for each in self._opened.values()), default=-1)
        for window in WINDOWS:
            start = at.searchsorted(now - window, "right") - 1
            begun = at[start]  # of −1 the last instant, which is after the edge
            is_known = (start >= 0) & (now - window - begun <= max_gap) & (begun > opened)
            weight = HOUR / (np.maximum(now - begun, window // LEAST) * len(WINDOWS))
            found += (made[:, start] - made[:, -count:]) * np.where(is_known, weight, np.nan)
        return found

    def _column(self, row: UnitValueRow, view: ScopeView | None = None) -> _Column | None:
        """The row's P&L by `_keys`, kept since a window begins at each row in its turn; None if it lacks a position.

        `view`: that of the row, if it is the newest and no position has realised P&L.
        """
        kept = self._columns.get(row.at)
        if kept is not None and kept.pnl is row.pnl:
            return kept
        amounts = None if row.pnl is None else self._amounts(row.pnl, view)
        if row.pnl is None or amounts is None:
            return None
        made = self._columns[row.at] = _Column(row.pnl, amounts, _scales(amounts))
        return made

    def _amounts(self, pnl: Mapping[PnlKey, Decimal], view: ScopeView | None) -> Floats | None:
        import numpy as np

        held = None if view is None or len(view.facts) != 1 else view.facts[0].held
        is_plain = held is not None and view is not None and held.pnl is view.pnl() and held.sizes.are_plain
        if held is not None and is_plain and held.sizes.keys == self._keys:
            return held.floats("unrealised")
        if [*pnl] == self._keys:
            return np.array([*map(float, pnl.values())])
        try:
            return np.array([*map(float, map(pnl.__getitem__, self._keys))])
        except KeyError:
            return None

    def _forget_before(self, edge: int) -> None:
        """Forget the columns of rows at which no window begins any more."""
        while (oldest := next(iter(self._columns), edge)) < edge:
            del self._columns[oldest]

    def _start(self, history: History, edge: int) -> UnitValueRow | None:
        """The row at which a window that begins at `edge` does: the last one at or before it, or that of a reset."""
        place = bisect_right(history.rows, edge, key=_time_of)
        if place == 0:
            first = history.rows[0]
            return first if history.rebased and first.at == history.begun_at else None
        row = history.rows[place - 1]
        return row if edge - row.at <= self._max_gap else None

    def _begun(self, key: PnlKey, start: UnitValueRow | None, edge: int) -> tuple[int, Decimal] | None:
        """When the position's window begins, and its P&L then; None if unknown."""
        opened = self._opened.get(key)
        if opened is not None and opened.at >= (edge if start is None else start.at):
            return opened.at, opened.pnl
        made = None if start is None or start.pnl is None else start.pnl.get(key)
        return None if start is None or made is None else (start.at, made)

    def restart(self, now: int, *, accept: bool) -> None:
        """The rows of the history begin at the reset, and so do the windows."""
        self._read_at = None

    def state(self) -> BleedRatesState:
        """Everything that is not in the rows."""
        held = None if self._held is None else sorted(self._held)
        return BleedRatesState(held, list(self._opened.values()))

    def restore(self, stored: bytes) -> None:
        """Restore when positions were opened."""
        state = msgjson.decode(stored, type=BleedRatesState)
        self._hold(None if state.held is None else frozenset(state.held), list(state.held or ()))
        self._opened = {each.key: each for each in state.opened}


def _scales(amounts: Floats) -> Floats:
    """10 to the decimals that each amount has without a rounding error."""
    import numpy as np

    sizes = np.abs(amounts)
    sizes[(sizes == 0.0) | ~np.isfinite(sizes)] = 1.0
    found: Floats = 10.0 ** np.minimum(DIGITS - np.ceil(np.log10(sizes)), MOST_DECIMALS)
    return found


def _difference(begun: _Column, now: _Column) -> Floats:
    """What each position lost between two rows."""
    import numpy as np

    scales = np.minimum(begun.scales, now.scales)
    found: Floats = np.rint((begun.amounts - now.amounts) * scales) / scales
    return found


def _weight(window: int, elapsed: int) -> float:
    """What a loss of 1 in the window is in the mean, per hour."""
    return HOUR / (max(elapsed, window // LEAST) * len(WINDOWS))


def bleed_rates(history: History) -> Mapping[PnlKey, float | None]:
    """Each position's loss per hour; empty if no signal or ranking in use reads it."""
    collector = history.collectors.get(BleedRates)
    return {} if collector is None else collector.rates(history)
