"""How much of one return comes with another, and how surely: what a hedge is sized by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt


@dataclass(frozen=True, slots=True)
class Beta:
    """A slope and its standard error; None: of fewer than three returns nobody can say how far it is off."""

    slope: float
    error: float | None

    def is_sure(self, errors: float) -> bool:
        """Whether it lies more than so many standard errors from zero."""
        return self.error is not None and abs(self.slope) > errors * self.error


def least_squares_beta(of: Sequence[float], on: Sequence[float]) -> Beta | None:
    """The slope of the least-squares line of the returns `of` one on those `on` another: cov ÷ var, with intercept.

    A position of notional N is hedged with β·N of the other: no other size leaves less variance (Ederington, 1979, "The
    hedging performance of the new futures markets", Journal of Finance 34(1)). Its standard error is that of ordinary
    least squares: the root of the squared residuals ÷ (n − 2) ÷ the squared deviations of the other. None where the
    other did not move. ValueError for series of different length.
    """
    if len(of) != len(on):
        raise ValueError(f"{len(of)} returns against {len(on)}")
    if not on or min(on) == max(on):
        return None
    mean_of, mean_on = fsum(of) / len(of), fsum(on) / len(on)
    squares = fsum((x - mean_on) ** 2 for x in on)
    if not squares > 0.0:  # moves too small to be squared
        return None
    slope = fsum((y - mean_of) * (x - mean_on) for y, x in zip(of, on, strict=True)) / squares
    if len(on) < 3:
        return Beta(slope, None)
    left = fsum((y - mean_of - slope * (x - mean_on)) ** 2 for y, x in zip(of, on, strict=True))
    return Beta(slope, sqrt(left / (len(on) - 2) / squares))
