"""How much of one return comes with another: what a hedge is sized by."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum


def least_squares_beta(of: Sequence[float], on: Sequence[float]) -> float | None:
    """The slope of the least-squares line of the returns `of` one on those `on` another: cov ÷ var, with intercept.

    A position of notional N is hedged with β·N of the other: no other size leaves less variance (Ederington, 1979, "The
    hedging performance of the new futures markets", Journal of Finance 34(1)). None where the other did not move.
    ValueError for series of different length.
    """
    if len(of) != len(on):
        raise ValueError(f"{len(of)} returns against {len(on)}")
    if not on or min(on) == max(on):
        return None
    mean_of, mean_on = fsum(of) / len(of), fsum(on) / len(on)
    variance = fsum((x - mean_on) ** 2 for x in on)
    if not variance > 0.0:  # moves too small to be squared
        return None
    return fsum((y - mean_of) * (x - mean_on) for y, x in zip(of, on, strict=True)) / variance
