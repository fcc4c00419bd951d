"""A consensus of several sizing methods: the median of those that are known.

The median of leverages is moved by no single method, however far off it is (Hampel, 1971, "A general qualitative
definition of robustness", Annals of Mathematical Statistics 42(6)). A quorum is declared: below it the answer is
unknown. A zero for want of an edge is a veto: no number of other methods makes an edge.

Records weight the methods only at equal risk. A method's results are its leverage × the market's return, decision by
decision, and its score is their mean ÷ their standard deviation, which does not change if all its suggestions are
multiplied: weighting by profit would reward the largest size. Fewer than 30 decisions give no score, and a method
without a score counts as one of the mean. A weight is from half to twice the equal one, so that no record, however
lucky, decides alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import fsum, sqrt
from typing import Final

from msgspec import Struct

from killswitch.risk.sizing.answer import SizingError, Suggestion, as_fraction, unknown_suggestion

METHOD: Final = "consensus"
FEWEST_DECISIONS: Final = 30
LEAST_WEIGHT: Final = 0.5
MOST_WEIGHT: Final = 2.0


class SizingDecision(Struct, frozen=True):
    """One past decision: the leverage that each method suggested, and what the market returned until the next one.

    `result` is per unit of notional on the side that was taken: 0.01 is a gain of 1%.
    """

    leverages: Mapping[str, Decimal]
    result: Decimal


def performance_weights(methods: Sequence[str], decisions: Sequence[SizingDecision]) -> dict[str, float]:
    """Method → its weight, 1 for an equal one; from 0.5 to 2 by the score of its record."""
    scores = {method: score for method in methods if (score := _score(method, decisions)) is not None}
    mean = fsum(scores.values()) / len(scores) if scores else 0.0
    if mean <= 0.0:  # quotients of losses would favour the worst
        return dict.fromkeys(methods, 1.0)
    return {
        method: min(max(scores[method] / mean, LEAST_WEIGHT), MOST_WEIGHT) if method in scores else 1.0
        for method in methods
    }


def _score(method: str, decisions: Sequence[SizingDecision]) -> float | None:
    """Mean ÷ standard deviation (ddof 1) of a method's results; None where there are too few, or they do not vary."""
    results = [float(each.leverages[method] * each.result) for each in decisions if method in each.leverages]
    if len(results) < FEWEST_DECISIONS:
        return None
    mean = fsum(results) / len(results)
    deviation = sqrt(fsum((each - mean) ** 2 for each in results) / (len(results) - 1))
    return mean / deviation if deviation > 0.0 else None


def consensus(suggestions: Sequence[Suggestion], quorum: int, decisions: Sequence[SizingDecision] = ()) -> Suggestion:
    """The weighted median of the known suggestions of one market; zero after a veto, unknown below the quorum.

    SizingError for a quorum that is not from 1 to the number of methods, and for a method that is there twice.
    """
    methods = [each.method for each in suggestions]
    if len(set(methods)) < len(methods):
        raise SizingError("each method of a consensus is there once")
    if not 1 <= quorum <= len(suggestions):
        raise SizingError(f"the quorum is {quorum} of {len(suggestions)} methods: write one from 1 to their number")
    inputs = tuple({(each.name, each.source): each for one in suggestions for each in one.inputs}.values())
    weights = performance_weights(methods, decisions)
    details = tuple((each.method, _shown(each, weights[each.method])) for each in suggestions)
    vetoes = [each.method for each in suggestions if each.is_veto]
    if vetoes:
        bound = f"no edge by {', '.join(vetoes)}, which is a veto"
        return Suggestion(METHOD, Fraction(0), bound, inputs, is_veto=True, details=details)
    known = [(each.leverage, weights[each.method]) for each in suggestions if each.leverage is not None]
    if len(known) < quorum:
        unknown = [f"{each.method}: {each.unknown}" for each in suggestions if each.leverage is None]
        why = f"{len(known)} of {len(suggestions)} methods are known, and the quorum is {quorum}; {'; '.join(unknown)}"
        found = unknown_suggestion(METHOD, why, *inputs)
        return Suggestion(METHOD, None, "", found.inputs, why, details=details)
    bound = f"median of {len(known)} of {len(suggestions)} methods"
    return Suggestion(METHOD, weighted_median(known), bound, inputs, details=details)


def weighted_median(values: Sequence[tuple[Fraction, float]]) -> Fraction:
    """The value at half of the weights; the mean of the two values that meet there, as of the plain median."""
    ordered = [(value, as_fraction(weight)) for value, weight in sorted(values)]
    half, below = sum((weight for _, weight in ordered), Fraction(0)) / 2, Fraction(0)
    for place, (value, weight) in enumerate(ordered):
        below += weight
        if below > half:
            return value
        if below == half:
            return (value + ordered[place + 1][0]) / 2
    return ordered[-1][0]


def _shown(suggestion: Suggestion, weight: float) -> str:
    if suggestion.leverage is None:
        return f"unknown: {suggestion.unknown}"
    return f"leverage {float(suggestion.leverage):.4g}, weight {weight:.2f}"
