"""Correlations of returns for the membership of groups: robust estimates, their intervals, and complete linkage.

Not shrunk. The intensity of Ledoit & Wolf is driven by fourth moments: one bar of −20% shrinks every correlation
towards zero, and the groups dissolve in the crash for which they were declared. The sample is made robust instead:

- `winsorised`: returns beyond median ± 4 × 1.4826 × MAD are set to that bound (Tukey, 1962, "The future of data
  analysis", Annals of Mathematical Statistics 33(1); 1.4826 × MAD is the standard deviation of a normal sample), then
  the sample correlation;
- `spearman`: the rank correlation r, as 2 sin(πr ÷ 6), the correlation of a normal pair (Pearson, 1907, "On further
  methods of determining correlation").

An interval of 95% is tanh(atanh r ± 1.96 ÷ √(n − 3)) (Fisher, 1921, "On the probable error of a coefficient of
correlation"). It holds for independent returns with normal tails: with three degrees of freedom the standard error at
0.7 is twice as large.

Groups are those of complete linkage: every pair in a group is linked, so that A–B and B–C do not chain A to C. Plain
floats, summed exactly (`math.fsum`), as in `covariance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import fsum
from operator import mul
from statistics import median
from typing import Final, Literal

from msgspec import Struct

from killswitch.risk.covariance import Matrix, least_squares_beta

Method = Literal["winsorised", "spearman"]

BOUND: Final = 4.0 * 1.4826
"""Median absolute deviations from the median beyond which a return is set to that bound."""
QUANTILE: Final = 1.96
"""Standard errors to either end of an interval of 95%."""

Pair = tuple[str, str]
"""Two names, the smaller first."""


class Correlated(Struct, frozen=True):
    """The correlation of a pair and its 95% interval; `value` is None if it is unknown, and the interval [−1, 1]."""

    value: float | None
    low: float = -1.0
    high: float = 1.0


UNKNOWN_PAIR: Final = Correlated(None)
"""Too few returns, or a price that did not move."""


def pair(one: str, other: str) -> Pair:
    """The pair of two names."""
    return (one, other) if one < other else (other, one)


# Estimates


def winsorised(values: Sequence[float]) -> list[float]:
    """The values, those beyond median ± 4 × 1.4826 × MAD set to that bound.

    Where more than half of the values are equal the MAD is 0 and bounds nothing: they are returned as they are.
    """
    middle = median(values)
    bound = BOUND * median(abs(value - middle) for value in values)
    if not bound > 0.0:
        return list(values)
    return [min(middle + bound, max(middle - bound, value)) for value in values]


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for i in order[begin:end]:
            found[i] = (begin + 1 + end) / 2.0
        begin = end
    return found


def robust(values: Sequence[float], method: Method) -> list[float] | None:
    """The series as the method correlates it: winsorised returns, or ranks, around 0 and of length 1.

    None if it is constant, or its moves are too small to be squared.
    """
    if len(values) < 2 or min(values) == max(values):
        return None
    centred = _centred(ranks(values) if method == "spearman" else winsorised(values))
    length = math.sqrt(fsum(map(mul, centred, centred)))
    return [value / length for value in centred] if length > 0.0 else None


def correlated(one: Sequence[float] | None, other: Sequence[float] | None, method: Method, least: int) -> Correlated:
    """The correlation of two `robust` series with its interval.

    Unknown for fewer than `least` returns, or if one of them is None. ValueError for series of different length.
    """
    if one is None or other is None:
        return UNKNOWN_PAIR
    if len(one) != len(other):
        raise ValueError(f"{len(one)} returns against {len(other)}")
    if len(one) < least:
        return UNKNOWN_PAIR
    value = max(-1.0, min(1.0, fsum(map(mul, one, other))))
    if method == "spearman":
        value = 2.0 * math.sin(math.pi * value / 6.0)
    return Correlated(value, *interval(value, len(one)))


def _centred(values: Sequence[float]) -> list[float]:
    mean = fsum(values) / len(values)
    return [value - mean for value in values]


def interval(value: float, count: int) -> tuple[float, float]:
    """The 95% interval of a correlation of `count` returns; [−1, 1] for three or fewer."""
    if count <= 3:
        return -1.0, 1.0
    if abs(value) >= 1.0:
        return value, value
    half = QUANTILE / math.sqrt(count - 3)
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


def residual(values: Sequence[float], hub: Sequence[float]) -> list[float] | None:
    """What is left of the returns after the least-squares line on those of the hub; None if the hub did not move."""
    beta = least_squares_beta(values, hub)
    if beta is None:
        return None
    moved = _centred(hub)
    return [value - beta.slope * move for value, move in zip(_centred(values), moved, strict=True)]


# Declared numbers


def is_correlation_matrix(matrix: Matrix) -> bool:
    """Whether a symmetric matrix with a diagonal of ones is the correlation of anything: no eigenvalue is negative.

    By a Cholesky factor with pivots: the matrix is positive semidefinite exactly if no pivot is below zero and what is
    left of a zero pivot is zero. Rounding of declared numbers is forgiven up to 1e-9.
    """
    left = [list(row) for row in matrix]
    open_rows = list(range(len(left)))
    while open_rows:
        pivot = max(open_rows, key=lambda i: left[i][i])
        size = left[pivot][pivot]
        if size <= _ROUNDING:
            return all(abs(left[i][j]) <= _ROUNDING**0.5 for i in open_rows for j in open_rows if i != j) and all(
                left[i][i] >= -_ROUNDING for i in open_rows
            )
        open_rows.remove(pivot)
        for i in open_rows:
            for j in open_rows:
                left[i][j] -= left[i][pivot] * left[pivot][j] / size
    return True


_ROUNDING = 1e-9


def cliques(pairs: Collection[Pair]) -> list[tuple[str, ...]]:
    """The sets of names of which every pair is listed, and which no further name can join; sorted.

    Bron & Kerbosch, 1973, "Algorithm 457: finding all cliques of an undirected graph", Communications of the ACM 16(9).
    """
    linked: dict[str, set[str]] = {}
    for one, other in pairs:
        linked.setdefault(one, set()).add(other)
        linked.setdefault(other, set()).add(one)
    found: list[tuple[str, ...]] = []

    def extend(chosen: set[str], open_names: set[str], done: set[str]) -> None:
        if not open_names and not done:
            found.append(tuple(sorted(chosen)))
            return
        pivot = max(sorted(open_names | done), key=lambda name: len(linked[name] & open_names))
        for name in sorted(open_names - linked[pivot]):
            extend(chosen | {name}, open_names & linked[name], done & linked[name])
            open_names = open_names - {name}
            done = done | {name}

    extend(set(), set(linked), set())
    return sorted(found) if linked else []


# Groups

Groups = tuple[tuple[str, ...], ...]
"""A partition of names: each group sorted, the groups by their first names."""


class Linkage(Struct, frozen=True):
    """How strongly two names are linked: `value` orders what joins first, `reach` is compared with the thresholds."""

    value: float
    reach: float


def complete_linkage(
    names: Iterable[str], link: Callable[[str, str], Linkage], enter: float, stay: float, before: Groups = ()
) -> Groups:
    """Groups in which every pair is linked; a name that is linked to no other is its own group.

    Names that were in one group `before` stay together while every pair of them reaches `stay`; two groups join if
    every pair across them reaches `enter`. The two with the greatest least value join first; of equals those with the
    smaller names.
    """
    present = sorted(set(names))
    blocks: list[tuple[str, ...]] = []
    placed: set[str] = set()
    for group in before:
        kept = [name for name in present if name in group and name not in placed]
        placed.update(kept)
        blocks += _agglomerated([(name,) for name in kept], link, stay)
    blocks += [(name,) for name in present if name not in placed]
    return tuple(_agglomerated(sorted(blocks), link, enter))


def _agglomerated(
    blocks: list[tuple[str, ...]], link: Callable[[str, str], Linkage], least: float
) -> list[tuple[str, ...]]:
    """Join the closest two blocks, by their weakest pair, until no two reach `least`."""
    links: dict[tuple[tuple[str, ...], tuple[str, ...]], Linkage] = {}
    while True:
        best: tuple[float, tuple[str, ...], tuple[str, ...]] | None = None
        for i, one in enumerate(blocks):
            for other in blocks[i + 1 :]:
                found = links.get((one, other)) or links.setdefault((one, other), _weakest(one, other, link))
                if found.reach >= least and (best is None or found.value > best[0]):
                    best = found.value, one, other
        if best is None:
            return blocks
        _, one, other = best
        joined = tuple(sorted((*one, *other)))
        blocks = sorted([*(block for block in blocks if block not in (one, other)), joined])


def _weakest(one: Iterable[str], other: Collection[str], link: Callable[[str, str], Linkage]) -> Linkage:
    """The least value and the least reach of the pairs across two blocks."""
    found = [link(a, b) for a in one for b in other]
    return Linkage(min(each.value for each in found), min(each.reach for each in found))


def by_interval(pairs: Mapping[Pair, Correlated], *, together: bool) -> Callable[[str, str], Linkage]:
    """The link of a pair, in doubt decided by the use that is made of its group.

    `together`: it reaches as far as the upper end of its interval, as limits of an exposure need it; else as the lower
    end, as netting and hedges do. An unknown pair reaches 1, or −1, and joins after every known one.
    """

    def link(one: str, other: str) -> Linkage:
        found = pairs.get(pair(one, other), UNKNOWN_PAIR)
        return Linkage(-1.0 if found.value is None else found.value, found.high if together else found.low)

    return link


def group_of(name: str, groups: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """The group that has the name; a name in no group is its own."""
    return next((group for group in groups if name in group), (name,))
