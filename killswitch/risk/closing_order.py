"""The order in which slices of positions are closed, and how large the variance becomes on the way.

Closing is no improvement at each step: a position that hedges others leaves them naked once it is closed. Positions by
component risk, computed once, take a hedged book to twice its variance on the way, in two of three books above where it
began; computed again after each order, in one of three; slices of all positions in turn never do, because the book
keeps its shape (`docs/adr/0179-groups-and-the-order-of-closing.md`).

`slices` of a position are the exposures (signed notionals, as of `covariance`) that its orders close, in their order.

Of 400 random books of six to ten positions, with betas of 0.6 to 1.8 to one factor, the share whose variance is larger
on the way than at the start is 90%, 38% and 0% for the three orders if the book is two-sided, and 0% if it is not
(`tests/unit/risk/test_closing_order.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from killswitch.risk.covariance import Matrix, slopes, variance

Slices = Sequence[Sequence[float]]
"""Of each position of the book: the exposure that each of its orders closes; none for one that is kept."""


def risk_first(exposures: Sequence[float], covariance: Matrix, slices: Slices, turns: Sequence[int] = ()) -> list[int]:
    """Positions by the order of their slices: the next is of the largest component x × (Σx) of what is left.

    `exposures` are changed by each slice before the next is chosen; of equals the first position. `turns`: the place of
    each position's group, of which a smaller one is closed completely before a larger one; empty for one group.
    """
    return _by_component(exposures, covariance, slices, lambda i, _: float(turns[i]) if turns else 0.0)


def in_turn(exposures: Sequence[float], covariance: Matrix, slices: Slices) -> list[int]:
    """Positions by the order of their slices, a part of all of them in turn.

    The next slice is one after which the smallest share of its position is closed; of equals that of the largest
    component of what is left, so that within a turn, too, the variance grows as little as may be.
    """
    return _by_component(exposures, covariance, slices, lambda i, done: (done + 1) / len(slices[i]))


def by_share(counts: Sequence[int]) -> list[int]:
    """The same where no risk is known: of equals the first position. `counts`: the number of slices of each."""
    return [i for _, i in sorted((n / count, i) for i, count in enumerate(counts) for n in range(1, count + 1))]


def _by_component(
    exposures: Sequence[float], covariance: Matrix, slices: Slices, turn: Callable[[int, int], float]
) -> list[int]:
    """Positions by the smallest turn, of equals by the component of what is left.

    `turn`: of a position with so many slices done.
    """
    left, done = list(exposures), [0] * len(exposures)
    slope = slopes(left, covariance)
    order: list[int] = []
    while open_positions := [i for i, each in enumerate(slices) if done[i] < len(each)]:
        first = min(turn(i, done[i]) for i in open_positions)
        due = (i for i in open_positions if turn(i, done[i]) == first)
        chosen = max(due, key=lambda i: (left[i] * slope[i], -i))
        closed = slices[chosen][done[chosen]]
        left[chosen] -= closed
        slope = [each - closed * row[chosen] for each, row in zip(slope, covariance, strict=True)]
        done[chosen] += 1
        order.append(chosen)
    return order


def peak_variance(exposures: Sequence[float], covariance: Matrix, slices: Slices, order: Sequence[int]) -> float | None:
    """The largest variance after an order of this sequence ÷ that at the start; None if that is 0, or no order is
    sent."""
    begun = variance(exposures, covariance)
    if not begun > 0.0 or not order:
        return None
    left, done, peak = list(exposures), [0] * len(exposures), 0.0
    for chosen in order:
        left[chosen] -= slices[chosen][done[chosen]]
        done[chosen] += 1
        peak = max(peak, variance(left, covariance))
    return peak / begun
