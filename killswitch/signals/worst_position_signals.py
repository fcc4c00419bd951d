"""The worst position of a scope: its loss against what it is compared with, and how fast it loses.

A leg of a hedge loses while the book does not: a stage that closes on one of these needs a signal of the scope's own
equity next to it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import Argument
from killswitch.signals.declaration import (
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    NOT_NEGATIVE,
    UNBOUNDED,
    ScopeSignal,
    SignalSpec,
)
from killswitch.signals.history.bleed_rates import BleedRates
from killswitch.signals.history.windows import UNKNOWN

if TYPE_CHECKING:
    from killswitch.signals.declaration import Floats
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

AGAINST = Argument(
    key="against",
    kind="word",
    words=("entry", "equity", "margin"),
    meaning=(
        "What the loss of a position is divided by: its notional at the entry price, the scope's equity, or its margin "
        "as the venue reports it, which scales with leverage and with cross margin changes with settings."
    ),
    example="entry",
)


def _worst_loss(history: History, view: ScopeView, against: str) -> Interval:
    """The largest loss ÷ base; at least that of the known ones if one is unknown."""
    import numpy as np

    trusted = view.trusted()
    columns = trusted.columns
    if columns is None:
        return UNKNOWN
    losses = np.maximum(0.0, -columns.unrealised)  # keeps NaN
    if against == "equity":
        equity = _highest_equity(history, view)
        if equity is None:
            return UNKNOWN
        base: Floats = np.full(len(columns), equity)
    else:
        base = columns.entry_value if against == "entry" else columns.margin
    if bool((base > 0.0).all()):
        worst = float((losses / base).max(initial=0.0))
        if not math.isnan(worst):
            return worst, worst if trusted is view else math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = losses / base
    if against == "equity":
        ratios[(base <= 0.0) & (losses > 0.0)] = math.inf
    else:
        ratios[~(base > 0.0)] = math.nan
    ratios[losses == 0.0] = 0.0
    seen = ratios[~np.isnan(ratios)]
    worst = float(seen.max(initial=0.0))
    return worst, worst if trusted is view and len(seen) == len(columns) else math.inf


def _highest_equity(history: History, view: ScopeView) -> float | None:
    """The scope's equity; the highest possible one while an account is unavailable."""
    if view.unknown is None and view.equity is not None:
        return float(view.equity)
    found = history.equity_range
    return None if found is None else float(found.high)


def _worst_bleed(history: History, view: ScopeView) -> Interval:
    rates = history.collectors.of(BleedRates).rates(history)
    seen = [rate for rate in rates.values() if rate is not None]
    if not rates:
        return (0.0, 0.0) if _is_empty(history, view) else UNKNOWN
    return (max(seen), max(seen) if len(seen) == len(rates) else math.inf) if seen else UNKNOWN


def _is_empty(history: History, view: ScopeView) -> bool:
    """Whether the scope is known to hold nothing."""
    return history.unknown is None and view.columns is not None and not len(view.columns)


_worst = partial(
    ScopeSignal,
    measures="condition",
    axioms=NO_AXIOMS,
    look_ahead=NO_LOOK_AHEAD,
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=True,
)
"""The largest value of all positions."""

SIGNALS: tuple[SignalSpec, ...] = (
    _worst(
        name="positions.worst_loss",
        needs_equity=False,
        arguments=(AGAINST,),
        unit="fraction",
        meaning=(
            "Unrealised loss ÷ `against` of the position where it is largest; 0 for an empty book. One leg of a hedge "
            "may lose 9% of equity while the book loses 0.5%: combine it with a fall of equity before anything is "
            "closed."
        ),
        partly_known="a position's loss, or what it is divided by, is unknown: it is at least that of the others",
        unknown="the positions of every account are unknown, or equity is",
        range=NOT_NEGATIVE,
        reader=_worst_loss,
        collects=(),
    ),
    _worst(
        name="positions.worst_bleed",
        needs_equity=True,
        arguments=(),
        unit="money per hour",
        meaning=(
            "The largest `position.bleed_rate` of all positions: how fast the worst one loses; negative if all of them "
            "gain, 0 for an empty book."
        ),
        partly_known="the rate of a position is unknown: it is at least that of the others",
        unknown=(
            "equity, positions or the P&L of a position are unknown now; no position is known since its window began"
        ),
        range=UNBOUNDED,
        reader=_worst_bleed,
        collects=(BleedRates,),
    ),
)
