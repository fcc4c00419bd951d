"""Conditions over many instants at once: where do they stop being what they are?

Not an evaluation: numbers are floats that may be off by their last bits, so an instant at which a comparison is that
close counts as a change. Whoever asks then looks with the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from killswitch.graph.nodes import AllOf, AnyOf, Compare, ConditionNode, Constant, Not, Number, SignalRead
from killswitch.lab.panel import Floats

Flags = NDArray[np.bool_]
CLOSE = 1e-9
"""A difference smaller than this, of fractions, or relative to greater numbers, may be rounding."""

Sure = tuple[Flags, Flags]
"""Where a condition is surely true, and where surely false. Elsewhere it is unknown."""


@dataclass(frozen=True, slots=True)
class Span:
    """A signal over the instants: lowest and highest that it may be."""

    low: Floats
    high: Floats


class NotScreenedError(Exception):
    """A condition or a signal that only a tick can evaluate."""


def first_change(
    conditions: Sequence[ConditionNode], spans: Mapping[int, Span], true: int, unknown: int, count: int
) -> int:
    """The first of `count` instants at which the conditions may not be exactly `true` and `unknown` (masks).

    `count` if there is none. NotScreenedError for what cannot be looked at like this.
    """
    same = np.ones(count, dtype=np.bool_)
    for place, condition in enumerate(conditions):
        holds, fails = _sure(condition, spans, same)
        if true >> place & 1:
            same &= holds
        elif unknown >> place & 1:
            same &= ~holds & ~fails
        else:
            same &= fails
    return count if same.all() else int(np.argmin(same))


def _sure(condition: ConditionNode, spans: Mapping[int, Span], same: Flags) -> Sure:
    match condition:
        case Compare():
            return _compare(condition, spans, same)
        case Not(part):
            holds, fails = _sure(part, spans, same)
            return fails, holds
        case AllOf(parts) | AnyOf(parts):
            found = [_sure(part, spans, same) for part in parts]
            every, some = np.logical_and.reduce, np.logical_or.reduce
            if isinstance(condition, AnyOf):
                every, some = some, every
            return every([holds for holds, _ in found]), some([fails for _, fails in found])
        case Constant(value):
            return np.full_like(same, value), np.full_like(same, not value)
        case _:
            raise NotScreenedError(f"{type(condition).__name__} is not screened")


_COMPARE: dict[str, Callable[[Span, float], Sure]] = {
    ">=": lambda span, number: (span.low >= number, span.high < number),
    ">": lambda span, number: (span.low > number, span.high <= number),
    "<=": lambda span, number: (span.high <= number, span.low > number),
    "<": lambda span, number: (span.high < number, span.low >= number),
}


def _compare(condition: Compare, spans: Mapping[int, Span], same: Flags) -> Sure:
    """A signal held against a number; instants at which it is too close to it are struck from `same`."""
    left, right = condition.left, condition.right
    if not (isinstance(left, SignalRead) and isinstance(right, Number) and condition.op in _COMPARE):
        raise NotScreenedError("only a signal against a number is screened")
    span, number = spans.get(left.index), right.value
    if span is None:
        raise NotScreenedError("the signal is not one that is screened")
    room = CLOSE * max(1.0, abs(number))
    for end in (span.low, span.high):
        same &= ~(np.abs(end - number) <= room)
    return _COMPARE[condition.op](span, number)
