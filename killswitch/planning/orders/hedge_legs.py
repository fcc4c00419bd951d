"""Hedge legs: finds positions that offset each other, and the order in which their slices are closed.

A long and a short of one base asset offset each other, and a portfolio-margined account pays margin for the net.
Closing one leg completely before the other raises the margin in the middle of a close that should lower it. The slices
of such legs are therefore ordered so that the net exposure never exceeds its initial value; if no such order exists, so
that its maximum on the way is minimal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from itertools import accumulate, product
from math import prod

from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.orders.slices import Cut
from killswitch.planning.spot_routes import base_of
from killswitch.valuation.position_measures import ZERO, sign
from killswitch.valuation.scope_view import ScopeView

MOST_STATES = 4096
"""Maximum number of dead ends of the search; beyond it the heavier side goes first."""

Leg = Sequence[Decimal]
"""Change of the net exposure by each slice of a leg, in base units: positive for a long, negative for a short."""


def leg_order(net: Decimal, legs: Sequence[Leg]) -> list[int]:
    """Order of the slices: indexes of `legs`, each as often as the leg has slices.

    `net` is the exposure before, including other holdings of the base asset. Of the orders within the bound it is the
    first in the given order of legs.
    """
    bound, tried = abs(net), 0
    while tried < MOST_STATES:
        order, bound, dead_ends = _within(bound, net, legs)
        if order is not None:
            return order
        tried += dead_ends
    if prod(len(leg) + 1 for leg in legs) <= MOST_STATES:
        return _least_peak(net, legs)
    return _heavier_side_first(net, legs)


def _within(bound: Decimal, net: Decimal, legs: Sequence[Leg]) -> tuple[list[int] | None, Decimal, int]:
    """The first order in which the exposure never exceeds the bound, or None.

    Also the smallest exposure that the bound has refused, and the number of dead ends.

    Depth-first search with backtracking; no state is visited twice. It ends after `MOST_STATES` dead ends.
    """
    done, slices = [0] * len(legs), sum(map(len, legs))
    dead: set[tuple[int, ...]] = set()
    order: list[int] = []
    refused = Decimal("Infinity")
    begin = 0  # first leg to try at this place
    while len(order) < slices:
        for chosen in range(begin, len(legs)):
            if done[chosen] == len(legs[chosen]) or (dead and _after(tuple(done), chosen) in dead):
                continue
            exposure = abs(net - legs[chosen][done[chosen]])
            if exposure <= bound:
                net -= legs[chosen][done[chosen]]
                done[chosen] += 1
                order.append(chosen)
                begin = 0
                break
            refused = min(refused, exposure)
        else:
            dead.add(tuple(done))
            if not order or len(dead) >= MOST_STATES:
                return None, refused, len(dead)
            last = order.pop()
            done[last] -= 1
            net += legs[last][done[last]]
            begin = last + 1
    return order, bound, len(dead)


def _least_peak(net: Decimal, legs: Sequence[Leg]) -> list[int]:
    """Exact minimax order, by dynamic programming over all states, backwards."""
    closed = [[ZERO, *accumulate(leg)] for leg in legs]
    peak: dict[tuple[int, ...], Decimal] = {}
    for state in product(*(range(len(leg), -1, -1) for leg in legs)):
        ahead = [peak[_after(state, i)] for i, leg in enumerate(legs) if state[i] < len(leg)]
        here = abs(net - sum((closed[i][n] for i, n in enumerate(state)), ZERO))
        peak[state] = max(here, min(ahead, default=ZERO))
    state = (0,) * len(legs)
    bound = peak[state]
    order: list[int] = []
    while len(order) < sum(map(len, legs)):
        chosen = next(i for i, leg in enumerate(legs) if state[i] < len(leg) and peak[_after(state, i)] <= bound)
        order.append(chosen)
        state = _after(state, chosen)
    return order


def _after(state: tuple[int, ...], leg: int) -> tuple[int, ...]:
    return (*state[:leg], state[leg] + 1, *state[leg + 1 :])


def _heavier_side_first(net: Decimal, legs: Sequence[Leg]) -> list[int]:
    """Greedy order: the first slice of the heavier side within the bound, else the one with the least exposure."""
    bound, done = abs(net), [0] * len(legs)
    order: list[int] = []
    while len(order) < sum(map(len, legs)):
        ahead = [(i, legs[i][done[i]]) for i in range(len(legs)) if done[i] < len(legs[i])]
        within_bound = [i for i, part in ahead if part * net > ZERO and abs(net - part) <= bound]
        chosen = within_bound[0] if within_bound else min(ahead, key=lambda each: abs(net - each[1]))[0]
        net -= legs[chosen][done[chosen]]
        done[chosen] += 1
        order.append(chosen)
    return order


Group = tuple[str, str]
"""(account, base asset); the account is empty unless it has portfolio margin."""


def in_leg_order(view: ScopeView, cuts: Sequence[Cut], wanted: Sequence[int]) -> tuple[list[int], list[str]]:
    """Slices of all cuts (by index of the cut) in the order of closing, and assets of unknown exposure.

    `wanted`: the order without legs, in which each cut is as often as it has slices. Only legs on opposite sides of one
    base asset are reordered. A portfolio margin account nets its own positions; all others are netted over the scope.
    """
    order = list(wanted)
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
    """Net exposure of each group over all positions, in base units; None if one is unknown."""
    nets: dict[Group, Decimal | None] = dict.fromkeys(groups, ZERO)
    for account, position in view.positions() if groups else ():
        group = _group(account, position)
        if group in nets:
            net, size = nets[group], base_units_of(view, account, position)
            nets[group] = None if net is None or size is None else net + size
    return nets


def _slices(view: ScopeView, cut: Cut) -> list[Decimal]:
    """Change of the net exposure by each slice of the cut."""
    base_units = base_units_of(view, cut.candidate.account, cut.candidate.position)
    if base_units is None:
        raise AssertionError("the net exposure of a group is known only if that of each position is")
    return [part * base_units / cut.candidate.position.contracts for part in cut.result.parts]


def base_units_of(view: ScopeView, account: AccountSnapshot, position: Position) -> Decimal | None:
    """The position in base units, negative for a short. Spot holdings are given in base units."""
    instrument = view.instrument(account.account, position.symbol)
    size = None if instrument is None else instrument.contract_size
    if size is None:
        return position.contracts if account.market == "spot" else None
    face = position.contracts * size * sign(position)
    if instrument is None or not instrument.inverse:
        return face
    return face / position.mark_price if position.mark_price else None
