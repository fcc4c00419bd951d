"""Kelly sizing: the leverage at which the expected logarithm of wealth grows fastest (Kelly, 1956, "A new
interpretation of information rate", Bell System Technical Journal 35(4)).

Binary, from closed trades: p ÷ a − q ÷ b, where a stake of 1 loses a with probability q = 1 − p and gains b with
probability p. It is notional ÷ equity: with p 0.55, +3% and −2% it is 12.5, which puts 12.5 × 2% = 25% of equity at
risk. Libraries that return p − q ÷ (b ÷ a) return the second number.

Continuous: (μ − r) ÷ σ² (Merton, 1969, "Lifetime portfolio selection under uncertainty", Review of Economics and
Statistics 51(3); Thorp, 2006, "The Kelly criterion in blackjack, sports betting and the stock market"). Several
markets: S⁻¹(μ − r), or, where that would take the other side of one, the largest of w′(μ − r) − w′Sw ÷ 2 over w ≥ 0.
Leaving out the negative weights alone would keep positions that only made sense with their hedges.

A fraction k of Kelly has 2k − k² of the growth, and wealth that ever falls to the share x of itself with probability
x^(2 ÷ k − 1) (Thorp, 2006): half of it has 75% of the growth, and halves in one of eight cases, not one of two.

Limits: an edge below zero gives zero, never the other side. Fewer than 100 trades and a record without a loss are
unknown. p is its lower Wilson bound of 95% (Wilson, 1927, "Probable inference, the law of succession, and statistical
inference", Journal of the American Statistical Association 22), because the estimate itself finds an edge in 46% of
records of 100 trades without any; the bound finds one in 4%.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import sqrt
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from killswitch.risk.covariance import Matrix
from killswitch.risk.sizing.answer import (
    SizingError,
    SizingInput,
    Suggestion,
    as_fraction,
    given,
    require_positive,
    unknown_suggestion,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

BINARY: Final = "kelly"
CONTINUOUS: Final = "continuous-kelly"
FEWEST_TRADES: Final = 100
"""Fewer closed trades than this say nothing of an edge."""
ONE_SIDED_95: Final = 1.6448536269514722
"""The 95% quantile of the standard normal distribution."""
WORST_CONDITION: Final = 1e12
"""A covariance with a larger ratio of eigenvalues counts as singular: its inverse is made of rounding errors."""
NO_EDGE: Final = "no edge"


class TradeRecord(Struct, frozen=True):
    """Closed trades that won or lost, and their mean gain and mean loss per unit of notional, both at least 0.

    A trade with a result of exactly zero is neither, and is not counted.
    """

    wins: int
    losses: int
    gain: Decimal
    loss: Decimal

    @property
    def trades(self) -> int:
        return self.wins + self.losses

    @classmethod
    def of(cls, results: Sequence[Decimal]) -> TradeRecord:
        """The record of results per unit of notional, such as 0.03 and −0.02."""
        gains, losses = [each for each in results if each > 0], [-each for each in results if each < 0]
        return cls(len(gains), len(losses), _mean(gains), _mean(losses))


def _mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, Decimal(0)) / len(values) if values else Decimal(0)


def wilson_lower(wins: int, trades: int, z: float = ONE_SIDED_95) -> float:
    """The lower Wilson bound of a probability from `wins` of `trades`, which is above 0."""
    share, square = wins / trades, z * z
    middle, spread = share + square / (2 * trades), sqrt(share * (1 - share) / trades + square / (4 * trades * trades))
    return max(0.0, (middle - z * spread) / (1 + square / trades))


def binary_leverage(probability: Fraction, gain: Fraction, loss: Fraction) -> Fraction:
    """p ÷ a − q ÷ b, which may be negative. `gain` b and `loss` a per unit of notional, both above 0."""
    return probability / loss - (1 - probability) / gain


def kelly(record: TradeRecord, fraction: Decimal, *, point_estimate: bool = False) -> Suggestion:
    """The `fraction` of Kelly's leverage of a record; p is its lower bound unless `point_estimate`.

    SizingError for a fraction outside of (0, 1] and a record that contradicts itself.
    """
    require_kelly_fraction(fraction)
    _require_record(record)
    inputs = (
        given("fraction of Kelly", fraction), given("closed trades", Decimal(record.trades)),
        given("wins", Decimal(record.wins)), given("mean gain", record.gain), given("mean loss", record.loss),
    )  # fmt: skip
    if record.trades < FEWEST_TRADES:
        why = f"{record.trades} closed trades; fewer than {FEWEST_TRADES} do not show an edge"
        return unknown_suggestion(BINARY, why, *inputs)
    if not record.losses:
        return unknown_suggestion(BINARY, "no trade of the record has lost, so that its loss is unknown", *inputs)
    estimate = Fraction(record.wins, record.trades)
    used = estimate if point_estimate else as_fraction(wilson_lower(record.wins, record.trades))
    details = (("probability of a win", f"{float(used):.2%}, of {float(estimate):.2%} in the record"),)
    if not record.wins:
        return Suggestion(BINARY, Fraction(0), NO_EDGE, inputs, is_veto=True, details=details)
    full = binary_leverage(used, Fraction(record.gain), Fraction(record.loss))
    at_risk = (
        "at risk in a trade",
        f"{float(max(full, Fraction(0)) * Fraction(fraction) * Fraction(record.loss)):.2%}",
    )
    return _fraction_of(BINARY, full, fraction, inputs, (*details, at_risk))


def continuous_kelly(mean: Decimal, rate: Decimal, volatility: SizingInput, fraction: Decimal) -> Suggestion:
    """The `fraction` of (μ − r) ÷ σ²; mean, rate and volatility of a year, as fractions.

    An unknown volatility and one of zero are unknown. SizingError for a fraction outside of (0, 1].
    """
    require_kelly_fraction(fraction)
    inputs = (given("fraction of Kelly", fraction), given("mean return", mean), given("rate", rate), volatility)
    if volatility.value is None:
        return unknown_suggestion(CONTINUOUS, volatility.unknown or "volatility is unknown", *inputs)
    if volatility.value <= 0:
        return unknown_suggestion(CONTINUOUS, "a volatility of zero has no Kelly size", *inputs)
    full = (Fraction(mean) - Fraction(rate)) / Fraction(volatility.value) ** 2
    return _fraction_of(CONTINUOUS, full, fraction, inputs, ())


def kelly_weights(excess: Sequence[float], covariance: Matrix) -> list[float] | None:
    """The largest of w′(μ − r) − w′Sw ÷ 2 over w ≥ 0: S⁻¹(μ − r) where that is not negative.

    `excess` is μ − r and `covariance` S, both of a year, each return signed by its side. None for a singular S.

    An active set, as of Lawson & Hanson (1974, "Solving Least Squares Problems", chapter 23): the market whose weight
    would raise growth most is let in, and weights that would pass through zero are put out, until none is left.
    """
    import numpy as np

    matrix, wanted = np.array(covariance, dtype=float), np.array(excess, dtype=float)
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > WORST_CONDITION:
        return None
    weights, held = np.zeros(len(wanted)), np.zeros(len(wanted), dtype=bool)
    tolerance = 1e-14 * float(np.abs(wanted).max(initial=0.0))
    while True:
        slope = wanted - matrix @ weights
        slope[held] = -np.inf
        best = int(slope.argmax())
        if held.all() or slope[best] <= tolerance:
            return [float(each) for each in weights]
        held[best] = True
        weights = _within(matrix, wanted, weights, held)


def _within(matrix: Floats, wanted: Floats, weights: Floats, held: Flags) -> Floats:
    """The best weights of the held markets, without those that would become negative; `held` is updated."""
    import numpy as np

    while True:
        found = np.zeros(len(wanted))
        found[held] = np.linalg.solve(matrix[np.ix_(held, held)], wanted[held])
        if (found[held] > 0.0).all():
            return found
        passing = held & (found <= 0.0)
        steps = weights[passing] / (weights[passing] - found[passing])
        weights = weights + float(steps.min()) * (found - weights)
        out = passing & (weights <= 1e-15 * float(np.abs(weights).max()))
        held[out if out.any() else passing] = False
        weights[~held] = 0.0
        if not held.any():
            return weights


def growth_share(fraction: Decimal) -> Decimal:
    """2k − k²: the share of Kelly's growth that a fraction k of it has."""
    return 2 * fraction - fraction * fraction


