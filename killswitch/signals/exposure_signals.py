"""Exposure signals: the size and concentration of the book, leverage and margin ratio.

An equity path contains no positions, so these signals have no look-ahead: a policy that reads one is ticked at every
bar.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.declaration import FRACTION, NO_LOOK_AHEAD, NOT_NEGATIVE, UNBOUNDED, ScopeSignal, SignalSpec
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.held_positions import BookExposure
    from killswitch.valuation.scope_view import ScopeView


def _exposure(view: ScopeView) -> BookExposure | None:
    """Gross, net and largest notional; None if the positions or a notional are unknown."""
    columns = view.columns
    return None if columns is None else columns.exposure


def _gross(view: ScopeView) -> Decimal | None:
    exposure = _exposure(view)
    return None if exposure is None else exposure.gross


def _net(view: ScopeView) -> Decimal | None:
    exposure = _exposure(view)
    return None if exposure is None else exposure.net


def _largest_share(view: ScopeView) -> Interval:
    exposure = _exposure(view)
    if exposure is None:
        return UNKNOWN
    return known(exposure.largest / exposure.gross if exposure.gross else 0.0)


def _maintenance(view: ScopeView) -> Decimal | None:
    return None if view.unknown is not None else view.maintenance()


def _ratio(part: Decimal | None, equity: Decimal | None) -> Interval:
    """part ÷ equity; +∞ if equity is not positive and the part is."""
    if part is None or equity is None:
        return UNKNOWN
    if equity <= 0:
        return known(math.inf if part > 0 else 0.0)
    return known(part / equity)


_UNKNOWN = "positions are unknown, or a price is missing"

_condition = partial(
    ScopeSignal,
    measures="condition",
    partly_known="never",
    look_ahead=NO_LOOK_AHEAD,
    is_loss_size=False,
    counts_unexplained=False,
)
"""A condition of the book."""

SIGNALS: tuple[SignalSpec, ...] = (
    _condition(
        name="exposure.gross",
        unit="money",
        meaning="Sum of the positions' absolute notionals.",
        unknown=_UNKNOWN,
        range=NOT_NEGATIVE,
        reader=lambda _, view: known(_gross(view)),
    ),
    _condition(
        name="exposure.net",
        unit="money",
        meaning="Long minus short notional.",
        unknown=_UNKNOWN,
        range=UNBOUNDED,
        reader=lambda _, view: known(_net(view)),
    ),
    _condition(
        name="exposure.leverage",
        unit="ratio",
        meaning="Gross notional ÷ equity; +∞ when equity is at or below zero and the book is not empty.",
        unknown="positions are unknown, a price is missing, or equity is unknown",
        range=NOT_NEGATIVE,
        reader=lambda _, view: _ratio(_gross(view), view.equity),
    ),
    _condition(
        name="exposure.largest_share",
        unit="fraction",
        meaning="The largest position's share of the gross notional; 0 for an empty book.",
        unknown=_UNKNOWN,
        range=FRACTION,
        reader=lambda _, view: _largest_share(view),
    ),
    _condition(
        name="exposure.margin_ratio",
        unit="ratio",
        meaning="Maintenance margin ÷ equity; +∞ when equity is at or below zero and margin is in use.",
        unknown="maintenance margin or equity is unknown",
        range=NOT_NEGATIVE,
        reader=lambda _, view: _ratio(_maintenance(view), view.equity),
    ),
)
