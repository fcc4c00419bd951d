"""Position signals, evaluated for each position when a stage closes: for the conditions of `close` and rankings.

The underlying measures are computed once for the whole book, in the scope's currency (`RankedPosition`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import WINDOW
from killswitch.signals.declaration import FRACTION, NOT_NEGATIVE, UNBOUNDED, PositionSignal, SignalSpec
from killswitch.signals.history.bleed_rates import BleedRates

if TYPE_CHECKING:
    from killswitch.signals.declaration import RankedPosition


def _loss(ranked: RankedPosition) -> float | None:
    pnl = ranked.candidate.pnl
    return None if pnl is None else max(0.0, -pnl)


_current = partial(PositionSignal, arguments=(), partly_known="never", collects=())
"""A number of a position without a window."""

SIGNALS: tuple[SignalSpec, ...] = (
    PositionSignal(
        name="position.pnl_delta",
        unit="money",
        arguments=(WINDOW,),
        measures="loss",
        meaning=(
            "Change of the position's P&L, realised and unrealised, since the unit value was highest in the window."
        ),
        partly_known="never",
        unknown="the P&L of a position of the scope is unknown at either end, or the window is not complete",
        range=UNBOUNDED,
        reader=lambda ranked, window: ranked.candidate.pnl_change(window),
        collects=(),
    ),
    PositionSignal(
        name="position.bleed_rate",
        unit="money per hour",
        arguments=(),
        measures="loss",
        meaning=(
            "How fast the position loses, realised and unrealised: the mean of its loss per hour over 15, 60 and 240 "
            "minutes, each since the position was opened if that is later, and over at least a quarter of the window; "
            "negative for a gain."
        ),
        partly_known="never",
        unknown=(
            "the P&L of a position of the scope is unknown now; its own when a window began, unless it was opened since"
        ),
        range=UNBOUNDED,
        reader=lambda ranked: ranked.candidate.bleed_rate,
        collects=(BleedRates,),
    ),
    _current(
        name="position.loss",
        unit="money",
        measures="loss",
        meaning="Current unrealised loss, as a positive number; 0 when in profit.",
        unknown="its P&L is unknown",
        range=NOT_NEGATIVE,
        reader=_loss,
    ),
    _current(
        name="position.liquidation_distance",
        unit="fraction",
        measures="condition",
        meaning="Distance of the mark from the liquidation price ÷ mark; 0 at or beyond it.",
        unknown="mark or liquidation price is unknown",
        range=NOT_NEGATIVE,
        reader=lambda ranked: ranked.candidate.liquidation_distance,
    ),
    _current(
        name="position.notional_share",
        unit="fraction",
        measures="condition",
        meaning="Its share of the gross notional.",
        unknown="a price is missing",
        range=FRACTION,
        reader=lambda ranked: ranked.candidate.notional_share,
    ),
    _current(
        name="position.margin_loss",
        unit="fraction",
        measures="loss",
        meaning="Current unrealised loss ÷ margin; 0 when in profit.",
        unknown="its P&L or margin is unknown",
        range=NOT_NEGATIVE,
        reader=lambda ranked: ranked.candidate.margin_loss,
    ),
    _current(
        name="position.score",
        unit="score",
        measures="condition",
        meaning="The stage's ranking score: 0 harmless, larger closes first.",
        unknown="never: a term that is unknown counts as the worst in the book",
        range=UNBOUNDED,
        reader=lambda ranked: ranked.score,
    ),
)
