"""Risk parity: weights at which every position contributes its budget of the book's variance.

With S the covariance of returns and b the budgets, the weights are w = y ÷ Σy, where y > 0 minimises
½y′Sy − Σ bᵢ ln yᵢ (Maillard, Roncalli & Teïletche, 2010, "The properties of equally weighted risk contribution
portfolios", Journal of Portfolio Management 36(4); Spinu, 2013, "An algorithm for computing risk parity weights").
At the minimum yᵢ(Sy)ᵢ = bᵢ. The function is convex, and Newton's steps, shortened while they are long, reach its
minimum (the damped phase of a self-concordant function: Boyd & Vandenberghe, 2004, "Convex Optimization", 9.6).

A short position enters with its returns negated: S is signed by side, and the weights are of gross.

Two markets, and any number with equal correlations and equal budgets, get weights in inverse proportion to their
volatilities. With a correlation of 1 there is a solution although S is singular; with −1 the book has no risk that
could be shared, and with a volatility of zero a position contributes none: both are unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Final

from killswitch.risk.covariance import Matrix
from killswitch.risk.sizing.answer import SizingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

METHOD: Final = "risk-parity"
MOST_STEPS: Final = 500
EXACT: Final = 1e-11
"""Largest difference of a contribution from its budget, as a fraction of the budget, at which a solution counts."""
GREATEST: Final = 1e6
"""Where risks cancel to less than 1 ÷ this of the gross, what is left is rounding."""
NOT_NEGATIVE: Final = -1e-10
"""The least eigenvalue of a matrix of correlations, with rounding."""


def covariance_of(volatilities: Sequence[float], correlations: Matrix, signs: Sequence[int]) -> Matrix:
    """Σ of signed returns from volatilities of a year and correlations; `signs` are +1 for long and −1 for short.

    SizingError for numbers that are no correlations of anything (0.9, 0.9 and −0.9 of three markets), and for a
    volatility below zero.
    """
    import numpy as np

    matrix = np.array(correlations, dtype=float)
    if any(not each >= 0.0 for each in volatilities):
        raise SizingError("a volatility is below zero")
    if not np.array_equal(matrix, matrix.T) or not (np.diag(matrix) == 1.0).all() or np.abs(matrix).max() > 1.0:
        raise SizingError("correlations are from -1 to 1, each of a pair once")
    least = float(np.linalg.eigvalsh(matrix).min())
    if least < NOT_NEGATIVE:
        raise SizingError(
            f"these correlations contradict each other: their matrix has the eigenvalue {least:.2g}; measure them over "
            "one window"
        )
    scale = np.array([sign * each for sign, each in zip(signs, volatilities, strict=True)])
    return [[float(each) for each in row] for row in matrix * np.outer(scale, scale)]


def risk_parity(covariance: Matrix, budgets: Sequence[float]) -> list[float] | None:
    """The weights of gross, positive and with the sum 1; None where no book shares its risk as budgeted.

    `covariance` is signed by side. `budgets` are shares of the variance of any scale. SizingError for one that is not
    above zero.
    """
    import numpy as np

    if any(not each > 0.0 for each in budgets):
        raise SizingError("a risk budget is not above zero: leave the market out instead")
    matrix = np.array(covariance, dtype=float)
    scale = np.sqrt(np.diag(matrix))
    if not np.isfinite(matrix).all() or not (scale > 0.0).all():
        return None
    wanted = np.array(budgets, dtype=float) / sum(budgets)
    found = _minimum(matrix / np.outer(scale, scale), wanted)
    if found is None:
        return None
    sizes = found / scale
    return [float(each) for each in sizes / sizes.sum()]


def _minimum(correlation: Floats, budgets: Floats) -> Floats | None:
    """The minimum of ½x′Cx − Σ b ln x over x > 0; None if the steps reach none."""
    import numpy as np

    x = np.sqrt(budgets) / sqrt(max(float(np.sqrt(budgets) @ correlation @ np.sqrt(budgets)), 1e-12))
    for _ in range(MOST_STEPS):
        off = correlation @ x - budgets / x
        if float(np.abs(off * x / budgets).max()) <= EXACT / 100.0:
            break
        step = np.linalg.solve(correlation + np.diag(budgets / x**2), off)
        # In the norm of the barrier: below 1 ÷ 2 a whole step stays positive and halves the error at least.
        decrement = sqrt(max(float(step @ off), 0.0) / float(budgets.min()))
        x = x - step / (1.0 + decrement) if decrement > 0.25 else x - step
        if not (x > 0.0).all() or not np.isfinite(x).all() or float(x.max()) > GREATEST:
            return None
    left = np.abs((correlation @ x) * x - budgets) / budgets
    return x if float(left.max()) <= EXACT else None
