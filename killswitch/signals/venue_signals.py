"""Venue health signals: age, latency and errors of answers.

The paper venue of a backtest answers in the same way at every bar, so these signals do not change between ticks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.declaration import (
    NO_AXIOMS,
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


_condition = partial(
    ScopeSignal,
    measures="condition",
    look_ahead=UNCHANGED,
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    needs_equity=False,
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
        needs_equity=False,
        collects=(),
        reader=lambda _, view: _withdrawals_suspended(view),
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
