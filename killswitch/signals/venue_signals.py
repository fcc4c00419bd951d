"""Venue health signals: age, latency and errors of answers.

The paper venue of a backtest answers in the same way at every bar, so these signals do not change between ticks.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import Argument
from killswitch.signals.declaration import (
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    NOT_NEGATIVE,
    UNBOUNDED,
    UNCHANGED,
    BoolSignal,
    ScopeSignal,
    SignalSpec,
)
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


def _withdrawals_suspended(view: ScopeView) -> bool | None:
    """True if one account states it of an asset; false only if every account states that it is not so."""
    stated = [None if account.quality != "ok" else account.withdrawals for account in view.accounts]
    if any(asset.suspended for assets in stated for asset in assets or ()):
        return True
    return None if not stated or None in stated else False


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

_condition = partial(
    ScopeSignal,
    measures="condition",
    look_ahead=UNCHANGED,
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    collects=(),
    arguments=(),
    axioms=NO_AXIOMS,
)
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
    BoolSignal(
        name="venue.withdrawals_suspended",
        arguments=(),
        meaning=(
            "Whether a venue has suspended withdrawals of an asset on all its chains. Maintenance of wallets is "
            "routine: confirm it for hours."
        ),
        partly_known="never",
        unknown="an account does not state it",
        collects=(),
        reader=lambda _, view: _withdrawals_suspended(view),
    ),
    _condition(
        name="venue.equity_share",
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
