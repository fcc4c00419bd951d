"""Declared hedges as positions: their legs, their net, and the sides that what they made counts on.

The net of a `HedgeGroup` is the sum of the base units of its legs × their declared ratios. While every leg is known,
what the legs made counts together, on the side of the net; what a hedge without a net made, such as its basis, is half
of either side's. That includes legs that were closed since. While a leg is unknown nothing states on which side the
hedge is, so that what its legs made has no side.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.valuation.position_measures import ZERO, base_quantity

if TYPE_CHECKING:  # `ksctl validate` imports this module through the catalogue, and needs no views
    from killswitch.model.snapshot import AccountSnapshot, Position
    from killswitch.signals.arguments import HedgeLegs, LegOfHedge
    from killswitch.valuation.scope_view import PnlKey, ScopeView

_SHARE = Decimal("1e-12")
"""The fraction of the largest leg up to which a net is none: base units of inverse contracts are quotients."""


class LegPosition(Struct, frozen=True):
    """An open position that is a leg of a hedge: `units` in base units of the hedge, negative for a short."""

    account: AccountSnapshot
    position: Position
    units: Decimal

    @property
    def key(self) -> PnlKey:
        return (self.account.account, self.position.symbol, self.position.side)


class HedgePosition(Struct, frozen=True):
    """A hedge with its open legs, in the scope and around it. `unknown`: why its net is unknown, or None."""

    hedge: HedgeLegs
    legs: tuple[LegPosition, ...]
    unknown: str | None = None

    @property
    def net(self) -> Decimal:
        """Base units of the hedge, negative for a short; 0 where the legs cancel each other."""
        return net_of(leg.units for leg in self.legs)


def net_of(units: Iterable[Decimal]) -> Decimal:
    """The sum of the legs' units; 0 where they cancel each other."""
    found = list(units)
    net, largest = sum(found, ZERO), max(map(abs, found), default=ZERO)
    return net if abs(net) > _SHARE * largest else ZERO


def hedge_position(hedge: HedgeLegs, view: ScopeView, unseen: Collection[str] = ()) -> HedgePosition:
    """The open legs of the hedge, and why its net is unknown, or None. `unseen`: accounts of last known positions."""
    legs: list[LegPosition] = []
    unknown: list[str] = []
    for leg in hedge.legs:
        where, account = f"{leg.symbol} on {leg.account}", view.at_venue(leg.account)
        reason = _unreadable(leg, account, view, unseen)
        if reason is not None or account is None:
            unknown.append(f"{where}: {reason}")
        inside = view if any(each.account == leg.account for each in view.accounts) else None
        whole = inside if account is None or reason is not None else inside or view.with_accounts([account])
        rows = [] if whole is None else [
            (each, row) for each, row in whole.positions() if (each.account, row.symbol) == (leg.account, leg.symbol)
        ]  # fmt: skip
        for each, row in rows:
            size = base_quantity(row, each, view.instrument(leg.account, leg.symbol))
            if size is None:
                unknown.append(f"{where}: the size of its contracts is unknown")
            legs.append(LegPosition(each, row, (size or ZERO) * leg.ratio))
        if len({row.side for _, row in rows}) > 1:
            unknown.append(f"{where}: it is held on both sides")
    return HedgePosition(hedge, tuple(legs), "; ".join(dict.fromkeys(unknown)) or None)


def _unreadable(
    leg: LegOfHedge, account: AccountSnapshot | None, view: ScopeView, unseen: Collection[str]
) -> str | None:
    """Why the positions of the leg's account are unknown, or None."""
    if account is None:
        return "its account is not in the snapshot"
    if leg.account in unseen:
        return "only its last known position is there"
    whole = view.with_accounts([account])
    return next((reason for facts in whole.facts if (reason := whole.reason_unknown(facts)) is not None), None)


def changes_by_side(
    change: Mapping[PnlKey, Decimal], hedges: Iterable[HedgeLegs], view: ScopeView
) -> tuple[Decimal, Decimal] | str:
    """The P&L of the long and of the short side, or why it is unknown: a leg of a hedge that made something is.

    `change`: P&L by position of the scope `view`, closed ones included. A position that two hedges name belongs to the
    first. The books of strategies and symbols are parts, of which the other legs may not be: they are not netted.
    """
    sides = {"long": ZERO, "short": ZERO}
    rest = dict(change)
    for hedge in hedges if view.part is None else ():
        declared = {(leg.account, leg.symbol) for leg in hedge.legs}
        made = [rest.pop(key) for key in change if key in rest and key[:2] in declared]
        if not any(made):
            continue
        held = hedge_position(hedge, view)
        if held.unknown is not None:
            return f"the hedge {hedge.name} is not netted: {held.unknown}"
        total, net = sum(made, ZERO), held.net
        sides["long"] += total if net > ZERO else ZERO if net else total / 2
        sides["short"] += total if net < ZERO else ZERO if net else total / 2
    for key, each in rest.items():
        sides[key[2]] += each
    return sides["long"], sides["short"]
