"""In which order the legs of a hedge are closed, so that closing it is never a greater bet than holding it (C25).

A long and a short of one base asset cancel each other, and a portfolio-margined account pays margin for what is left.
Closing one leg whole before the other uncovers it: the margin rises in the middle of a close that is to lower it. So
the slices of such legs are put in an order in which the net exposure never rises above what it was, where there is one;
where there is none, in one whose greatest net exposure on the way is the least there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, product
from math import prod

ZERO = Decimal(0)

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
        found = _within(bound, net, legs)
        if found.order is not None:
            return found.order
        bound, tried = found.next_bound, tried + found.tried
    if prod(len(leg) + 1 for leg in legs) <= MOST_STATES:
        return _least_peak(net, legs)
    return _heavier_side_first(net, legs)


@dataclass(frozen=True, slots=True)
class _Found:
    """An order within a bound. Without one: the least exposure that the bound has refused, and how much was tried."""

    order: list[int] | None
    next_bound: Decimal
    tried: int


def _within(bound: Decimal, net: Decimal, legs: Sequence[Leg]) -> _Found:
    """The first order, as they are given, in which the exposure never rises above the bound.

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
                return _Found(None, refused, len(dead))
            last = order.pop()
            done[last] -= 1
            net += legs[last][done[last]]
            begin = last + 1
    return _Found(order, bound, len(dead))


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
