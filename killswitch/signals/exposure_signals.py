"""Exposure signals: the size and concentration of the book, leverage and margin ratio.

Those of liquidation prices and margins have no look-ahead: a policy that reads one is ticked at every bar.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

from killswitch.signals.arguments import GROUP, WINDOW, Argument
from killswitch.signals.declaration import (
    FRACTION,
    NOT_NEGATIVE,
    UNBOUNDED,
    Axioms,
    SignalSpec,
    certain,
    condition,
    unsure,
)
from killswitch.signals.equity_levels import buffer_level, margin_change_level, of_equity
from killswitch.signals.history.group_estimates import parts_of
from killswitch.signals.history.margin_ratios import (
    MarginRatios,
    change,
    maintenance,
    margin_ratio,
    ratio_to_equity,
)
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from collections.abc import Callable

    from killswitch.signals.arguments import SymbolGroup, Value
    from killswitch.signals.declaration import BookPath, Bounds, EquityPath, Floats
    from killswitch.signals.history.scope import History
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


def _leverage(_: History, view: ScopeView) -> Interval:
    return ratio_to_equity(_gross(view), view.equity)


def _largest_share(view: ScopeView) -> Interval:
    exposure = _exposure(view)
    if exposure is None:
        return UNKNOWN
    return known(exposure.largest / exposure.gross if exposure.gross else 0.0)


def _imbalance(view: ScopeView) -> Interval:
    exposure = _exposure(view)
    if exposure is None:
        return UNKNOWN
    return known(exposure.net / exposure.gross if exposure.gross else 0.0)


def _herfindahl(view: ScopeView) -> Interval:
    columns = view.columns
    if columns is None:
        return UNKNOWN
    gross = columns.gross
    return known(float((columns.notional**2).sum()) / gross**2 if gross else 0.0)


def _group_share(history: History, view: ScopeView, group: SymbolGroup) -> Interval:
    """The largest share of a group; what may be correlated is one group."""
    columns = view.columns
    if columns is None:
        return UNKNOWN
    gross = columns.gross
    parts = parts_of(group, columns.symbols, history.groups, together=True)
    return known(max((float(columns.notional[columns.members(part)].sum()) for part in parts), default=0.0) / gross
                 if gross else 0.0)  # fmt: skip


def _group_net(history: History, view: ScopeView, group: SymbolGroup) -> Interval:
    """The net of the group with the largest; in doubt, symbols are netted or not, as makes it larger."""
    columns = view.columns
    if columns is None:
        return UNKNOWN
    signed = columns.sign * columns.notional
    parts = {part for use in (True, False) for part in parts_of(group, columns.symbols, history.groups, together=use)}
    nets = [float(signed[columns.members(part)].sum()) for part in sorted(parts)]
    if any(math.isnan(net) for net in nets):
        return UNKNOWN
    return known(max(nets, key=abs, default=0.0))


def _liquidation_distance(view: ScopeView, pick: str) -> Interval:
    columns = view.columns
    if columns is None:
        return UNKNOWN
    distances = columns.liquidation_distance.clip(0.0, 1.0)  # keeps NaN
    if not len(distances):
        return 1.0, 1.0
    if pick == "worst":
        seen = [each for each in distances.tolist() if not math.isnan(each)]
        least = min(seen, default=1.0)
        return (least, least) if len(seen) == len(distances) else (0.0, least)
    gross = columns.gross
    return known(float((columns.notional * distances).sum()) / gross if gross else float(distances.min()))


def _liquidation_buffer(view: ScopeView) -> Interval:
    gross, margin = _gross(view), maintenance(view)
    if gross == 0:
        return 1.0, 1.0
    if gross is None or margin is None or view.equity is None:
        return UNKNOWN
    return known((view.equity - margin) / gross)


def _margin_ratio_change(history: History, view: ScopeView, window: int) -> Interval:
    return change(margin_ratio(view), history.collectors.of(MarginRatios).at_begin(view.as_of, window))


# At future bars


def _ahead(of: Callable[..., Floats]) -> Callable[..., Bounds]:
    """The look-ahead of what `of` computes of the positions, the equity and the arguments."""

    def look_ahead(path: EquityPath, *arguments: Value) -> Bounds:
        return unsure(path) if path.book is None else certain(of(path.book, path.equity, *arguments))

    return look_ahead


def _of_gross(part: Floats, book: BookPath) -> Floats:
    """part ÷ gross notional; 0 for an empty book."""
    return part / book.notional.sum(axis=0) if len(book.symbols) else part * 0.0


def _leverage_ahead(book: BookPath, equity: Floats) -> Floats:
    import numpy as np

    gross = book.notional.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(equity > 0.0, gross / equity, np.inf if len(book.symbols) else 0.0)


def _largest_ahead(book: BookPath, _: Floats) -> Floats:
    return _of_gross(book.notional.max(axis=0, initial=0.0), book)


def _net_ahead(book: BookPath, _: Floats) -> Floats:
    net: Floats = book.sign @ book.notional
    return net


def _herfindahl_ahead(book: BookPath, _: Floats) -> Floats:
    return _of_gross(_of_gross((book.notional**2).sum(axis=0), book), book)


def _members(book: BookPath, part: tuple[str, ...]) -> Floats:
    import numpy as np

    return np.array([float(symbol in part) for symbol in book.symbols])


def _group_ahead(of: Callable[[BookPath, tuple[str, ...]], Floats], *uses: bool) -> Callable[..., Bounds]:
    """The look-ahead of the group of which `of` is largest; nothing is known ahead of groups that are estimated."""

    def look_ahead(path: EquityPath, group: SymbolGroup) -> Bounds:
        import numpy as np

        if path.book is None or group.estimate is not None:
            return unsure(path)
        book = path.book
        found = {part for use in uses for part in parts_of(group, book.symbols, None, together=use)}
        if not found:
            return certain(path.equity * 0.0)
        rows = np.array([of(book, part) for part in sorted(found)])
        return certain(np.take_along_axis(rows, np.abs(rows).argmax(axis=0)[np.newaxis], axis=0)[0])

    return look_ahead


LEVERAGE: Final = "exposure.leverage"
"""The signal that a reduction to a leverage is checked against."""
_UNKNOWN = "positions are unknown, or a price is missing"

PICK = Argument(
    key="pick",
    kind="word",
    words=("worst", "weighted"),
    meaning="Of several positions, the nearest one, or the mean by notional.",
    example="worst",
)

_condition = partial(condition, partly_known="never")
"""A condition of the book."""

SIGNALS: tuple[SignalSpec, ...] = (
    _condition(
        name="exposure.gross",
        unit="money",
        meaning="Sum of the positions' absolute notionals.",
        unknown=_UNKNOWN,
        range=NOT_NEGATIVE,
        reader=lambda _, view: known(_gross(view)),
        look_ahead=_ahead(lambda book, _: book.notional.sum(axis=0)),
    ),
    _condition(
        name="exposure.net",
        unit="money",
        meaning="Long minus short notional.",
        unknown=_UNKNOWN,
        range=UNBOUNDED,
        reader=lambda _, view: known(_net(view)),
        look_ahead=_ahead(_net_ahead),
    ),
    _condition(
        name=LEVERAGE,
        equity_at=of_equity(_leverage),
        needs_equity=True,
        unit="ratio",
        meaning="Gross notional ÷ equity; +∞ when equity is at or below zero and the book is not empty.",
        unknown="positions are unknown, a price is missing, or equity is unknown",
        range=NOT_NEGATIVE,
        reader=_leverage,
        look_ahead=_ahead(_leverage_ahead),
    ),
    _condition(
        name="exposure.largest_share",
        unit="fraction",
        meaning="The largest position's share of the gross notional; 0 for an empty book.",
        unknown=_UNKNOWN,
        range=FRACTION,
        reader=lambda _, view: _largest_share(view),
        look_ahead=_ahead(_largest_ahead),
    ),
    _condition(
        name="exposure.imbalance",
        unit="fraction",
        meaning="Long minus short notional ÷ gross notional: 1 if all of it is long, −1 if short; 0 for an empty book.",
        unknown=_UNKNOWN,
        range=(-1.0, 1.0),
        reader=lambda _, view: _imbalance(view),
        look_ahead=_ahead(lambda book, equity: _of_gross(_net_ahead(book, equity), book)),
    ),
    _condition(
        name="exposure.herfindahl",
        axioms=Axioms(at_most=("exposure.largest_share",)),
        unit="fraction",
        meaning=(
            "Sum of the squared shares of the positions in the gross notional (Herfindahl index): 1 for one position, "
            "1/n for n equal ones; 0 for an empty book. It is at least 1/n for every book of n positions."
        ),
        unknown=_UNKNOWN,
        range=FRACTION,
        reader=lambda _, view: _herfindahl(view),
        look_ahead=_ahead(_herfindahl_ahead),
    ),
    _condition(
        name="exposure.group_share",
        arguments=(GROUP,),
        unit="fraction",
        meaning=(
            "Share of the gross notional that is in symbols of the group; 0 for an empty book. Of a CorrelationGroup "
            "with correlations the largest share of the groups that its symbols form: those that may be correlated, "
            "because the interval of their correlation reaches the threshold or nothing is known of it, count together."
        ),
        unknown=_UNKNOWN,
        range=FRACTION,
        reader=_group_share,
        look_ahead=_group_ahead(lambda book, part: _of_gross(_members(book, part) @ book.notional, book), True),
    ),
    _condition(
        name="exposure.group_net",
        arguments=(GROUP,),
        unit="money",
        meaning=(
            "Long minus short notional in symbols of the group. Of a CorrelationGroup with correlations that of the "
            "group with the largest net: symbols that may be correlated add up, and only those that surely are net."
        ),
        unknown=_UNKNOWN,
        range=UNBOUNDED,
        reader=_group_net,
        look_ahead=_group_ahead(lambda book, part: (book.sign * _members(book, part)) @ book.notional, True, False),
    ),
    _condition(
        name="exposure.liquidation_distance",
        arguments=(PICK,),
        unit="fraction",
        meaning=(
            "Distance of the marks from the liquidation prices ÷ mark, at most 1: of the nearest position (`worst`), "
            "or the mean by notional (`weighted`); 1 for an empty book. With cross margin a liquidation price moves "
            "with every other position: `exposure.liquidation_buffer` is the signal for that."
        ),
        partly_known="the liquidation price of a position is unknown: the worst is at most that of the others",
        unknown="positions are unknown; for `weighted` also if a price or a liquidation price is missing",
        range=FRACTION,
        reader=lambda _, view, pick: _liquidation_distance(view, pick),
    ),
    _condition(
        name="exposure.liquidation_buffer",
        equity_at=buffer_level,
        needs_equity=True,
        unit="fraction",
        meaning=(
            "Equity less maintenance margin ÷ gross notional: the adverse move of everything at once that is left "
            "until a liquidation; 0 or less at it, 1 for an empty book. With cross margin it is the signal to use."
        ),
        unknown="positions, maintenance margin or equity are unknown, or a price is missing",
        range=UNBOUNDED,
        reader=lambda _, view: _liquidation_buffer(view),
    ),
    _condition(
        name="exposure.margin_ratio",
        equity_at=of_equity(lambda _, view: margin_ratio(view)),
        needs_equity=True,
        unit="ratio",
        meaning="Maintenance margin ÷ equity; +∞ when equity is at or below zero and margin is in use.",
        unknown="maintenance margin or equity is unknown",
        range=NOT_NEGATIVE,
        reader=lambda _, view: margin_ratio(view),
    ),
    _condition(
        name="exposure.margin_ratio_change",
        equity_at=margin_change_level,
        arguments=(WINDOW,),
        collects=(MarginRatios,),
        axioms=Axioms(at_most=("exposure.margin_ratio",)),
        needs_equity=True,
        unit="ratio",
        meaning=(
            "`exposure.margin_ratio` now minus the one at the beginning of the window, of 240 observations in it. A "
            "withdrawal, another tier of maintenance margin or a change of the hedge mode move it without a loss."
        ),
        partly_known=(
            "nothing was observed within `max_gap` before the window, the ratio was unknown then, or accounts have "
            "joined or left the scope since: it is at most the current ratio"
        ),
        unknown="maintenance margin or equity is unknown; or equity is at or below zero now and was then",
        range=UNBOUNDED,
        reader=_margin_ratio_change,
    ),
)
