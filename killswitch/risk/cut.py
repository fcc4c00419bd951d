"""Where to cut a book so that what is left varies the least.

Minimise x′Σx over how much of each position is kept, none above what it may be at most and all of them together as much
as the cut leaves. The objective is convex, so moving gross between two positions at a time, from the one whose next
unit adds most to the one whose next unit adds least, each time as far as it helps, comes to the least there is (the
pairwise steps of Platt, 1998, "Sequential minimal optimization"). It begins with the cut in proportion and never makes
it worse: whenever it is broken off, what is left varies at most as much as if the cut had been made in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from killswitch.risk.contributions import slopes
from killswitch.risk.shrinkage import Matrix

CLOSE_ENOUGH = 1e-9
"""Two slopes that differ by this part of the steepest are taken for equal."""


def least_variance(
    exposures: Sequence[float], covariance: Matrix, most: Sequence[float | None], kept: float
) -> list[float]:
    """The worth to keep of each position.

    `exposures` are the signed notionals of the whole book, `most` what may be kept of each position's worth (None: the
    position is not to be touched), `kept` what is to be kept of all that may be touched together: 0 to their sum.
    """
    movable = [i for i, limit in enumerate(most) if limit is not None]
    limits = {i: limit for i in movable if (limit := most[i]) is not None}
    signs = {i: 1.0 if exposures[i] >= 0.0 else -1.0 for i in movable}
    total = fsum(limits.values())
    worth = {i: limits[i] * kept / total if total > 0.0 else 0.0 for i in movable}
    left = [signs[i] * worth[i] if i in worth else x for i, x in enumerate(exposures)]
    slope = slopes(left, covariance)
    for _ in range(200 * len(movable)):
        shrinking = max((i for i in movable if worth[i] > 0.0), key=lambda i: signs[i] * slope[i], default=None)
        growing = min((i for i in movable if worth[i] < limits[i]), key=lambda i: signs[i] * slope[i], default=None)
        if shrinking is None or growing is None:
            break
        gain = signs[shrinking] * slope[shrinking] - signs[growing] * slope[growing]
        if gain <= CLOSE_ENOUGH * max(abs(each) for each in slope):
            break
        bend = covariance[shrinking][shrinking] + covariance[growing][growing]
        bend -= 2.0 * signs[shrinking] * signs[growing] * covariance[shrinking][growing]
        room = min(worth[shrinking], limits[growing] - worth[growing])
        moved = min(room, gain / bend) if bend > 0.0 else room
        worth[shrinking] = worth[shrinking] - moved if moved < worth[shrinking] else 0.0
        worth[growing] = worth[growing] + moved if moved < limits[growing] - worth[growing] else limits[growing]
        for i, row in enumerate(covariance):
            slope[i] += moved * (signs[growing] * row[growing] - signs[shrinking] * row[shrinking])
    return [worth[i] if i in worth else abs(x) for i, x in enumerate(exposures)]
