"""Evaluates conditions over many instants at once, to find where they may change.

The result is conservative: numbers are floats with rounding errors, so an instant at which a comparison is that close
counts as a change. The caller then evaluates that instant exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from killswitch.graph.nodes import AllOf, AnyOf, Compare, ConditionNode, Constant, Not, Number, SignalRead
from killswitch.lab.price_matrix import Floats

Flags = NDArray[np.bool_]
CLOSE = 1e-9
"""A smaller difference of fractions, or relative to greater numbers, may be a rounding error."""

SureFlags = tuple[Flags, Flags]
"""Where a condition is surely true, and where surely false. Elsewhere it is unknown."""


class SignalRange:
    """The range of a signal: its lowest and highest possible value at each instant, and over all of them.

    NaN at an instant: only a tick can tell. `room`: a difference that may be a rounding error.
    """

    def __init__(self, low: Floats, high: Floats, room: float = 0.0) -> None:
        self.low, self.high, self.room = low, high, room
        self.least, self.most = float(low.min()), float(high.max())


class NotScreenedError(Exception):
    """A condition or a signal that only a tick can evaluate."""


class Changes(Struct, frozen=True):
    """`first` instant at which the conditions may change, or the number of instants; and whether each of the conditions
    that may become unknown is so, until then."""

    first: int
    unknown: dict[int, Flags]


def first_change(
    conditions: Sequence[ConditionNode],
    spans: Mapping[int, SignalRange],
    true: int,
    unknown: int,
    count: int,
    lenient: int = 0,
) -> Changes:
    """Find the first of `count` instants at which the conditions may differ from `true` and `unknown` (masks).

    `lenient`: conditions that are not true, and may change between false and unknown. NotScreenedError for what cannot
    be screened.
    """
    same, found = np.ones(count, dtype=np.bool_), dict[int, Flags]()
    for place, condition in enumerate(conditions):
        is_lenient = bool(lenient >> place & 1)
        answer = _everywhere(condition, spans)
        if answer is None:
            holds, fails = _sure(condition, spans, same)
        elif answer == bool(true >> place & 1) and (is_lenient or not unknown >> place & 1):
            continue
        else:
            return Changes(0, {})
        if true >> place & 1:
            same &= holds
        elif is_lenient:
            same &= ~holds
            found[place] = ~fails
        elif unknown >> place & 1:
            same &= ~holds & ~fails
        else:
            same &= fails
    return Changes(count if same.all() else int(np.argmin(same)), found)


def _everywhere(condition: ConditionNode, spans: Mapping[int, SignalRange]) -> bool | None:
    """Return the condition's value if the extremes of its signal decide it for every instant; None otherwise."""
    if not isinstance(condition, Compare):
        return None
    span, number, op, room = _operands(condition, spans)
    if span.most < number - room:
        return op in ("<", "<=")
    if span.least > number + room:
        return op in (">", ">=")
    return None


def _sure(condition: ConditionNode, spans: Mapping[int, SignalRange], same: Flags) -> SureFlags:
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


_COMPARE: dict[str, Callable[[SignalRange, float], SureFlags]] = {
    ">=": lambda span, number: (span.low >= number, span.high < number),
    ">": lambda span, number: (span.low > number, span.high <= number),
    "<=": lambda span, number: (span.high <= number, span.low > number),
    "<": lambda span, number: (span.high < number, span.low >= number),
}


def _compare(condition: Compare, spans: Mapping[int, SignalRange], same: Flags) -> SureFlags:
    """Compare a signal with a number; clear `same` at instants where they are too close."""
    span, number, op, room = _operands(condition, spans)
    for end in (span.low, span.high):
        same &= np.abs(end - number) > room  # false of NaN
    return _COMPARE[op](span, number)


def _operands(condition: Compare, spans: Mapping[int, SignalRange]) -> tuple[SignalRange, float, str, float]:
    """Return the signal, the number, the operator, and the difference from the number that may be rounding."""
    left, right = condition.left, condition.right
    if not (isinstance(left, SignalRead) and isinstance(right, Number) and condition.op in _COMPARE):
        raise NotScreenedError("only a signal against a number is screened")
    if left.index not in spans:
        raise NotScreenedError("this signal is not screened")
    span = spans[left.index]
    return span, right.value, condition.op, max(span.room, CLOSE * max(1.0, abs(right.value)))
