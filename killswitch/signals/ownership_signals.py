"""Ownership signals: declared hedges that are broken, and what no strategy owns.

They read positions and orders, so they have no look-ahead: a policy that reads one is ticked at every bar.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from killswitch.model.words import NOBODY, UNKNOWN_OWNER
from killswitch.signals.arguments import HEDGE, Argument
from killswitch.signals.declaration import (
    FRACTION,
    NOT_NEGATIVE,
    BoolSignal,
    SignalSpec,
    condition,
)
from killswitch.signals.history.order_flow import are_ours
from killswitch.signals.history.windows import UNKNOWN

if TYPE_CHECKING:
    from killswitch.model.snapshot import AccountSnapshot
    from killswitch.signals.arguments import HedgeLegs, LegOfHedge
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

_ROUNDING = 1e-12
"""The fraction of a leg that is no difference: base units are products of floats."""


def _base_units(view: ScopeView, leg: LegOfHedge) -> float | None:
    """The leg in base units of the hedge, negative for short; 0 without a position, None if it is unknown."""
    facts = next((each for each in view.facts if each.name == leg.account), None)
    if facts is None or view.reason_unknown(facts) is not None:
        return None
    held = facts.held
    found = zip(held.merged, held.floats("base"), strict=True)
    units = sum((float(base) for position, base in found if position.symbol == leg.symbol), 0.0)
    return None if math.isnan(units) else units * float(leg.ratio)


def _is_broken(view: ScopeView, hedge: HedgeLegs, tolerance: float) -> bool | None:
    """Whether |net| > tolerance × the larger side, in base units of the hedge."""
    legs = [_base_units(view, leg) for leg in hedge.legs]
    known = [leg for leg in legs if leg is not None]
    if len(known) < len(legs):
        return None
    long, short = sum(max(leg, 0.0) for leg in known), sum(max(-leg, 0.0) for leg in known)
    larger = max(long, short)
    return abs(long - short) > (tolerance + _ROUNDING) * larger


def _unowned_orders(view: ScopeView) -> Interval:
    """Least and greatest number of resting orders of nobody; at least those of readable accounts."""
    surely = maybe = 0
    is_missing = False
    for facts in view.facts:
        account = view.at_venue(facts.name) or facts.account
        if account.orders is None or view.reason_unknown(facts) is not None:
            is_missing = True
            continue
        owners = _owners(view, account)
        surely += owners.count(NOBODY)
        maybe += owners.count(UNKNOWN_OWNER)
    if not view.facts or (is_missing and len(view.facts) == 1):
        return UNKNOWN
    return float(surely), math.inf if is_missing else float(surely + maybe)


def _owners(view: ScopeView, account: AccountSnapshot) -> list[str]:
    """The owner of each resting order in the scope that is not the runner's own."""
    orders, owned = account.orders or (), view.owned(account.account)
    owners = owned.orders if owned.orders is not None else (NOBODY,) * len(orders)
    part = view.part
    return [
        owner
        for order, owner in zip(orders, owners, strict=True)
        if not are_ours(order.client_order_id)
        and (part is None or (order.symbol if part.kind == "symbol" else owner) == part.name)
    ]


def _unowned_share(view: ScopeView) -> Interval:
    columns = view.columns
    if columns is None:
        return UNKNOWN
    gross = float(columns.notional.sum())
    least, most = (float((columns.notional * part).sum()) for part in view.unowned)
    if math.isnan(gross):
        return UNKNOWN
    return (least / gross, min(most / gross, 1.0)) if gross else (0.0, 0.0)


TOLERANCE = Argument(
    key="tolerance",
    kind="fraction",
    meaning="The largest net that is no broken hedge, as a fraction of the larger side.",
    example="10%",
    range=(0.0, 1.0),
)

SIGNALS: tuple[SignalSpec, ...] = (
    BoolSignal(
        name="hedge.broken",
        arguments=(HEDGE, TOLERANCE),
        meaning=(
            "Whether the legs of a HedgeGroup no longer cancel each other: |net| > tolerance × the larger of the long "
            "and the short side, in base units × the declared ratios. False if every leg is closed. While a hedge is "
            "opened or closed one leg is ahead of the other: `confirm` it."
        ),
        partly_known="never",
        unknown="a leg is unknown: its account, its positions, or the contract size of a position",
        needs_equity=False,
        collects=(),
        reader=lambda _, view, hedge, tolerance: _is_broken(view, hedge, tolerance),
    ),
    condition(
        name="ownership.unowned_orders",
        unit="count",
        meaning=(
            "Resting orders that no Strategy owns, such as orders by hand; those of the runner itself are not counted."
        ),
        partly_known="the venue states no client order id of an order, or an account is unknown: at least the others",
        unknown="orders are unknown",
        range=NOT_NEGATIVE,
        reader=lambda _, view: _unowned_orders(view),
    ),
    condition(
        name="ownership.unowned_share",
        unit="fraction",
        meaning="Share of the gross notional that no Strategy owns; 0 for an empty book, 1 without any Strategy.",
        partly_known="the owners of a position are unknown: between the shares without it and with all of it",
        unknown="positions are unknown, or a price is missing",
        range=FRACTION,
        reader=lambda _, view: _unowned_share(view),
    ),
)
