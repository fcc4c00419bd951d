"""Signals of profit and loss: unrealised P&L, profit since the start, losses from a day's open, a capital or a floor.

Deposits and withdrawals move none of them that is a fraction: those are measured on the value of a unit.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from killswitch.signals.arguments import Argument
from killswitch.signals.declaration import (
    FRACTION,
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    NOT_NEGATIVE,
    UNBOUNDED,
    Axioms,
    ScopeSignal,
    SignalSpec,
)
from killswitch.signals.history.anchors import DayOpen, FirstObservation, TrailingFloor
from killswitch.signals.history.windows import UNKNOWN, known, unit_value

if TYPE_CHECKING:
    from killswitch.signals.history.anchors import KeptValue
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

ANCHOR = Argument(
    key="anchor",
    kind="word",
    words=("utc_day",),
    meaning="From when the loss counts: the last 00:00 UTC.",
    example="utc_day",
)
CAPITAL = Argument(
    key="capital",
    kind="money",
    meaning="The declared initial capital, in the scope's currency; it is that of the first observation.",
    example="10000",
    range=(1e-9, math.inf),
)
ALLOWED = Argument(
    key="allowed",
    kind="money",
    meaning="How far the floor is below the highest equity, in the scope's currency.",
    example="2000",
    range=(0.0, math.inf),
)
TRAIL = Argument(
    key="trail",
    kind="word",
    words=tuple(TrailingFloor.MODES),
    meaning="Whether the floor trails every observation, or the last one of each UTC day.",
    example="end_of_day",
)
FREEZE_AT = Argument(
    key="freeze_at",
    kind="money",
    meaning="The equity at which the floor stops, in the scope's currency.",
    example="50100",
    range=(0.0, math.inf),
)
AGAINST = Argument(
    key="against",
    kind="word",
    words=("entry", "equity", "margin"),
    meaning="What the loss of a position is compared with: its notional at entry, the scope's equity, or its margin.",
    example="entry",
)


# Unrealised P&L


def _unrealised(view: ScopeView) -> float | None:
    """The unrealised profit of all accounts: of the answer of their equity, else the sum of their positions'."""
    if view.unknown is not None:
        return None
    total = Decimal(0)
    for facts in view.facts:
        own = facts.sound.unrealized
        own = facts.unrealised if own is None else own
        amount = None if own is None else view.converted_or_unknown(own, facts.account)
        if amount is None:
            return None
        total += amount
    return float(total)


def _unrealised_share(view: ScopeView) -> Interval:
    profit = _unrealised(view)
    if profit is None or view.equity is None:
        return UNKNOWN
    if view.equity <= 0:
        return known(-math.inf if profit < 0 else math.inf if profit > 0 else 0.0)
    return known(profit / float(view.equity))


# Profit since the start


def _relative(history: History, base: float, since: int) -> Interval:
    """V ÷ base, by both interpretations of the changes of equity since then that are open; 0 for no equity."""
    found = unit_value(history, since)
    if found == UNKNOWN or base <= 0.0:
        return UNKNOWN
    return max(0.0, found[0] / base), max(0.0, found[1] / base)


def _profit(history: History, _: ScopeView) -> Interval:
    low, high = _relative(history, history.track.start, history.track.start_at)
    return low - 1.0, high - 1.0


def _best_profit(history: History, _: ScopeView) -> Interval:
    """The highest unit value since the start, as a profit: at least the highest known one."""
    base = history.track.start
    if base <= 0.0 or history.last_at is None:
        return UNKNOWN
    peaks = [history.changes.highest(each) / base - 1.0 for each in history.interpretations]
    now = _profit(history, history.view) if history.view is not None else UNKNOWN
    return max(0.0, min(peaks), now[0]), max(0.0, *peaks, now[1])


def _given_back(history: History, view: ScopeView) -> Interval:
    (least, most), (low, high) = _best_profit(history, view), _profit(history, view)
    if math.isinf(most) or math.isinf(low) or math.isinf(high):
        return (0.0, math.inf)
    ends = [_part_given_back(best, profit) for best in (least, most) for profit in (low, high)]
    return min(ends), max(ends)


