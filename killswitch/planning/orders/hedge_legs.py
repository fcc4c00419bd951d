"""Legs of hedges: which positions are some, and in which order they are closed.

A long and a short of one base asset cancel each other, and a portfolio-margined account pays margin for what is left.
Closing one leg whole before the other uncovers it: the margin rises in the middle of a close that is to lower it. So
the slices of such legs are put in an order in which the net exposure never rises above what it was, where there is one;
where there is none, in one whose greatest net exposure on the way is the least there is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from itertools import accumulate, product
from math import prod

from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.orders.slices import Cut
from killswitch.planning.spot_routes import base_of
from killswitch.signals.position import ZERO, sign
from killswitch.signals.view import ScopeView

MOST_STATES = 4096
"""Up to so many ways of being half done lead nowhere before the search is ended; then the heavier side goes first."""

Leg = Sequence[Decimal]
"""What each slice of a leg takes away from the net exposure, in base units: above zero of a long, below of a short."""


def leg_order(net: Decimal, legs: Sequence[Leg]) -> list[int]:
    """Which leg's next slice goes when: indexes of `legs`, each as often as it has slices.

    `net` is the exposure before, with what else is held of the base asset. Of the orders that keep within the bound the
    one that departs the least from the order given.
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
    """The first order, as they are given, in which the exposure never rises above the bound; None without one.

    Then also the least exposure that the bound has refused, and how many dead ends there were.

    Step by step the first leg that keeps within it, and back where that leads nowhere; no way of being half done is
    tried twice. It gives up after `MOST_STATES` of them.
    """
    done, slices = [0] * len(legs), sum(map(len, legs))
    dead: set[tuple[int, ...]] = set()
    order: list[int] = []
    refused = Decimal("Infinity")
    begin = 0  # the leg from which on to try at this place
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
    """The exact answer, from every state of being done backwards: what the highest exposure from there on must be."""
    gone = [[ZERO, *accumulate(leg)] for leg in legs]
    peak: dict[tuple[int, ...], Decimal] = {}
    for state in product(*(range(len(leg), -1, -1) for leg in legs)):
        ahead = [peak[_after(state, i)] for i, leg in enumerate(legs) if state[i] < len(leg)]
        here = abs(net - sum((gone[i][n] for i, n in enumerate(state)), ZERO))
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
    """Slice by slice: the first of the heavier side that keeps within the bound, else what leaves the least."""
    bound, done = abs(net), [0] * len(legs)
    order: list[int] = []
    while len(order) < sum(map(len, legs)):
        ahead = [(i, legs[i][done[i]]) for i in range(len(legs)) if done[i] < len(legs[i])]
        fitting = [i for i, part in ahead if part * net > ZERO and abs(net - part) <= bound]
        chosen = fitting[0] if fitting else min(ahead, key=lambda each: abs(net - each[1]))[0]
        net -= legs[chosen][done[chosen]]
        done[chosen] += 1
        order.append(chosen)
    return order


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
