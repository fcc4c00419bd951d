"""Attribution signals: which side of a book lost money.

A side's loss is the fall of its realised and unrealised P&L since the highest unit value in the window. It includes
positions that fell but are still in profit, and positions opened, reduced or closed since. The loss of a side that
gained in total is zero. A side's share is its loss ÷ the losses of both sides. The legs of a declared hedge count
together, on the side of their net.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.model.words import Source
from killswitch.signals.arguments import WINDOW
from killswitch.signals.declaration import FRACTION, NO_AXIOMS, ScopeSignal, SignalSpec, TextSignal, unsure
from killswitch.signals.history.hedge_positions import changes_by_side
from killswitch.signals.history.windows import known, pnl_change, pnl_change_by_side

if TYPE_CHECKING:
    from collections.abc import Callable

    from killswitch.model.snapshot import Side
    from killswitch.signals.declaration import Bounds, EquityPath, Floats, Instants
    from killswitch.signals.history.scope import History
    from killswitch.valuation.scope_view import ScopeView

TWO_THIRDS = 2 / 3
"""The minimum share for `attribution.source` to name a side; stages declare their own minimum."""


class Shares(Struct, frozen=True):
    """The shares of both sides, 0…1 with the sum 1, or None with the reason why they are unknown."""

    long: float | None
    short: float | None
    reason: str | None = None

    def source(self, at_least: float) -> Source:
        """The side whose share is at least `at_least`; MIXED if there is none, UNKNOWN if the shares are unknown."""
        if self.long is None or self.short is None:
            return "UNKNOWN"
        if max(self.long, self.short) < at_least:
            return "MIXED"
        return "LONG" if self.long >= self.short else "SHORT"


def shares(history: History, window: int, view: ScopeView | None = None) -> Shares:
    """Each side's share of the loss in the window (microseconds). `view`: in place of the last one observed."""
    change = _changes(history, window, view or history.view)
    if isinstance(change, str):
        return Shares(None, None, change)
    zero = Decimal(0)
    long, short = (max(zero, -made) for made in change)
    total: Decimal = long + short
    if total <= zero:
        return Shares(None, None, "neither side lost in the window")
    return Shares(float(long / total), float(short / total))


def _changes(history: History, window: int, view: ScopeView | None) -> tuple[Decimal, Decimal] | str:
    """What the long and the short side made in the window, or why that is unknown."""
    if not history.hedges or view is None:
        return pnl_change_by_side(history, window)
    change = pnl_change(history, window)
    return change if isinstance(change, str) else changes_by_side(change, history.hedges, view)


def _source(history: History, view: ScopeView, window: int) -> str | None:
    source = shares(history, window, view).source(TWO_THIRDS)
    return None if source == "UNKNOWN" else source


SMALL = 1e-6
"""The loss of both sides, as a part of the gross notional, below which float sums do not give shares exactly enough."""


def _share_ahead(path: EquityPath, window: int, side: Side) -> Bounds:
    """Only exact unit values tell which of nearly equal ones is the highest."""
    import numpy as np

    book, rows = path.book, path.history.rows
    if book is None or not path.are_exact or path.history.ledger.unknown or path.history.hedges:
        return unsure(path)
    now = (rows[-1].pnl or {}).keys()
    if not now or any(row.pnl is None or not row.pnl.keys() <= now for row in rows):
        return unsure(path)
    count, all_places = len(path.at), np.arange(len(path.since))
    places = all_places[-count:]
    latest = _latest(path.values_since, path.highest_in(window), places)
    by_side = np.array([[*map(float, path.history.pnl_by_side(row))] for row in rows]).T
    moved = book.made[:, len(rows) :] - book.made[:, len(rows) - 1 : len(rows)]
    lost = []
    for made, sign in zip(by_side, (1.0, -1.0), strict=True):
        all_made = np.concatenate([made, made[-1] + moved[book.sign == sign].sum(axis=0)])
        lost.append(np.maximum(0.0, all_made[latest] - all_made[places]))
    total, is_highest = lost[0] + lost[1], latest == places
    with np.errstate(divide="ignore", invalid="ignore"):
        share = lost[0 if side == "long" else 1] / total
    share[total <= SMALL * book.notional.sum(axis=0)] = np.nan
    low, high = np.where(is_highest, -np.inf, share), np.where(is_highest, np.inf, share)
    return path.within(window, low, -np.inf)[1], path.within(window, high, np.inf)[1]


def _latest(values: Floats, wanted: Floats, until: Instants) -> Instants:
    """For each wanted value the last of its places in `values` up to a place."""
    import numpy as np

    distinct, numbers = np.unique(values, return_inverse=True)
    keys = np.sort(numbers * len(values) + np.arange(len(values)))
    asked = distinct.searchsorted(wanted) * len(values) + until
    found: Instants = keys[keys.searchsorted(asked, "right") - 1] % len(values)
    return found


def _side_share(name: str, side: Side, reader: Callable[[Shares], float | None]) -> ScopeSignal:
    return ScopeSignal(
        name=name,
        equity_at="it is the part of one side",
        arguments=(WINDOW,),
        unit="fraction",
        measures="loss",
        meaning=(
            f"The {side} side's part of what the losing sides lost, realised and unrealised, since the unit value "
            "was highest in the window. The legs of a HedgeGroup count together, on the side of their net."
        ),
        partly_known="never",
        unknown=(
            "positions are unknown at either end; the window is not complete; neither side lost; a leg of a hedge that "
            "made something is unknown"
        ),
        range=FRACTION,
        axioms=NO_AXIOMS,
        reader=lambda history, view, window: known(reader(shares(history, window, view))),
        look_ahead=lambda path, window: _share_ahead(path, window, side),
        is_loss_size=False,
        counts_unexplained=False,
        keeps_highest=True,
        reads_pnl=True,
        needs_equity=True,
        collects=(),
    )


SIGNALS: tuple[SignalSpec, ...] = (
    _side_share("attribution.long_share", "long", lambda found: found.long),
    _side_share("attribution.short_share", "short", lambda found: found.short),
    TextSignal(
        name="attribution.source",
        arguments=(WINDOW,),
        measures="loss",
        meaning="LONG or SHORT where that side's share is at least two thirds, else MIXED.",
        partly_known="never",
        unknown="the shares are unknown",
        values=("LONG", "SHORT", "MIXED"),
        reader=_source,
        reads_pnl=True,
        needs_equity=True,
        collects=(),
    ),
)