def _part_given_back(best: float, profit: float) -> float:
    return max(0.0, (best - profit) / best) if best > 0.0 else 0.0


# Losses from an anchor


def _loss_from(history: History, kept: KeptValue | None, part: float = 1.0) -> Interval:
    """1 − part × V ÷ V then, between 0 and 1; unknown if nothing was observed then."""
    if kept is None:
        return UNKNOWN
    found = unit_value(history, kept.at)
    if found[1] <= 0.0:
        return 1.0, 1.0
    low, high = _relative(history, kept.value, kept.at)
    if math.isinf(high):
        return UNKNOWN
    return _share(1.0 - part * high), _share(1.0 - part * low)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _loss_since(history: History, _: ScopeView, anchor: str) -> Interval:
    return _loss_from(history, history.collectors.of(DayOpen).value)


def _loss_from_capital(history: History, _: ScopeView, capital: Decimal) -> Interval:
    first = history.collectors.of(FirstObservation).of(f"{capital:f}")
    return _loss_from(history, first, 1.0 if first is None else first.equity / float(capital))


def _above_floor(history: History, view: ScopeView, allowed: Decimal, trail: str, freeze_at: Decimal) -> Interval:
    floors = history.collectors.of(TrailingFloor)
    highest = floors.highest(trail)
    if highest is None or view.unknown is not None or view.equity is None:
        return UNKNOWN
    floor = min(float(freeze_at), highest - float(allowed)) + floors.flows
    return known(float(view.equity) - floor)


def _worst_loss(view: ScopeView, against: str) -> Interval:
    columns = view.columns
    if columns is None:
        return UNKNOWN
    losses = (-columns.unrealised).clip(min=0.0)  # keeps NaN
    if not len(losses):
        return 0.0, 0.0
    if against == "equity":
        equity = float(view.equity or 0)
        shares = [loss / equity if equity > 0.0 else (math.inf if loss > 0.0 else 0.0) for loss in losses.tolist()]
    else:
        bases = (columns.entry_notional if against == "entry" else columns.margin).tolist()
        shares = [_ratio(loss, base) for loss, base in zip(losses.tolist(), bases, strict=True)]
    seen = [each for each in shares if not math.isnan(each)]
    worst = max(seen, default=0.0)
    return (worst, worst) if len(seen) == len(shares) else (worst, math.inf)


def _ratio(loss: float, base: float) -> float:
    """loss ÷ base; a loss on nothing is unknown, and no loss is 0."""
    if loss == 0.0:
        return 0.0
    return loss / base if base > 0.0 else math.nan


_NO_EQUITY = "equity is unknown"
_signal = partial(
    ScopeSignal,
    arguments=(),
    axioms=NO_AXIOMS,
    measures="loss",
    look_ahead=NO_LOOK_AHEAD,
    partly_known="never",
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    needs_equity=True,
    collects=(),
)
_by_unit = partial(_signal, unit="fraction", partly_known="an unexplained change of equity leaves two values possible")
"""A fraction that is measured on the value of a unit."""

