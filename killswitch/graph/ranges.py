"""What a signal can be at most: from it follows which conditions can never hold, and which always do.

A signal that is not listed can be anything. The bounds are those of the signals' definitions in the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from killswitch.graph.nodes import ConditionNode, SignalRef
from killswitch.graph.steps import Step, step_of

_BOTH = frozenset((True, False))
_SHARE = (0.0, 1.0)
_NOT_NEGATIVE = (0.0, inf)
_RANGES: dict[str, tuple[float, float]] = {
    "equity.drawdown": _SHARE,
    "equity.drawdown_from_peak": _SHARE,
    "equity.loss_from_start": _SHARE,
    "equity.unexplained_share": _SHARE,
    "attribution.long_share": _SHARE,
    "attribution.short_share": _SHARE,
    "exposure.gross": _NOT_NEGATIVE,
    "exposure.leverage": _NOT_NEGATIVE,
    "exposure.largest_share": _SHARE,
    "exposure.margin_ratio": _NOT_NEGATIVE,
    "venue.error_rate": _NOT_NEGATIVE,
    "venue.malformed": _NOT_NEGATIVE,
    "venue.consecutive_failures": _NOT_NEGATIVE,
    "position.loss": _NOT_NEGATIVE,
    "position.liquidation_distance": _NOT_NEGATIVE,
    "position.notional_share": _SHARE,
    "position.margin_loss": _NOT_NEGATIVE,
}


def range_of(name: str) -> tuple[float, float]:
    """Least and greatest value of a signal, both ends included."""
    return _RANGES.get(name, (-inf, inf))


def outcomes(conditions: Sequence[ConditionNode], signals: Sequence[SignalRef]) -> tuple[frozenset[bool], ...]:
    """For each condition what it can come to when its signals are known: {True}, {False} or both."""
    bounds = [range_of(signal.name) for signal in signals]
    steps = [step_of(condition) for condition in conditions]
    composed = [condition for condition, step in zip(conditions, steps, strict=True) if step is None]
    of_composed = iter(_lowered_outcomes(composed, bounds) if composed else ())
    return tuple(next(of_composed) if step is None else _step_outcome(step, bounds[step.index]) for step in steps)


def _step_outcome(step: Step, bounds: tuple[float, float]) -> frozenset[bool]:
    """As lowered code would say it; most policies hold only steps, and need no code written for this."""
    least, most = bounds if step.rising else (-bounds[1], -bounds[0])
    value = step.value if step.rising else -step.value
    if least > value or (least == value and not step.strict):
        return frozenset((True,))
    if most < value or (most == value and step.strict):
        return frozenset((False,))
    return _BOTH


def _lowered_outcomes(
    conditions: Sequence[ConditionNode], bounds: Sequence[tuple[float, float]]
) -> list[frozenset[bool]]:
    from killswitch.graph.lowering import lower

    true, unknown = lower(conditions)([low for low, _ in bounds], [high for _, high in bounds], [None] * len(bounds))
    return [_BOTH if unknown >> i & 1 else frozenset((bool(true >> i & 1),)) for i in range(len(conditions))]
