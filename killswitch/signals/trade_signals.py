"""Signals of trades: round trips by outcome, their profit, and fills. A backtest has no orders of bots: no trades."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import SYMBOL, WINDOW, Argument
from killswitch.signals.declaration import (
    NOT_NEGATIVE,
    UNBOUNDED,
    Axioms,
    SignalSpec,
    condition,
)
from killswitch.signals.equity_levels import of_equity
from killswitch.signals.history.fills import FilledByOthers
from killswitch.signals.history.round_trips import RoundTrips
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from killswitch.signals.history.round_trips import RoundTrip
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

OUTCOME = Argument(
    key="outcome",
    kind="word",
    words=("any", "loss", "stop", "liquidated"),
    meaning=(
        "Which round trips count: all, those that lost net of fees, those that lost by a stop, or those of which the "
        "venue closed a part (liquidation, ADL)."
    ),
    example="loss",
)
PER = Argument(
    key="per",
    kind="name",
    meaning="`scope` for all symbols together, `worst_symbol` for the symbol with the worst value, or one symbol.",
    example="worst_symbol",
    mistaken=(
        *((word, "scope") for word in ("all", "any", "every", "total", "account", "policy", "portfolio", "symbols")),
        *((word, "worst_symbol") for word in ("each", "symbol", "worst", "position")),
    ),
)
SIDE = Argument(
    key="side",
    kind="word",
    words=("any", "long", "short"),
    meaning="The side of the round trips or positions that count.",
    example="any",
)
MODE = Argument(
    key="mode",
    kind="word",
    words=("ratios", "equity"),
    meaning=(
        "`ratios`: the fall of the running sum of the trips' returns from its maximum, which starts at 0. `equity`: "
        "the fall of the balance ÷ its maximum; the balance is equity without unrealised P&L, and grows by the trips."
    ),
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

_CAUSES_WITHIN = (("causes", "liquidation", "forced"), ("causes", "adl", "forced"), ("causes", "forced", "all"))


def _per(trips: RoundTrips, per: str) -> Iterator[str | None]:
    """The symbols whose values are compared; None is all of them together."""
    if per == "worst_symbol":
        yield from trips.symbols
    else:
        yield None if per == "scope" else per


def _is_covered(trips: RoundTrips, view: ScopeView, window: int) -> bool:
    coverage = trips.coverage
    return trips.is_settled and coverage.last_at == view.as_of and coverage.reaches(view.as_of - window)


def _counted(trips: Iterable[RoundTrip], outcome: str) -> tuple[int, int]:
    """How many trips surely have the outcome, and how many may have it."""
    sure = most = 0
    for trip in trips:
        found = {
            "any": True, "loss": trip.is_loss, "stop": trip.is_stop, "liquidated": trip.is_liquidated,
        }[outcome]  # fmt: skip
        sure += found is True and not trip.is_doubtful
        most += found is not False
    return sure, most


def _count(history: History, view: ScopeView, window: int, outcome: str, per: str, side: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    low = high = 0
    for symbol in _per(trips, per):
        sure, most = _counted(trips.within(view.as_of, window, symbol, side), outcome)
        low, high = max(low, sure), max(high, most)
    return float(low), float(high) if _is_covered(trips, view, window) else math.inf


def _losing_streak(history: History, view: ScopeView, per: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    found = [trips.streak(symbol) for symbol in _per(trips, per)] or [trips.streak()]
    bounds = [math.inf if most is None else float(most) for _, most in found]
    high = max(bounds) if trips.coverage.last_at == view.as_of else math.inf
    return float(max(sure for sure, _ in found)), high


def _profit(history: History, view: ScopeView, window: int, per: str) -> Interval:
    """Of several symbols only those that closed a trip in the window are compared: none is worse than a loss of 0."""
    trips = history.collectors.of(RoundTrips)
    if not _is_covered(trips, view, window):
        return UNKNOWN
    found = [[trip.ratio for trip in trips.within(view.as_of, window, symbol)] for symbol in _per(trips, per)]
    if any(None in ratios for ratios in found):
        return UNKNOWN
    return known(min((sum(ratio for ratio in ratios if ratio is not None) for ratios in found if ratios), default=0.0))


def _drawdown(history: History, view: ScopeView, window: int, mode: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    if not _is_covered(trips, view, window):
        return UNKNOWN
    found = sorted(trips.within(view.as_of, window), key=lambda each: each.closed_at)
    if any(trip.ratio is None for trip in found):
        return UNKNOWN
    return known(_fall_of_ratios(found) if mode == "ratios" else _fall_of_balance(found, view))


def _fall_of_ratios(trips: Iterable[RoundTrip]) -> float:
    fallen = worst = 0.0
    for trip in trips:
        fallen = max(0.0, fallen - (trip.ratio or 0.0))
        worst = max(worst, fallen)
    return worst


def _fall_of_balance(trips: Sequence[RoundTrip], view: ScopeView) -> float | None:
    """The largest fall of the balance, from which the trips are counted back to the start of the window.

    None while equity, unrealised P&L or a rate is unknown.
    """
    pnl = view.pnl()
    if view.unknown is not None or view.equity is None or pnl is None:
        return None
    made = [(trip.profit or 0.0) * float(view.rate(trip.account)) for trip in trips]
    balance = float(view.equity - sum(pnl.values())) - sum(made)
    peak, worst = balance, 0.0
    for each in made:
        balance += each
        peak = max(peak, balance)
        fall = peak - balance
        worst = max(worst, 0.0 if fall <= 0.0 else fall / peak if peak > 0.0 else 1.0)
    return worst


def _since_close(history: History, view: ScopeView, symbol: str) -> Interval:
    trips = history.collectors.of(RoundTrips)
    closed, begun, hole = trips.last_close(symbol), trips.coverage.begun_at, trips.hole_at
    is_current = trips.is_settled and trips.coverage.last_at == view.as_of
    since = [at for at in (closed, hole if closed is not None else begun) if at is not None]
    least = (view.as_of - max(since)) / 1e6 if since and is_current else 0.0
    return max(0.0, least), math.inf if closed is None else max(0.0, (view.as_of - closed) / 1e6)


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


def _closed_by_venue_share(history: History, view: ScopeView, window: int, causes: str) -> Interval:
    return _value_of_fills(history, view, window, _CAUSES[causes])


def _turnover(history: History, view: ScopeView, window: int) -> Interval:
    return _value_of_fills(history, view, window, None)


_MISSING = "fills are missing in the window: it is at least what was seen"
_signal = partial(condition, collects=(RoundTrips,))

SIGNALS: tuple[SignalSpec, ...] = (
    _signal(
        name="trades.count",
        arguments=(WINDOW, OUTCOME, PER, SIDE),
        unit="count",
        meaning=(
            "Round trips (flat to flat of account, symbol and side) that closed within (t − window, t]. A stop is a "
            "losing close by an order that was seen resting with a trigger price, or by the venue. Two losses of one "
            "symbol are `per: worst_symbol` with `outcome: loss`. A grid has fifty losing round trips a day."
        ),
        partly_known=(
            f"{_MISSING}; the profit of a trip is unknown, because its opening was not observed or a fee has no price; "
            "another order than a stop closed a loss, which may have been a stop that the bot keeps to itself"
        ),
        unknown="never",
        range=NOT_NEGATIVE,
        axioms=Axioms(
            grows_with=("window",),
            within=(
                ("outcome", "stop", "loss"),
                ("outcome", "loss", "any"),
                ("outcome", "liquidated", "any"),
                ("side", "long", "any"),
                ("side", "short", "any"),
                ("per", "worst_symbol", "scope"),
            ),
        ),
        reader=_count,
    ),
    _signal(
        name="trades.losing_streak",
        arguments=(PER,),
        unit="count",
        meaning=(
            "Losing round trips in a row up to now, by when they closed. Averaging down never closes, so that open "
            "losses are not in it."
        ),
        partly_known="fills are missing: it is at least the streak since then; the profit of a trip is unknown",
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
        unknown=(
            "fills are missing in the window, or the profit of a trip is unknown; for `equity` also while equity or "
            "unrealised P&L is unknown"
        ),
        range=NOT_NEGATIVE,
        reader=_drawdown,
    ),
    _signal(
        name="trades.since_close",
        arguments=(SYMBOL,),
        unit="seconds",
        meaning="Time since a round trip of the symbol closed, a winner or a loser.",
        partly_known=(
            "none closed under observation: it is at least the time since observation began; fills are missing since "
            "the last one: it is at least the time since they were found missing"
        ),
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
        axioms=Axioms(grows_with=("window",), within=_CAUSES_WITHIN),
        collects=(FilledByOthers,),
        reader=_closed_by_venue,
    ),
    _signal(
        name="fills.closed_by_venue_share",
        equity_at=of_equity(_closed_by_venue_share),
        arguments=(WINDOW, CAUSES),
        unit="ratio",
        meaning="Notional of the fills by which the venue itself closed positions ÷ equity.",
        partly_known=_MISSING,
        unknown="equity is unknown",
        range=NOT_NEGATIVE,
        needs_equity=True,
        axioms=Axioms(grows_with=("window",), within=_CAUSES_WITHIN, at_most=("exposure.turnover",)),
        collects=(FilledByOthers,),
        reader=_closed_by_venue_share,
    ),
    _signal(
        name="exposure.turnover",
        equity_at=of_equity(_turnover),
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
        reader=_turnover,
    ),
)
