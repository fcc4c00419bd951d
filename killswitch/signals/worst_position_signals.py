"""Losing positions of a scope: the largest loss, how many have lost so much, and how fast the worst one loses.

A leg of a hedge loses while the book does not: a stage that closes on one of these needs a signal of the scope's own
equity next to it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import Argument
from killswitch.signals.declaration import (
    NOT_NEGATIVE,
    UNBOUNDED,
    Axioms,
    SignalSpec,
    certain,
    condition,
    unsure,
)
from killswitch.signals.equity_levels import worst_loss_level
from killswitch.signals.history.bleed_rates import BleedRates
from killswitch.signals.history.windows import UNKNOWN
from killswitch.signals.trade_signals import SIDE

if TYPE_CHECKING:
    from killswitch.signals.declaration import Bounds, EquityPath, Floats
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.position_columns import PositionColumns
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
LOST = Argument(
    key="lost",
    kind="fraction",
    range=(0.0, math.inf),
    meaning="The loss from which a position counts, as a fraction of `against`.",
    example="6%",
)


def _worst_loss(history: History, view: ScopeView, against: str) -> Interval:
    """The largest loss ÷ base; at least that of the known ones if one is unknown."""
    import numpy as np

    found = _ratios(history, view, against)
    if found is None:
        return UNKNOWN
    ratios, _, is_whole = found
    worst = float(np.maximum.reduce(ratios, initial=0.0))
    if not math.isnan(worst):
        return worst, worst if is_whole else math.inf
    return float(ratios[~np.isnan(ratios)].max(initial=0.0)), math.inf


def _losing(history: History, view: ScopeView, side: str, against: str, lost: float) -> Interval:
    """How many positions of the side have lost so much; at least the known ones."""
    found = _ratios(history, view, against)
    if found is None:
        return UNKNOWN
    ratios, columns, is_whole = found
    of_side = [ratio for ratio, own in zip(ratios.tolist(), columns.sides, strict=True) if side in ("any", own)]
    least = sum(ratio >= lost for ratio in of_side)
    return float(least), least + sum(map(math.isnan, of_side)) if is_whole else math.inf


def _ratios(history: History, view: ScopeView, against: str) -> tuple[Floats, PositionColumns, bool] | None:
    """Loss ÷ base of each position (NaN: unknown), the columns, and whether no account is missing; None if unknown."""
    import numpy as np

    trusted = view.trusted()
    columns = trusted.columns
    if columns is None:
        return None
    losses = np.maximum(0.0, -columns.unrealised)  # keeps NaN
    if against == "equity":
        equity = _highest_equity(history, view)
        if equity is None:
            return None
        base: Floats = np.full(len(columns), equity)
    else:
        base = columns.entry_value if against == "entry" else columns.margin
    if np.minimum.reduce(base, initial=math.inf) > 0.0:
        return losses / base, columns, trusted is view
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = losses / base
    if against == "equity":
        ratios[(base <= 0.0) & (losses > 0.0)] = math.inf
    else:
        ratios[~(base > 0.0)] = math.nan
    ratios[losses == 0.0] = 0.0
    return ratios, columns, trusted is view


def _highest_equity(history: History, view: ScopeView) -> float | None:
    """The scope's equity; the highest possible one while an account is unavailable."""
    if view.unknown is None and view.equity is not None:
        return float(view.equity)
    found = history.equity_range
    return None if found is None else float(found.high)


def _worst_bleed(history: History, view: ScopeView) -> Interval:
    worst = history.collectors.of(BleedRates).worst(history)
    if worst is None:
        return (0.0, 0.0) if _is_empty(history, view) else UNKNOWN
    rate, is_of_all = worst
    return rate, rate if is_of_all else math.inf


def _is_empty(history: History, view: ScopeView) -> bool:
    """Whether the scope is known to hold nothing."""
    return history.unknown is None and view.columns is not None and not len(view.columns)


# At future bars


def _worst_loss_ahead(path: EquityPath, against: str) -> Bounds:
    """Of margins, which venues round and state, only ticks can tell, and of an equity that is not positive."""
    import numpy as np

    book = path.book
    if book is None or against == "margin":
        return unsure(path)
    if not len(book.symbols):
        return certain(path.equity * 0.0)
    losses = np.maximum(0.0, -book.unrealised)
    if against == "entry":
        if not bool((book.entry_value > 0.0).all()):
            return unsure(path)
        return certain((losses / book.entry_value[:, np.newaxis]).max(axis=0))
    return certain(losses.max(axis=0) / np.where(path.equity > 0.0, path.equity, np.nan))


def _worst_bleed_ahead(path: EquityPath) -> Bounds:
    """Where a window begins before the first row, or a position was opened in it, only a tick can tell."""
    book, history = path.book, path.history
    if book is None:
        return unsure(path)
    if not len(book.symbols):
        return certain(path.equity * 0.0)
    if history.ledger.unknown:
        return unsure(path)
    worst = history.collectors.of(BleedRates).ahead(path.since, book.made, len(path.at), history.max_gap)
    return certain(worst.max(axis=0))


_worst = partial(condition, reads_pnl=True)
"""The largest value of all positions."""

SIGNALS: tuple[SignalSpec, ...] = (
    _worst(
        name="positions.worst_loss",
        equity_at=worst_loss_level,
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
        look_ahead=_worst_loss_ahead,
    ),
    _worst(
        name="positions.losing",
        equity_at="it counts positions",
        axioms=Axioms(falls_with=("lost",)),
        arguments=(SIDE, AGAINST, LOST),
        unit="count",
        meaning=(
            "How many positions of one side have an unrealised loss of at least `lost` × `against`. Many small ones "
            "count as much as large ones, and the legs of hedges too: combine it with a fall of equity before anything "
            "is closed."
        ),
        partly_known="a position's loss, or what it is divided by, is unknown: at least the others count",
        unknown="the positions of every account are unknown, or equity is",
        range=NOT_NEGATIVE,
        reader=_losing,
    ),
    _worst(
        name="positions.worst_bleed",
        equity_at="it is a speed",
        needs_equity=True,
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
        look_ahead=_worst_bleed_ahead,
        collects=(BleedRates,),
    ),
)
