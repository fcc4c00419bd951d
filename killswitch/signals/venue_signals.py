"""Venue signals: age, latency and errors of answers, rate limits, the clock, and the queue of deleveraging.

The paper venue of a backtest answers in the same way at every bar, so most of these do not change between ticks.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import WINDOW, Argument
from killswitch.signals.declaration import (
    FRACTION,
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    NOT_NEGATIVE,
    UNBOUNDED,
    UNCHANGED,
    BoolSignal,
    SignalSpec,
    condition,
)
from killswitch.signals.history.pulse import Latencies
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

ZERO = Decimal(0)


def _health_sum(view: ScopeView, *counts: str) -> int | None:
    """The sum of the named counts over the scope's accounts; None if one is unknown."""
    total = 0
    for account in view.accounts:
        for name in counts:
            count = None if account.health is None else getattr(account.health, name)
            if count is None:
                return None
            total += count
    return total if view.accounts else None


def _latency(_: History, view: ScopeView) -> Interval:
    latencies = [account.health.latency_ms if account.health else None for account in view.accounts]
    worst = [latency for latency in latencies if latency is not None]
    return known(max(worst)) if worst and len(worst) == len(latencies) else UNKNOWN


def _error_rate(_: History, view: ScopeView) -> Interval:
    requests = _health_sum(view, "requests")
    failed = _health_sum(view, "errors", "timeouts")
    return known(failed / requests) if requests and failed is not None else UNKNOWN


def _worst_of(values: list[float | None], most: float) -> Interval:
    """The largest value; at least that of the others if one is missing, and unknown without any."""
    found = [value for value in values if value is not None]
    if not found:
        return UNKNOWN
    return max(found), max(found) if len(found) == len(values) else most


def _latency_quantile(history: History, view: ScopeView, q: float, window: int) -> Interval:
    latencies = history.collectors.of(Latencies)
    return _worst_of([latencies.quantile(account.account, q, window) for account in view.accounts], math.inf)


def _limit_headroom(view: ScopeView) -> Interval:
    """Of the limit that is used most; at most that of the others if an account does not state its limits."""
    rooms: list[float] = []
    is_complete = bool(view.accounts)
    for account in view.accounts:
        limits = None if account.health is None else account.health.limits
        is_complete &= bool(limits)
        for each in limits or ():
            if each.limit > 0 and each.used.is_finite() and each.limit.is_finite():
                rooms.append(min(1.0, max(0.0, float(1 - each.used / each.limit))))
            else:
                is_complete = False
    if not rooms:
        return UNKNOWN
    return min(rooms) if is_complete else 0.0, min(rooms)


def _clock_skew(view: ScopeView) -> Interval:
    skews = [None if account.health is None else account.health.clock_skew_ms for account in view.accounts]
    return _worst_of([abs(each) if each is not None and math.isfinite(each) else None for each in skews], math.inf)


def _adl_rank(view: ScopeView) -> Interval:
    """The highest share of all positions; at least that of the others if a rank or an account is unknown."""
    readable = view.trusted()
    columns = readable.columns
    if columns is None:
        return UNKNOWN
    ranks: list[float | None] = [None if math.isnan(each) else float(each) for each in columns.adl_rank]
    if len(readable.accounts) < len(view.accounts):
        ranks.append(None)
    return _worst_of(ranks, 1.0) if ranks else known(0.0)


def _withdrawals_suspended(view: ScopeView) -> bool | None:
    """True if one account states it of an asset; false only if every account states that it is not so."""
    stated = [None if account.quality != "ok" else account.withdrawals for account in view.accounts]
    if any(asset.suspended for assets in stated for asset in assets or ()):
        return True
    return None if not stated or None in stated else False


QUANTILE = Argument(
    key="q",
    kind="fraction",
    meaning="The quantile, as a fraction: 0.99 is exceeded by one poll in a hundred.",
    example="0.99",
    range=(0.01, 0.9999),
)


def _equity_share(history: History, view: ScopeView, venue: str) -> Interval:
    """The venue's equity ÷ that of the scope: v ÷ (v + o), which is monotone in v and in o, the others' equity."""
    own = {account.account for account in view.accounts if account.venue == venue}
    if not own:
        return UNKNOWN
    if view.unknown is None and view.equity is not None:
        amounts = (
            view.converted_or_unknown(each.equity or ZERO, each) for each in view.accounts if each.account in own
        )
        known_amounts = [amount for amount in amounts if amount is not None]
        return known(sum(known_amounts, ZERO) / view.equity) if view.equity > ZERO else UNKNOWN
    ranges = history.equity_ranges
    if ranges is None:
        return UNKNOWN
    ends: dict[bool, tuple[Decimal, Decimal]] = {}
    for is_own in (True, False):
        parts = [each for name, each in ranges.items() if (name in own) == is_own]
        ends[is_own] = sum((each.low for each in parts), ZERO), sum((each.high for each in parts), ZERO)
    if ends[True][0] + ends[False][0] <= ZERO:
        return UNKNOWN
    shares = [_part(one, other) for one in ends[True] for other in ends[False]]
    return min(shares), max(shares)


def _part(one: Decimal, other: Decimal) -> float:
    """one ÷ (one + other), whose sum is above zero; the limit if one of them is infinite."""
    if one.is_finite():
        return float(one / (one + other)) if other.is_finite() else 0.0
    return 1.0 if other.is_finite() else 0.5  # both are unbounded: any share between those of the other ends


