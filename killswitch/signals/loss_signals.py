"""Loss and profit of a scope: since its start, since an open, of a declared capital, under a floor, and by its rows.

Those of the unit value are moved by no deposit and no withdrawal. What is compared with an amount of money is added up
in Decimal.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, cast

from killswitch.signals.arguments import WINDOW, Argument
from killswitch.signals.declaration import (
    FRACTION,
    NO_AXIOMS,
    NO_LOOK_AHEAD,
    NOT_NEGATIVE,
    UNBOUNDED,
    Axioms,
    ScopeSignal,
    SignalSpec,
    certain,
    unsure,
)
from killswitch.signals.equity_levels import (
    capital_level,
    given_back_level,
    of_equity,
    opening_level,
    profit_level,
    shifted,
    unrealised_share_level,
)
from killswitch.signals.history.account_losses import AccountLosses
from killswitch.signals.history.anchored_values import FirstEquities, OpeningValues
from killswitch.signals.history.realised_rows import FUNDING, REALISED, RealisedRows
from killswitch.signals.history.trailed_equity import TRAILS, Trail, TrailedEquity
from killswitch.signals.history.windows import UNKNOWN, Gain, fall_since, gains, growth_since, known
from killswitch.signals.sessions import ANCHOR
from killswitch.valuation.unit_value import DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from killswitch.signals.declaration import Bounds, EquityPath, Floats
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.signals.sessions import Anchor
    from killswitch.valuation.scope_view import ScopeView

CAPITAL = Argument(
    key="capital",
    kind="money",
    meaning="The capital at the first observation, in the scope's currency. Another amount is another declaration.",
    example="10000 USDT",
    range=(0.00000001, math.inf),
)
ALLOWED = Argument(
    key="allowed",
    kind="money",
    meaning="How far equity may be below its highest, in the scope's currency.",
    example="2000 USDT",
    range=(0.0, math.inf),
)
TRAIL = Argument(
    key="trail",
    kind="word",
    words=TRAILS,
    meaning="Which equity counts for the highest: at every observation, or at the last one before 00:00 UTC.",
    example="end_of_day",
)
FREEZE_AT = Argument(
    key="freeze_at",
    kind="money",
    meaning="The floor rises no further than this, in the scope's currency; a deposit raises it by as much.",
    example="50100 USDT",
    range=(0.0, math.inf),
)


# By the unit value


def _gain(part: Callable[[Gain], float], history: History) -> Interval:
    values = [part(each) for each in gains(history)]
    return (min(values), max(values)) if values else UNKNOWN


def _given_back(history: History) -> Interval:
    found = gains(history)
    gained = [each for each in found if each.best > each.base]
    if gained and len(gained) < len(found):
        return 0.0, math.inf  # the less was gained, the greater a part of it any loss is
    return _gain(lambda each: each.given_back, history)


def _profit_ahead(path: EquityPath) -> Bounds:
    return _ahead(path, path.highest * (1.0 - path.fall_from(path.highest)))


def _best_ahead(path: EquityPath) -> Bounds:
    return _ahead(path, path.highest)


def _ahead(path: EquityPath, values: Floats) -> Bounds:
    """The gain from the start to each of the values; unknown if the start was not above zero."""
    if path.start <= 0.0:
        return values * 0.0 - math.inf, values * 0.0 + math.inf
    gained = values / path.start - 1.0
    return gained, gained


def _given_back_ahead(path: EquityPath) -> Bounds:
    """A part of a small profit is known of exact values only."""
    import numpy as np

    base = path.start
    if base <= 0.0 or not path.are_exact:
        return unsure(path)
    best, now = np.maximum(base, path.highest), np.maximum(0.0, path.values_since[-len(path.at) :])
    with np.errstate(divide="ignore", invalid="ignore"):
        return certain(np.where(best > base, (best - now) / (best - base), 0.0))


def _loss_since_ahead(path: EquityPath, anchor: Anchor) -> Bounds:
    """The fall from the last value at or before the last open, open by open."""
    import numpy as np

    openings = path.history.collectors.of(OpeningValues)
    low, high = np.full(len(path.at), -np.inf), np.full(len(path.at), np.inf)
    for opened, until, value in openings.ahead(anchor, path.since, path.values_since):
        first, end = path.at.searchsorted((opened, until))
        if value is not None and first < end:
            fallen = path.fall_from(value)[first:end]
            low[first:end] = high[first:end] = fallen
    return low, high


def _loss_since(history: History, anchor: Anchor) -> Interval:
    opened = history.collectors.of(OpeningValues).at_open(anchor)
    return UNKNOWN if opened is None else fall_since(history, opened.value, opened.at)


def _loss_from_capital(history: History, capital: Decimal) -> Interval:
    first = history.collectors.of(FirstEquities).under(capital)
    if first is None:
        return UNKNOWN
    low, high = growth_since(history, first.value, first.at)
    if math.isinf(low):
        return UNKNOWN
    share = 1.0 if first.is_accepted else float(first.equity / capital)
    least, most = (min(1.0, max(0.0, round(1.0 - share * growth, DIGITS))) for growth in (high, low))
    return least, most


# Of money


def _unrealised_ahead(path: EquityPath) -> Bounds:
    return unsure(path) if path.book is None else certain(path.book.unrealised.sum(axis=0))


def _unrealised_share_ahead(path: EquityPath) -> Bounds:
    import numpy as np

    made, _ = _unrealised_ahead(path)
    with np.errstate(divide="ignore", invalid="ignore"):
        return certain(np.where(path.equity > 0.0, made / path.equity, np.nan))


def _unrealised(_: History, view: ScopeView) -> Interval:
    return known(None if view.unknown is not None else view.open_profit())


def _loss_sum(history: History, view: ScopeView, anchor: Anchor) -> Interval:
    losses = [*history.collectors.of(AccountLosses).losses(view, anchor).values()]
    if not view.accounts or all(low == 0.0 and math.isinf(high) for low, high in losses):
        return UNKNOWN
    return sum(low for low, _ in losses), sum(high for _, high in losses)


def _above_floor(history: History, allowed: Decimal, trail: Trail, freeze_at: Decimal) -> Interval:
    trailed = history.collectors.of(TrailedEquity)
    found = trailed.above(history, trail, lambda highest: min(freeze_at, highest - allowed))
    return (float(min(found)), float(max(found))) if found else UNKNOWN


def _realised(history: History, view: ScopeView, window: int) -> Interval:
    return known(history.collectors.of(RealisedRows).total(view, window, REALISED))


def _funding_paid(history: History, view: ScopeView, window: int) -> Decimal | None:
    received = history.collectors.of(RealisedRows).total(view, window, FUNDING)
    return None if received is None else -received


def _funding_share(history: History, view: ScopeView, window: int) -> Interval:
    return _share(_funding_paid(history, view, window), view.equity)


def _share(part: Decimal | None, equity: Decimal | None) -> Interval:
    """part ÷ equity; infinite, with the sign of the part, if equity is not positive; 0 of nothing."""
    if part is None or equity is None:
        return UNKNOWN
    if equity <= 0:
        return known(math.copysign(math.inf, part) if part else 0.0)
    return known(part / equity)


_NO_EQUITY = (
    "every account of the scope is unavailable (stale, malformed, down, or without an equity), or one of them is "
    "not in the snapshot"
)
_TWO_VALUES = (
    "an unexplained change of equity leaves two possible unit values; one of several accounts is unavailable: it is "
    "bounded by its last positions and by price moves at other venues"
)
_NO_PNL = (
    "positions are unknown, or a position gives neither its P&L nor the prices to compute it, as spot without entry"
)
_ROWS_MISSING = (
    "the venue has not stated within `max_gap` that {rows} complete, or they are complete only for a part of the "
    "window: either sign may be missing"
)

_of_unit_value = partial(
    ScopeSignal,
    partly_known=_TWO_VALUES,
    unknown=_NO_EQUITY,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    needs_equity=True,
    collects=(),
    arguments=(),
    axioms=NO_AXIOMS,
    is_loss_size=False,
)
"""A signal of the unit value."""

_of_rows = partial(
    ScopeSignal,
    equity_at="only what the venue books moves it",
    arguments=(WINDOW,),
    partly_known="never",
    axioms=NO_AXIOMS,
    look_ahead=NO_LOOK_AHEAD,
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    needs_equity=True,
    collects=(RealisedRows,),
)
"""A sum of ledger rows in a window."""

_of_open_positions = partial(
    _of_rows, arguments=(), measures="loss", range=UNBOUNDED, reads_pnl=True, needs_equity=False, collects=()
)
"""A sum of what is open."""

SIGNALS: tuple[SignalSpec, ...] = (
    _of_open_positions(
        name="pnl.unrealised",
        equity_at=shifted(_unrealised),
        unit="money",
        meaning=(
            "Unrealised P&L, as the venue's answer with the equity reports it, else of the positions; 0 for an empty "
            "book. A daily settlement makes it 0 without a loss."
        ),
        unknown=f"{_NO_PNL}; the equity of an account is unknown",
        reader=_unrealised,
        look_ahead=_unrealised_ahead,
    ),
    _of_open_positions(
        name="pnl.unrealised_share",
        equity_at=unrealised_share_level,
        unit="fraction",
        meaning=(
            "Unrealised P&L ÷ equity as it is now, which has lost it already: −10,000 of 90,000 are −11.1%. −∞ for a "
            "loss when equity is at or below zero."
        ),
        unknown=f"{_NO_PNL}; the equity of an account is unknown",
        reader=lambda _, view: _share(None if view.unknown is not None else view.open_profit(), view.equity),
        look_ahead=_unrealised_share_ahead,
    ),
    _of_rows(
        name="pnl.realised",
        unit="money",
        measures="loss",
        meaning=(
            "What fills realised less their fees, and funding, interest, fees, rebates and insurance, by the venue's "
            "rows in the window. Funding and daily settlements are booked at once for hours, such as at 00:00 UTC."
        ),
        unknown=(
            f"{_ROWS_MISSING.format(rows='fills and flows are')}; a fill that reduces a position states no P&L, or a "
            "fill no fee"
        ),
        range=UNBOUNDED,
        reader=_realised,
    ),
    _of_rows(
        name="pnl.funding_paid",
        unit="money",
        measures="condition",
        meaning="Funding paid less funding received, by the venue's rows in the window; negative if more was received.",
        unknown=_ROWS_MISSING.format(rows="flows are"),
        range=UNBOUNDED,
        reader=lambda history, view, window: known(_funding_paid(history, view, window)),
    ),
    _of_rows(
        name="pnl.funding_paid_share",
        equity_at=of_equity(_funding_share),
        unit="fraction",
        measures="condition",
        meaning="Funding paid less funding received ÷ equity; infinite when equity is at or below zero.",
        unknown=f"{_ROWS_MISSING.format(rows='flows are')}; equity is unknown",
        range=UNBOUNDED,
        reader=_funding_share,
    ),
    _of_unit_value(
        name="equity.profit",
        equity_at=profit_level,
        axioms=Axioms(at_most=("equity.best_profit",)),
        unit="fraction",
        measures="condition",
        meaning=(
            "Rise of the unit value since the start of observation, or the last reset by hand; negative for a fall, −1 "
            "when equity is at or below zero."
        ),
        range=(-1.0, math.inf),
        reader=lambda history, _: _gain(lambda each: each.profit, history),
        look_ahead=_profit_ahead,
    ),
    _of_unit_value(
        name="equity.best_profit",
        equity_at="it never falls: no loss makes it true",
        unit="fraction",
        measures="condition",
        meaning=(
            "The highest `equity.profit` since the start or the last reset by hand, at least 0. It never falls: what "
            "it makes true stays true until a reset."
        ),
        range=NOT_NEGATIVE,
        reader=lambda history, _: _gain(lambda each: each.best_profit, history),
        look_ahead=_best_ahead,
    ),
    _of_unit_value(
        name="equity.given_back",
        equity_at=given_back_level,
        unit="fraction",
        measures="loss",
        meaning=(
            "The part of `equity.best_profit` that is lost again, above 1 below the start; 0 without a profit. All of "
            "a profit of 0.01% is soon given back: combine it with `equity.best_profit`."
        ),
        range=NOT_NEGATIVE,
        reader=lambda history, _: _given_back(history),
        look_ahead=_given_back_ahead,
    ),
    _of_unit_value(
        name="equity.loss_since",
        equity_at=opening_level,
        arguments=(ANCHOR,),
        unit="fraction",
        measures="condition",
        meaning=(
            "Fall of the unit value since the last open of the anchor, from the last observation at or before it; 0 "
            "above it. No reset moves it. It forgets at each open: a loss of 5% before and 5.9% after it is never 6%."
        ),
        unknown=f"there was no observation within `max_gap` before the open, until the next one; {_NO_EQUITY}",
        range=FRACTION,
        reader=lambda history, _, anchor: _loss_since(history, anchor),
        look_ahead=_loss_since_ahead,
        is_loss_size=True,
        needs_equity=True,
        collects=(OpeningValues,),
    ),
    _of_unit_value(
        name="equity.loss_sum",
        equity_at="it depends on which account loses",
        arguments=(ANCHOR,),
        unit="money",
        measures="condition",
        meaning=(
            "Sum of what each account of the scope has lost since the last open of the anchor, where a gain of one "
            "cancels no loss of another. Of accounts that hedge each other one always loses."
        ),
        partly_known=f"the loss of an account is unknown: it is at least that of the others; {_TWO_VALUES}",
        unknown=f"the loss of every account is unknown since the open; {_NO_EQUITY}",
        range=NOT_NEGATIVE,
        reader=_loss_sum,
        look_ahead=NO_LOOK_AHEAD,
        is_loss_size=True,
        needs_equity=True,
        collects=(AccountLosses,),
    ),
    _of_unit_value(
        name="equity.above_floor",
        equity_at=shifted(lambda history, _, *floor: _above_floor(history, *floor)),
        arguments=(ALLOWED, TRAIL, FREEZE_AT),
        axioms=Axioms(grows_with=("allowed",), falls_with=("freeze_at",)),
        unit="money",
        measures="loss",
        meaning=(
            "Equity less a floor, which is `allowed` below the highest equity seen since the start of observation or "
            "the last reset by hand, and at most `freeze_at`. A deposit raises equity, the highest and `freeze_at` "
            "alike. With `intraday` the highest contains open profit that was never booked."
        ),
        range=UNBOUNDED,
        reader=lambda history, _, *floor: _above_floor(history, *floor),
        look_ahead=NO_LOOK_AHEAD,
        needs_equity=True,
        collects=(TrailedEquity,),
    ),
    _of_unit_value(
        name="equity.loss_from_capital",
        equity_at=capital_level,
        arguments=(CAPITAL,),
        unit="fraction",
        measures="loss",
        meaning=(
            "Loss of a declared capital: 1 − (first equity ÷ capital) × (unit value ÷ that at the first observation), "
            "at least 0. The capital is that of the first observation under this declaration: transfers before it are "
            "not known. A reset by hand, or a recovery that accepts the loss, counts what is left as the capital; an "
            "automatic reset does not."
        ),
        range=FRACTION,
        reader=lambda history, _, capital: _loss_from_capital(history, cast(Decimal, capital)),
        look_ahead=NO_LOOK_AHEAD,
        is_loss_size=True,
        needs_equity=True,
        collects=(FirstEquities,),
    ),
)
