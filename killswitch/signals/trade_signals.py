"""Signals of trades: round trips by outcome, their profit, and fills. A backtest has no orders of bots: no trades."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import SYMBOL, WINDOW, Argument
from killswitch.signals.declaration import (
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    NOT_NEGATIVE,
    UNBOUNDED,
    Axioms,
    ScopeSignal,
    SignalSpec,
)
from killswitch.signals.history.round_trips import FilledByOthers, RoundTrips
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from killswitch.signals.history.round_trips import RoundTrip
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

OUTCOME = Argument(
    key="outcome",
    kind="word",
    words=("any", "loss", "stop", "liquidated"),
    meaning="Which round trips count: all, those that lost net of fees, closed by a stop, or closed by the venue.",
    example="loss",
)
PER = Argument(
    key="per",
    kind="name",
    meaning="`scope` for all symbols together, `worst_symbol` for the symbol with the worst value, or one symbol.",
    example="worst_symbol",
)
SIDE = Argument(
    key="side",
    kind="word",
    words=("any", "long", "short"),
    meaning="The side of the round trips.",
    example="any",
)
MODE = Argument(
    key="mode",
    kind="word",
    words=("ratios",),
    meaning="`ratios`: the fall of the running sum of the trips' returns from its maximum, which starts at 0.",
    example="ratios",
)
CAUSES = Argument(
    key="causes",
    kind="word",
    words=("liquidation", "adl", "forced", "all"),
    meaning="Which fills count: liquidations, deleveraging (ADL), both (`forced`), or with deliveries (`all`).",
    example="forced",
)
_CAUSES = {
    "liquidation": ("liquidation",),
    "adl": ("adl",),
    "forced": ("liquidation", "adl"),
    "all": ("liquidation", "adl", "delivery"),
}


def _per(trips: RoundTrips, per: str) -> Iterator[str | None]:
    """The symbols whose values are compared; None is all of them together."""
    if per == "worst_symbol":
        yield from trips.symbols
    else:
        yield None if per == "scope" else per


def _is_covered(trips: RoundTrips, view: ScopeView, window: int) -> bool:
    coverage = trips.coverage
    is_recent = coverage.last_at == view.as_of
    return is_recent and coverage.reaches(view.as_of - window)


def _counted(trips: Iterable[RoundTrip], outcome: str) -> tuple[int, int]:
    """How many trips surely have the outcome, and how many may have it."""
    sure = maybe = 0
    for trip in trips:
        found = {
            "any": True, "loss": trip.is_loss, "stop": trip.is_stop, "liquidated": trip.is_liquidated,
        }[outcome]  # fmt: skip
        sure += found is True
        maybe += found is None
    return sure, sure + maybe


def _count(history: History, view: ScopeView, window: int, outcome: str, per: str, side: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    low = high = 0
    for symbol in _per(trips, per):
        sure, most = _counted(trips.within(view.as_of, window, symbol, side), outcome)
        low, high = max(low, sure), max(high, most)
    return float(low), float(high) if _is_covered(trips, view, window) else math.inf


def _losing_streak(history: History, view: ScopeView, per: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    found = [trips.streak(symbol) for symbol in _per(trips, per)]
    value = max((count for count, _ in found), default=0)
    is_whole = trips.coverage.last_at == view.as_of and all(whole for _, whole in found)
    return float(value), float(value) if is_whole else math.inf


def _profit(history: History, view: ScopeView, window: int, per: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    if not _is_covered(trips, view, window):
        return UNKNOWN
    sums = [_sum(trips.within(view.as_of, window, symbol)) for symbol in _per(trips, per)]
    if None in sums:
        return UNKNOWN
    return known(min((each for each in sums if each is not None), default=0.0))


def _sum(trips: Iterable[RoundTrip]) -> float | None:
    ratios = [trip.ratio for trip in trips]
    return None if None in ratios else sum(each for each in ratios if each is not None)


def _drawdown(history: History, view: ScopeView, window: int, mode: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    if not _is_covered(trips, view, window):
        return UNKNOWN
    total = best = fallen = 0.0
    for trip in sorted(trips.within(view.as_of, window), key=lambda each: each.closed_at):
        if trip.ratio is None:
            return UNKNOWN
        total += trip.ratio
        best = max(best, total)
        fallen = max(fallen, best - total)
    return known(fallen)


def _since_close(history: History, view: ScopeView, symbol: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    closed, begun = trips.last_close(symbol), trips.coverage.begun_at
    if closed is not None:
        return known((view.as_of - closed) / 1e6)
    return (0.0 if begun is None else (view.as_of - begun) / 1e6), math.inf


def _closed_by_venue(history: History, view: ScopeView, window: int, causes: str) -> Interval:
    filled = history.collectors.of(FilledByOthers)
    found = sum(cause in _CAUSES[causes] for cause, _ in filled.within(view.as_of, window))
    return float(found), float(found) if _is_filled(filled, view, window) else math.inf


def _is_filled(filled: FilledByOthers, view: ScopeView, window: int) -> bool:
    return filled.coverage.last_at == view.as_of and filled.coverage.reaches(view.as_of - window)


def _value_of_fills(history: History, view: ScopeView, window: int, causes: tuple[str, ...] | None) -> Interval:
    """The notional of the fills ÷ equity, at least that of the known ones."""
    filled = history.collectors.of(FilledByOthers)
    if view.unknown is not None or view.equity is None:
        return UNKNOWN
    values = [value for cause, value in filled.within(view.as_of, window) if causes is None or cause in causes]
    total = sum(each for each in values if each is not None)
    is_whole = None not in values and _is_filled(filled, view, window)
    if view.equity <= 0:
        return (math.inf, math.inf) if total else (0.0, 0.0 if is_whole else math.inf)
    share = total / float(view.equity)
    return share, share if is_whole else math.inf


_MISSING = "fills are missing in the window: it is at least what was seen"
_signal = partial(
    ScopeSignal,
    measures="condition",
    look_ahead=NO_LOOK_AHEAD,
    axioms=NO_AXIOMS,
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    needs_equity=False,
    collects=(RoundTrips,),
)

SIGNALS: tuple[SignalSpec, ...] = (
    _signal(
        name="trades.count",
        arguments=(WINDOW, OUTCOME, PER, SIDE),
        unit="count",
        meaning=(
            "Round trips (flat to flat of account, symbol and side) that closed within the window. A stop is an order "
            "that was seen resting with a trigger price, or a liquidation. Two losses of one symbol are "
            "`per: worst_symbol` with `outcome: loss`. A grid has fifty losing round trips a day."
        ),
        partly_known=f"{_MISSING}; a losing trip may have been closed by a stop that was never seen resting",
        unknown="never",
        range=NOT_NEGATIVE,
        axioms=Axioms(grows_with=("window",)),
        reader=_count,
    ),
    _signal(
        name="trades.losing_streak",
        arguments=(PER,),
        unit="count",
        meaning=(
            "Losing round trips in a row up to now, by when they closed; one of unknown profit counts as losing. "
            "Averaging down never closes, so that open losses are not in it."
        ),
        partly_known="fills are missing: it is at least the streak since then",
        unknown="never",
        range=NOT_NEGATIVE,
        reader=_losing_streak,
    ),
    _signal(
        name="trades.profit",
        arguments=(WINDOW, PER),
        unit="ratio",
        measures="loss",
        meaning=(
            "Sum of profit ÷ notional at entry of the round trips that closed within the window, as freqtrade sums "
            "them: one large and one small trade weigh alike. Of several symbols the worst."
        ),
        partly_known="never",
        unknown="fills are missing in the window, or the profit of a trip is unknown",
        range=UNBOUNDED,
        reader=_profit,
    ),
    _signal(
        name="trades.drawdown",
        arguments=(WINDOW, MODE),
        unit="ratio",
        measures="loss",
        meaning=(
            "The largest fall of the running sum of `trades.profit` from its maximum within the window; a loss of the "
            "first trade counts. Closed trades only: `equity.drawdown` also has the open ones."
        ),
        partly_known="never",
        unknown="fills are missing in the window, or the profit of a trip is unknown",
        range=NOT_NEGATIVE,
        reader=_drawdown,
    ),
    _signal(
        name="trades.since_close",
        arguments=(SYMBOL,),
        unit="seconds",
        meaning="Time since a round trip of the symbol closed, a winner or a loser.",
        partly_known="none closed under observation: it is at least the time since observation began",
        unknown="never",
        range=NOT_NEGATIVE,
        reader=_since_close,
    ),
    _signal(
        name="fills.closed_by_venue",
        arguments=(WINDOW, CAUSES),
        unit="count",
        meaning="Fills by which the venue itself closed positions: liquidations, deleveraging, deliveries if asked.",
        partly_known=_MISSING,
        unknown="never",
        range=NOT_NEGATIVE,
        axioms=Axioms(grows_with=("window",)),
        collects=(FilledByOthers,),
        reader=_closed_by_venue,
    ),
    _signal(
        name="fills.closed_by_venue_share",
        arguments=(WINDOW, CAUSES),
        unit="ratio",
        meaning="Notional of the fills by which the venue itself closed positions ÷ equity.",
        partly_known=_MISSING,
        unknown="equity is unknown",
        range=NOT_NEGATIVE,
        needs_equity=True,
        axioms=Axioms(grows_with=("window",)),
        collects=(FilledByOthers,),
        reader=lambda history, view, window, causes: _value_of_fills(history, view, window, _CAUSES[causes]),
    ),
    _signal(
        name="exposure.turnover",
        arguments=(WINDOW,),
        unit="ratio",
        meaning=(
            "Notional of all fills within the window ÷ equity, without those of this program. The roll of a future "
            "doubles it."
        ),
        partly_known=f"{_MISSING}; the contract size of a fill is unknown",
        unknown="equity is unknown",
        range=NOT_NEGATIVE,
        needs_equity=True,
        axioms=Axioms(grows_with=("window",)),
        collects=(FilledByOthers,),
        reader=lambda history, view, window: _value_of_fills(history, view, window, None),
    ),
)
