"""Equity signals: the scope's equity, the fall of its unit value, and unexplained changes."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import WINDOW
from killswitch.signals.declaration import (
    FRACTION,
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    UNBOUNDED,
    Axioms,
    ScopeSignal,
    SignalSpec,
)
from killswitch.signals.equity_levels import drawdown_level, peak_level, start_level, value_level
from killswitch.signals.history.windows import UNKNOWN, drawdown, drawdown_from_peak, known, loss_from_start

if TYPE_CHECKING:
    from killswitch.signals.declaration import Bounds, EquityPath, Floats
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

_NO_EQUITY = (
    "every account of the scope is unavailable (stale, malformed, down, or without an equity), or one of them is "
    "not in the snapshot"
)
_ONE_UNAVAILABLE = (
    "one of several accounts is unavailable: it is bounded by its last positions and by price moves at other venues"
)
_TWO_VALUES = f"an unexplained change of equity leaves two possible unit values; {_ONE_UNAVAILABLE}"


def _value(history: History, view: ScopeView) -> Interval:
    """The scope's equity; bounds of it while accounts are unavailable."""
    found = history.equity_range
    if view.unknown is None or found is None:
        return known(view.equity)
    return float(found.low), float(found.high)


def _unexplained(history: History, view: ScopeView) -> Interval:
    if view.unknown is not None or view.equity is None or not history.explanation.complete:
        return UNKNOWN
    return known(history.changes.sum)


def _unexplained_share(history: History, view: ScopeView) -> Interval:
    if view.unknown is not None or view.equity is None or not history.explanation.complete:
        return UNKNOWN
    fallen = -sum(
        (change.converted_amount for change in history.changes.unexplained if change.converted_amount < 0), Decimal(0)
    )
    return known(_share(fallen, view.equity + fallen))


def _share(part: Decimal, total: Decimal) -> Decimal:
    """part ÷ whole, at most 1; 1 if the whole is not positive."""
    if not part:
        return Decimal(0)
    return min(Decimal(1), part / total) if total > 0 else Decimal(1)


def _certain(values: Floats) -> Bounds:
    return values, values


def _drawdown_ahead(path: EquityPath, window: int) -> Bounds:
    return path.within(window, path.fall_from(path.highest_in(window)), most=1.0)


_equity_signal = partial(
    ScopeSignal, keeps_highest=False, reads_pnl=False, needs_equity=True, collects=(), arguments=()
)
"""A number of the scope's equity that keeps nothing else."""

_unexplained_change = partial(
    _equity_signal,
    equity_at="only a change of equity that nothing explains moves it",
    axioms=NO_AXIOMS,
    measures="condition",
    partly_known="never",
    unknown=f"{_NO_EQUITY}; a position gives neither its P&L nor the prices to compute it",
    look_ahead=NO_LOOK_AHEAD,
    is_loss_size=False,
    counts_unexplained=True,
)
"""A condition of the changes of equity that are unexplained."""

SIGNALS: tuple[SignalSpec, ...] = (
    _equity_signal(
        name="equity.value",
        equity_at=value_level,
        axioms=NO_AXIOMS,
        unit="money",
        measures="loss",
        meaning="Equity in the scope's currency, as reported by the venue.",
        partly_known=_ONE_UNAVAILABLE,
        unknown=(
            f"{_NO_EQUITY}; accounts of a scope in different currencies, without a reference currency or a rate to it"
        ),
        range=UNBOUNDED,
        reader=_value,
        look_ahead=lambda path: _certain(path.equity),
        is_loss_size=False,
        counts_unexplained=False,
    ),
    ScopeSignal(
        name="equity.drawdown",
        equity_at=drawdown_level,
        arguments=(WINDOW,),
        unit="fraction",
        measures="loss",
        meaning=(
            "Fall of the unit value from its highest in the window: 1 − now ÷ highest; "
            "1 when equity is at or below zero."
        ),
        partly_known=(
            "the window reaches back before the first observation, or holds a gap longer than max_gap: "
            f"then it is at least what was seen, and at most 1; {_TWO_VALUES}"
        ),
        unknown=_NO_EQUITY,
        range=FRACTION,
        axioms=Axioms(grows_with=("window",)),
        reader=lambda history, _, window: drawdown(history, window),
        look_ahead=_drawdown_ahead,
        is_loss_size=True,
        counts_unexplained=False,
        keeps_highest=True,
        reads_pnl=False,
        needs_equity=True,
        collects=(),
    ),
    _equity_signal(
        name="equity.drawdown_from_peak",
        equity_at=peak_level,
        axioms=Axioms(is_kept=True),
        unit="fraction",
        measures="loss",
        meaning="Fall of the unit value from its highest since the start or the last reset by hand.",
        partly_known=_TWO_VALUES,
        unknown=_NO_EQUITY,
        range=FRACTION,
        reader=lambda history, _: drawdown_from_peak(history),
        look_ahead=lambda path: _certain(path.fall_from(path.highest)),
        is_loss_size=True,
        counts_unexplained=False,
    ),
    _equity_signal(
        name="equity.loss_from_start",
        equity_at=start_level,
        axioms=Axioms(at_most=("equity.drawdown_from_peak",), is_kept=True),
        unit="fraction",
        measures="loss",
        meaning=(
            "Fall of the unit value from what it was at the start of observation, or at the last reset by hand; "
            "0 when above it."
        ),
        partly_known=_TWO_VALUES,
        unknown=_NO_EQUITY,
        range=FRACTION,
        reader=lambda history, _: loss_from_start(history),
        look_ahead=lambda path: _certain(path.fall_from(path.start)),
        is_loss_size=True,
        counts_unexplained=False,
    ),
    _unexplained_change(
        name="equity.unexplained",
        unit="money",
        meaning=(
            "Sum of the equity changes of the last 48 h that no price, trade or ledger row explains, until they are "
            "explained or an operator resets; negative for a fall."
        ),
        range=UNBOUNDED,
        reader=_unexplained,
    ),
    _unexplained_change(
        name="equity.unexplained_share",
        unit="fraction",
        meaning=("The falls in `equity.unexplained` as a fraction of the equity without them; 0 if there are none."),
        range=FRACTION,
        reader=_unexplained_share,
    ),
)
