"""Volatility targeting: the leverage at which a position, or a book, has a declared volatility.

One market: min(cap, σ* ÷ max(σ, floor)), with the target σ* and the volatility σ of a year (Moskowitz, Ooi & Pedersen,
2012, "Time series momentum", Journal of Financial Economics 104(2); Harvey et al., 2018, "The impact of volatility
targeting", Journal of Portfolio Management 45(1)). Cap and floor are required: in a calm before a storm σ is small, and
its quotient has no bound.

A book of weights w, signed by side: σ* ÷ √(w′Sw), with S the covariance of returns of a year. The net risk of a hedged
book is nearly zero, so that the factor needs a cap of the gross, Σ|w| × factor.

σ is as the signal `market.volatility` measures it: the standard deviation (ddof 1) of simple returns × √(year ÷ every).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import fsum, sqrt
from typing import Final

from killswitch.risk.covariance import Matrix, variance
from killswitch.risk.sizing.answer import (
    SizingInput,
    Suggestion,
    as_fraction,
    given,
    require_positive,
    unknown_suggestion,
)

METHOD: Final = "volatility-target"
YEAR: Final = 365.0 * 86_400.0
"""Seconds of a year of a market that does not close."""
LEAST_NET: Final = 1e-9
"""A book whose volatility is below this fraction of the weighted sum of its volatilities has no net risk to target."""


def annual_volatility(closes: Sequence[float], every: float, year: float = YEAR) -> float | None:
    """The volatility of a year from closes that are `every` seconds apart; None for fewer than two returns.

    ValueError for a price or a step that is not above zero.
    """
    if not every > 0.0 or not all(each > 0.0 for each in closes):
        raise ValueError("prices and the seconds between them are above zero")
    returns = [later / earlier - 1.0 for earlier, later in pairwise(closes)]
    if len(returns) < 2:
        return None
    mean = fsum(returns) / len(returns)
    return sqrt(fsum((each - mean) ** 2 for each in returns) / (len(returns) - 1)) * sqrt(year / every)


def target_volatility(target: Decimal, volatility: SizingInput, floor: Decimal) -> Suggestion:
    """The leverage of a position with the volatility `target`; all of a year, as fractions. The cap is the market's.

    SizingError for a target or a floor that is not above zero.
    """
    require_positive("volatility target", target)
    require_positive("volatility floor", floor)
    inputs = (given("volatility target", target), given("volatility floor", floor), volatility)
    if volatility.value is None or volatility.value < 0:
        return unknown_suggestion(METHOD, volatility.unknown or "volatility is unknown", *inputs)
    bound = "volatility floor" if volatility.value < floor else "volatility target"
    return Suggestion(METHOD, Fraction(target) / Fraction(max(volatility.value, floor)), bound, inputs)


def book_factor(target: Decimal, weights: Sequence[float], covariance: Matrix) -> Fraction | None:
    """σ* ÷ √(w′Sw): the factor of signed weights at which the book has the volatility `target`.

    None where the book has no net risk, so that no finite factor reaches the target.
    """
    require_positive("volatility target", target)
    net = variance(weights, covariance)
    alone = fsum(
        abs(weight) * sqrt(row[place]) for place, (weight, row) in enumerate(zip(weights, covariance, strict=True))
    )
    if not net > (LEAST_NET * alone) ** 2:
        return None
    return Fraction(target) / as_fraction(sqrt(net))