SIGNALS: tuple[SignalSpec, ...] = (
    _signal(
        name="pnl.unrealised",
        needs_equity=False,
        unit="money",
        meaning=(
            "Unrealised P&L of the scope, from the same answer as its equity where the venue states it. A daily "
            "settlement that moves entry prices to the mark makes it 0 without a loss."
        ),
        unknown="equity is unknown, or a position gives neither its P&L nor the prices to compute it",
        range=UNBOUNDED,
        reader=lambda _, view: known(_unrealised(view)),
    ),
    _signal(
        name="pnl.unrealised_share",
        unit="ratio",
        meaning=(
            "Unrealised P&L ÷ equity, negative for a loss; −∞ for a loss when equity is at or below zero. Equity "
            "contains the loss: −10,000 of 90,000 is −11.1%."
        ),
        unknown="equity is unknown, or a position gives neither its P&L nor the prices to compute it",
        range=UNBOUNDED,
        reader=lambda _, view: _unrealised_share(view),
    ),
    _by_unit(
        name="equity.profit",
        axioms=Axioms(at_most=("equity.best_profit",)),
        meaning=(
            "Rise of the unit value since the start of observation or the last reset by hand: V ÷ V_start − 1; −1 when "
            "equity is at or below zero."
        ),
        unknown=_NO_EQUITY,
        range=(-1.0, math.inf),
        reader=_profit,
    ),
    _by_unit(
        name="equity.best_profit",
        meaning=(
            "The highest `equity.profit` since the start of observation or the last reset by hand, at least 0. It "
            "never falls: `equity.best_profit >= 0.02 && equity.profit < 0.01` stays true until a reset."
        ),
        unknown="nothing was observed yet; while equity is unknown it is at least the highest known one",
        range=NOT_NEGATIVE,
        axioms=Axioms(is_kept=True),
        reader=_best_profit,
    ),
    _by_unit(
        name="equity.given_back",
        unit="ratio",
        meaning=(
            "The part of the best profit that was given back: (best − profit) ÷ best; above 1 for a loss after a "
            "profit, 0 if there was none. Of a best profit of 0.01% all is soon given back: use it with "
            "`equity.best_profit`."
        ),
        unknown=_NO_EQUITY,
        range=NOT_NEGATIVE,
        axioms=Axioms(is_kept=True),
        reader=_given_back,
    ),
    _by_unit(
        name="equity.loss_since",
        arguments=(ANCHOR,),
        meaning=(
            "Fall of the unit value since 00:00 UTC: 1 − V ÷ V_open, at least 0; V_open is the last observation at or "
            "before the open. It forgets at midnight: 5% before and 5.9% after it never reach 6%."
        ),
        unknown="nothing was observed within max_gap before the open, for that whole day; or equity is unknown",
        range=FRACTION,
        is_loss_size=True,
        collects=(DayOpen,),
        reader=_loss_since,
    ),
    _by_unit(
        name="equity.loss_from_capital",
        arguments=(CAPITAL,),
        meaning=(
            "Loss from a declared capital: 1 − E_first ÷ capital × V ÷ V_first, at least 0. E_first is the first "
            "observation under this declaration: flows before it are not known. A reset by hand accepts the loss, and "
            "the equity that is left counts as the capital."
        ),
        unknown=_NO_EQUITY,
        range=FRACTION,
        axioms=Axioms(grows_with=("capital",), is_kept=True),
        is_loss_size=True,
        collects=(FirstObservation,),
        reader=_loss_from_capital,
    ),
    _signal(
        name="equity.above_floor",
        arguments=(ALLOWED, TRAIL, FREEZE_AT),
        unit="money",
        meaning=(
            "Equity minus a floor that trails `allowed` below the highest equity, and stops at `freeze_at`. Deposits "
            "and withdrawals move the highest and the stop alike. Within the day the highest counts open profit "
            "that was never booked."
        ),
        unknown=_NO_EQUITY,
        range=UNBOUNDED,
        axioms=Axioms(grows_with=("allowed",), falls_with=("freeze_at",)),
        collects=(TrailingFloor,),
        reader=_above_floor,
    ),
    _signal(
        name="positions.worst_loss",
        needs_equity=False,
        arguments=(AGAINST,),
        unit="ratio",
        meaning=(
            "The greatest unrealised loss of a position, divided by its notional at entry, the scope's equity, or its "
            "margin; 0 for an empty book. It looks at one leg: the loss of a hedged leg is the profit of another. "
            "Margin scales with leverage: 6% of it at 10× is a move of 0.6%."
        ),
        partly_known="the loss of a position is unknown: it is at least that of the others",
        unknown="positions are unknown",
        range=NOT_NEGATIVE,
        is_loss_size=True,
        reader=lambda _, view, against: _worst_loss(view, against),
    ),
)