VENUE = Argument(
    key="venue",
    kind="name",
    meaning="The name of a venue, as in the Accounts.",
    example="binance",
)

_condition = partial(condition, look_ahead=UNCHANGED)
"""A condition of a venue."""

SIGNALS: tuple[SignalSpec, ...] = (
    _condition(
        name="venue.age",
        unit="seconds",
        meaning=(
            "Time from the oldest observation of an account of the scope to the snapshot's as_of. It keeps growing "
            "while an account is unavailable, also over a restart."
        ),
        partly_known="an account was never observed: it is at least the time since it is watched",
        unknown="an available account does not report observed_at",
        range=UNBOUNDED,
        reader=lambda history, view: history.last_observed.age(view),
    ),
    _condition(
        name="venue.latency",
        unit="milliseconds",
        meaning="The slowest account's latency.",
        partly_known="never",
        unknown="an account does not report its latency",
        range=UNBOUNDED,
        reader=_latency,
    ),
    _condition(
        name="venue.error_rate",
        unit="fraction",
        meaning="Errors and timeouts ÷ requests of this snapshot.",
        partly_known="never",
        unknown="request counts are missing or zero",
        range=NOT_NEGATIVE,
        reader=_error_rate,
    ),
    _condition(
        name="venue.malformed",
        unit="count",
        meaning="Malformed answers in this snapshot.",
        partly_known="never",
        unknown="the count is missing",
        range=NOT_NEGATIVE,
        reader=lambda _, view: known(_health_sum(view, "malformed")),
    ),
    _condition(
        name="venue.latency_quantile",
        unit="milliseconds",
        arguments=(QUANTILE, WINDOW),
        axioms=NO_AXIOMS,  # it grows with q only while both are known: a larger one needs more polls
        meaning=(
            "The quantile q of the latencies of an account's polls in the window, of the slowest account; by linear "
            "interpolation (type 7, NumPy's default). A poll without an answer counts with the time that it was waited "
            "for."
        ),
        partly_known="an account has too few polls: it is at least that of the others",
        unknown="every account has fewer than 1 ÷ (1 − q) polls in the window: 100 for the quantile 0.99",
        range=NOT_NEGATIVE,
        look_ahead=NO_LOOK_AHEAD,
        collects=(Latencies,),
        reader=_latency_quantile,
    ),
    _condition(
        name="venue.limit_headroom",
        unit="fraction",
        meaning=(
            "1 − used ÷ limit of the rate limit that is used most, as the venues' last answers state it. A burst of "
            "requests after a reconnection lowers it for a minute: confirm it."
        ),
        partly_known="an account does not state its limits: it is at most that of the others",
        unknown="no account states its limits",
        range=FRACTION,
        look_ahead=NO_LOOK_AHEAD,
        reader=lambda _, view: _limit_headroom(view),
    ),
    _condition(
        name="venue.clock_skew",
        unit="milliseconds",
        meaning=(
            "The largest difference between a venue's clock and the runner's, in either direction. It is measured at "
            "the middle of a request, so that it is wrong by up to half of the latency."
        ),
        partly_known="that of an account is missing: it is at least that of the others",
        unknown="no account reports it",
        range=NOT_NEGATIVE,
        look_ahead=NO_LOOK_AHEAD,
        reader=lambda _, view: _clock_skew(view),
    ),
    _condition(
        name="positions.adl_rank",
        unit="fraction",
        meaning=(
            "The highest rank of a position in its venue's queue of automatic deleveraging ÷ the venue's highest rank: "
            "at 1 it is among the first that the venue closes if the insurance fund runs out. A very profitable "
            "position is always there: combine it with a condition on the market. 0 for an empty book."
        ),
        partly_known="a rank or an account is unknown: it is at least that of the others",
        unknown="no rank is known",
        range=FRACTION,
        look_ahead=NO_LOOK_AHEAD,
        reader=lambda _, view: _adl_rank(view),
    ),
    BoolSignal(
        name="venue.withdrawals_suspended",
        arguments=(),
        meaning=(
            "Whether a venue has suspended withdrawals of an asset on all its chains. Maintenance of wallets is "
            "routine: confirm it for hours."
        ),
        partly_known="never",
        unknown="an account does not state it",
        needs_equity=False,
        collects=(),
        reader=lambda _, view: _withdrawals_suspended(view),
    ),
    _condition(
        name="venue.equity_share",
        equity_at="it depends on which account loses",
        needs_equity=True,
        arguments=(VENUE,),
        unit="fraction",
        meaning=(
            "Equity at the venue ÷ equity of the scope; negative for a debt there. A transfer in transit is in neither."
        ),
        partly_known=(
            "an account is unavailable: its equity is bounded by its last positions and by price moves at other venues"
        ),
        unknown="no account of the scope is at the venue; the scope's equity is not above zero, or may not be",
        range=UNBOUNDED,
        reader=_equity_share,
        look_ahead=NO_LOOK_AHEAD,
    ),
    _condition(
        name="venue.consecutive_failures",
        unit="count",
        meaning=(
            "Consecutive scheduled snapshots in which an account of the scope was not `ok`. Snapshots woken by a push "
            "are not counted, but a sound one resets the count."
        ),
        partly_known="never",
        unknown="never",
        range=NOT_NEGATIVE,
        reader=lambda history, _: known(history.failures),
    ),
)
