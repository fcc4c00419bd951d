"""Venue health signals: age, latency and errors of answers.

The paper venue of a backtest answers in the same way at every bar, so these signals do not change between ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from killswitch.signals.declaration import NOT_NEGATIVE, UNBOUNDED, UNCHANGED, ScopeSignal, SignalSpec
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.signals.scope_view import ScopeView


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


SIGNALS: tuple[SignalSpec, ...] = (
    ScopeSignal(
        name="venue.age",
        unit="seconds",
        measures="condition",
        meaning=(
            "Time from the oldest observation of an account of the scope to the snapshot's as_of. It keeps growing "
            "while an account is unavailable, also over a restart."
        ),
        partly_known="an account was never observed: it is at least the time since it is watched",
        unknown="an available account does not report observed_at",
        range=UNBOUNDED,
        reader=lambda history, view: history.last_observed.age(view),
        look_ahead=UNCHANGED,
        is_loss_size=False,
        counts_unexplained=False,
    ),
    ScopeSignal(
        name="venue.latency",
        unit="milliseconds",
        measures="condition",
        meaning="The slowest account's latency.",
        partly_known="never",
        unknown="an account does not report its latency",
        range=UNBOUNDED,
        reader=_latency,
        look_ahead=UNCHANGED,
        is_loss_size=False,
        counts_unexplained=False,
    ),
    ScopeSignal(
        name="venue.error_rate",
        unit="fraction",
        measures="condition",
        meaning="Errors and timeouts ÷ requests of this snapshot.",
        partly_known="never",
        unknown="request counts are missing or zero",
        range=NOT_NEGATIVE,
        reader=_error_rate,
        look_ahead=UNCHANGED,
        is_loss_size=False,
        counts_unexplained=False,
    ),
    ScopeSignal(
        name="venue.malformed",
        unit="count",
        measures="condition",
        meaning="Malformed answers in this snapshot.",
        partly_known="never",
        unknown="the count is missing",
        range=NOT_NEGATIVE,
        reader=lambda _, view: known(_health_sum(view, "malformed")),
        look_ahead=UNCHANGED,
        is_loss_size=False,
        counts_unexplained=False,
    ),
    ScopeSignal(
        name="venue.consecutive_failures",
        unit="count",
        measures="condition",
        meaning=(
            "Consecutive scheduled snapshots in which an account of the scope was not `ok`. Snapshots woken by a push "
            "are not counted, but a sound one resets the count."
        ),
        partly_known="never",
        unknown="never",
        range=NOT_NEGATIVE,
        reader=lambda history, _: known(history.failures),
        look_ahead=UNCHANGED,
        is_loss_size=False,
        counts_unexplained=False,
    ),
)