def chance_of_falling_to(share: float, fraction: Decimal) -> float:
    """The probability that wealth ever falls to `share` of what it was, at the fraction k of Kelly: x^(2 ÷ k − 1)."""
    found: float = share ** (2.0 / float(fraction) - 1.0)
    return found


def fraction_details(fraction: Decimal) -> tuple[tuple[str, str], ...]:
    """What the fraction of Kelly means, for an answer."""
    return (
        ("growth", f"{float(growth_share(fraction)):.0%} of full Kelly's"),
        ("chance of ever halving", f"{chance_of_falling_to(0.5, fraction):.1%}, if the inputs are right"),
    )


def _fraction_of(
    method: str,
    full: Fraction,
    fraction: Decimal,
    inputs: tuple[SizingInput, ...],
    details: tuple[tuple[str, str], ...],
) -> Suggestion:
    if full <= 0:
        return Suggestion(method, Fraction(0), NO_EDGE, inputs, is_veto=True, details=details)
    shown = (*details, *fraction_details(fraction))
    return Suggestion(method, full * Fraction(fraction), "fraction of Kelly", inputs, details=shown)


def require_kelly_fraction(fraction: Decimal) -> None:
    """SizingError for a fraction of Kelly outside of (0, 1]."""
    require_positive("fraction of Kelly", fraction)
    if fraction > 1:
        raise SizingError(f"the fraction of Kelly is {fraction:f}: above 1 there is more risk and less growth")


def _require_record(record: TradeRecord) -> None:
    if record.wins < 0 or record.losses < 0:
        raise SizingError("a record has at least 0 wins and at least 0 losses")
    if record.wins:
        require_positive("mean gain", record.gain)
    if record.losses:
        require_positive("mean loss", record.loss)
