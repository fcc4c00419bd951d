"""Equity levels: the equity of a scope at which a signal has a given value, in closed form.

Everything else stays as it is: transfers, the size of the positions, their notional and margins, and other prices. Of
signals that measure losses of positions, the loss is one of the open positions. `limit` is a value of the signal; money
is in the scope's currency. None: no equity gives the signal that value, or a number that it takes is unknown.

A level is of a signal whose value is known now: callers do not read one of a signal that is partly known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from killswitch.signals.history.anchored_values import FirstEquities, OpeningValues
from killswitch.signals.history.margin_ratios import MarginRatios, maintenance
from killswitch.signals.history.windows import gains

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from killswitch.signals.history.scope import History
    from killswitch.signals.sessions import Anchor
    from killswitch.valuation.scope_view import ScopeView

EquityLevel = float | None


def value_level(_: History, __: ScopeView, limit: float) -> EquityLevel:
    """Of the equity itself."""
    return limit


# Of the unit value


def _at_unit_value(history: History, value: float) -> EquityLevel:
    """The equity of the present units at a unit value; a value at or below zero has fallen by all of it."""
    units = history.track.units
    return value * units if units > 0.0 and math.isfinite(value) else None


def _after_fall(history: History, highest: float, fall: float) -> EquityLevel:
    """The equity after a fall from `highest`, which is above zero; None for a fall that no value has."""
    return _at_unit_value(history, highest * (1.0 - fall)) if highest > 0.0 and 0.0 < fall <= 1.0 else None


def drawdown_level(history: History, _: ScopeView, limit: float, window: int) -> EquityLevel:
    """After a fall from the highest unit value in the window."""
    return _after_fall(history, history.track.highest(window), limit)


def peak_level(history: History, _: ScopeView, limit: float) -> EquityLevel:
    """After a fall from the highest unit value since the start or the last reset by an operator."""
    return _after_fall(history, history.changes.highest(history.interpretations[0]), limit)


def start_level(history: History, _: ScopeView, limit: float) -> EquityLevel:
    """After a fall from the unit value at the start or the last reset by an operator."""
    return _after_fall(history, history.track.start, limit)


def opening_level(history: History, _: ScopeView, limit: float, anchor: Anchor) -> EquityLevel:
    """After a fall from the unit value at the last open of the anchor."""
    opened = history.collectors.of(OpeningValues).at_open(anchor)
    return None if opened is None else _after_fall(history, opened.value, limit)


def capital_level(history: History, _: ScopeView, limit: float, capital: Decimal) -> EquityLevel:
    """After a loss of a declared capital."""
    first = history.collectors.of(FirstEquities).under(capital)
    if first is None or first.value <= 0.0 or not 0.0 < limit <= 1.0:
        return None
    share = 1.0 if first.is_accepted else float(first.equity / capital)
    return None if share <= 0.0 else _at_unit_value(history, first.value * (1.0 - limit) / share)


def profit_level(history: History, _: ScopeView, limit: float) -> EquityLevel:
    """At a profit since the start."""
    found = gains(history)
    return _at_unit_value(history, found[0].base * (1.0 + limit)) if found and limit >= -1.0 else None


def given_back_level(history: History, _: ScopeView, limit: float) -> EquityLevel:
    """After a part of the highest profit is lost again; None without a profit, and beyond all equity."""
    found = gains(history)
    if not found or not found[0].base < found[0].best < math.inf:
        return None
    value = found[0].best - limit * (found[0].best - found[0].base)
    return _at_unit_value(history, value) if value >= 0.0 else None


# Linear in the equity


def shifted(value: Callable[..., tuple[float, float]]) -> Callable[..., EquityLevel]:
    """The level of a signal that falls by as much as equity falls; `value` is its reader."""

    def level(history: History, view: ScopeView, limit: float, *arguments: object) -> EquityLevel:
        equity, now = view.equity, value(history, view, *arguments)[0]
        return None if equity is None or not math.isfinite(now) else float(equity) - (now - limit)

    return level


def unrealised_share_level(_: History, view: ScopeView, limit: float) -> EquityLevel:
    """Where unrealised P&L ÷ equity is the limit, and a further loss of the positions lowers both."""
    made, equity = view.open_profit(), view.equity
    if made is None or equity is None or limit >= 1.0:
        return None
    level = (float(equity) - float(made)) / (1.0 - limit)
    return level if level > 0.0 else None


# A part of the equity


def of_equity(value: Callable[..., tuple[float, float]]) -> Callable[..., EquityLevel]:
    """The level of a signal that is a part ÷ equity, where the part stays; `value` is its reader."""

    def level(history: History, view: ScopeView, limit: float, *arguments: object) -> EquityLevel:
        equity, now = view.equity, value(history, view, *arguments)[0]
        if equity is None or equity <= 0 or limit <= 0.0 or not 0.0 < now < math.inf:
            return None
        return now * float(equity) / limit

    return level


def buffer_level(_: History, view: ScopeView, limit: float) -> EquityLevel:
    """Where (equity − maintenance margin) ÷ gross notional is the limit."""
    columns, margin = view.columns, maintenance(view)
    exposure = None if columns is None else columns.exposure
    if exposure is None or margin is None or not exposure.gross:
        return None
    return limit * float(exposure.gross) + float(margin)


def margin_change_level(history: History, view: ScopeView, limit: float, window: int) -> EquityLevel:
    """Where the margin ratio has risen by the limit in the window."""
    before, margin = history.collectors.of(MarginRatios).at_begin(view.as_of, window)[0], maintenance(view)
    if margin is None or not margin or not math.isfinite(before):
        return None
    return float(margin) / (before + limit) if before + limit > 0.0 else None


def worst_loss_level(_: History, view: ScopeView, limit: float, against: str) -> EquityLevel:
    """Where one position has lost the limit, and it is the one that needs the smallest further loss."""
    import numpy as np

    columns, equity = view.columns, view.equity
    if columns is None or equity is None or not len(columns) or limit <= 0.0:
        return None
    if against == "equity":  # (loss + more) ÷ (equity − more) is the limit
        more = (limit * float(equity) + columns.unrealised) / (1.0 + limit)
    else:
        base = columns.entry_value if against == "entry" else columns.margin
        more = limit * base + columns.unrealised
    least = cast(float, np.min(more))  # NaN if one of them is unknown
    return float(equity) - float(least) if math.isfinite(least) else None
