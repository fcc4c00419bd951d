"""Finds the legs of hedges among what is closed, and puts their slices in an order that keeps the net exposure down."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.cuts import Cut
from killswitch.planning.legs import leg_order
from killswitch.planning.routes import base_of
from killswitch.signals.position import ZERO, sign
from killswitch.signals.view import ScopeView

Group = tuple[str, str]
"""(account, base asset), the account only where its margin is taken of the whole portfolio."""


def in_leg_order(view: ScopeView, cuts: Sequence[Cut]) -> tuple[list[int], list[str]]:
    """The slices of all cuts (each by the index of its cut) in the order of closing, and assets of unknown exposure.

    Legs on opposite sides of one base asset exchange places among themselves; everything else stays. A portfolio
    margin account nets what it holds itself; those of other accounts are netted over the scope.
    """
    order = [i for i, cut in enumerate(cuts) for _ in cut.result.parts]
    group_of = [_group(cut.candidate.account, cut.candidate.position) for cut in cuts]
    legs: dict[Group, dict[int, None]] = {}
    places: dict[Group, list[int]] = {}
    for place, i in enumerate(order):
        legs.setdefault(group_of[i], {})[i] = None
        places.setdefault(group_of[i], []).append(place)
    hedges = {group: list(members) for group, members in legs.items() if len({cuts[i].side for i in members}) > 1}
    nets = _nets(view, hedges)
    for group, members in hedges.items():
        net = nets[group]
        if net is not None:
            slices = [_slices(view, cuts[i]) for i in members]
            for place, leg in zip(places[group], leg_order(net, slices), strict=True):
                order[place] = members[leg]
    return order, [base for (_, base), net in nets.items() if net is None]


def _group(account: AccountSnapshot, position: Position) -> Group:
    return account.account if account.margin_mode == "portfolio" else "", base_of(position.symbol)


def _nets(view: ScopeView, groups: Collection[Group]) -> dict[Group, Decimal | None]:
    """The net exposure of each group in base units, all positions counted; None where one is unknown."""
    nets: dict[Group, Decimal | None] = dict.fromkeys(groups, ZERO)
    for account, position in view.positions() if groups else ():
        group = _group(account, position)
        if group in nets:
            net, size = nets[group], _base(view, account, position)
            nets[group] = None if net is None or size is None else net + size
    return nets


def _slices(view: ScopeView, cut: Cut) -> list[Decimal]:
    """What each slice takes away from the net exposure."""
    whole = _base(view, cut.candidate.account, cut.candidate.position)
    if whole is None:
        raise AssertionError("a net exposure is only known where every position's is")
    return [part * whole / cut.candidate.position.contracts for part in cut.result.parts]


def _base(view: ScopeView, account: AccountSnapshot, position: Position) -> Decimal | None:
    """The position in base units, below zero for a short. A spot holding is counted in them."""
    instrument = view.instrument(account.account, position.symbol)
    size = None if instrument is None else instrument.contract_size
    if size is None:
        return position.contracts if account.market == "spot" else None
    face = position.contracts * size * sign(position)
    if instrument is None or not instrument.inverse:
        return face
    return face / position.mark_price if position.mark_price else None
