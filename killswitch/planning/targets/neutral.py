"""The fewest reductions that bring a weighted net exposure to zero, and the guard of their variance.

A book has legs; legs of one base asset are netted in base units, which need no price. With a price P and a weight w (a
beta, or 1) of each base, and its net of n base units, the exposure is B = Σ w·n·P. Only a leg on the side of the net of
its base may be cut, where w·n has the sign of B, and by at most |n|: so no base turns, and B neither grows nor turns.
The largest exposure first, each by the smaller of what it has and what is left of B. Within a base the possible cuts
shrink from one leg to the next, so that no other set of such reductions needs fewer orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_DOWN, Context, Decimal

from msgspec import Struct

from killswitch.risk.covariance import Matrix, least_variance, variance
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey

_DOWN = Context(prec=50, rounding=ROUND_DOWN)
"""Rounding of cuts: towards less, so that the exposure never turns."""

DIGITS = 9
"""Decimal digits of a share that is kept by the least variance, which is computed in floats."""

NOTHING = Decimal("1e-18")
"""Fraction of the exposure below which what is left of it is none: prices and sizes are rounded to 28 digits."""

EQUAL = 1e-9
"""Relative difference of two variances below which they are equal: they are computed in floats."""


class ExposedLeg(Struct, frozen=True):
    """What a position, or a wallet, has of a base asset: `contracts` of `unit` base units each, negative for a short.

    `key`: the position; None for a wallet. `is_cuttable`: whether orders may reduce it now.
    """

    base: str
    unit: Decimal
    contracts: Decimal
    key: PnlKey | None = None
    is_cuttable: bool = True

    @property
    def units(self) -> Decimal:
        """Signed base units."""
        return self.unit * self.contracts


class WeightedBase(Struct, frozen=True):
    """Money of one base unit, above 0, and the weight of it in the exposure."""

    price: Decimal
    weight: Decimal = Decimal(1)


Bases = Mapping[str, WeightedBase]
Order = Callable[[PnlKey, Decimal], Decimal]
"""(position, most contracts) → the greatest order up to them that its venue accepts; 0 if there is none."""


class Cuts(Struct, frozen=True):
    """Contracts to sell of each position, in the order of selling, and the exposure before and after them."""

    contracts: Mapping[PnlKey, Decimal]
    before: Decimal
    after: Decimal


def any_amount(_: PnlKey, most: Decimal) -> Decimal:
    """An order of any size is accepted."""
    return most


def nets(legs: Iterable[ExposedLeg]) -> dict[str, Decimal]:
    """Base asset → its net in base units."""
    found: dict[str, Decimal] = {}
    for leg in legs:
        found[leg.base] = found.get(leg.base, ZERO) + leg.units
    return found


def exposure(net: Mapping[str, Decimal], bases: Bases) -> Decimal:
    """B = Σ w·n·P; a base of unknown price has no net."""
    return sum((each.weight * net.get(base, ZERO) * each.price for base, each in bases.items()), ZERO)


def fewest_cuts(legs: Sequence[ExposedLeg], bases: Bases, order: Order = any_amount) -> Cuts:
    """The fewest reductions that bring the exposure to zero, as far as orders of accepted sizes do."""
    net = nets(legs)
    before = left = exposure(net, bases)
    found: dict[PnlKey, Decimal] = {}
    tried: set[PnlKey] = set()
    is_last = False
    while abs(left) > NOTHING * abs(before) and not is_last:
        leg = _next(legs, net, bases, left, tried)
        if leg is None or leg.key is None:
            break
        tried.add(leg.key)
        each = bases[leg.base]
        wanted = _DOWN.divide(abs(left), abs(each.weight) * each.price)
        most = min(abs(leg.units), abs(net[leg.base]))
        most = leg.contracts if min(most, wanted) == abs(leg.units) else _DOWN.divide(min(most, wanted), abs(leg.unit))
        sold = min(order(leg.key, most), leg.contracts)
        if sold:
            found[leg.key] = sold
            is_last = wanted <= min(abs(leg.units), abs(net[leg.base]))  # the rest is what rounding leaves
            net[leg.base] -= leg.unit * sold
            left = exposure(net, bases)
    return Cuts(found, before, left)


def _next(
    legs: Sequence[ExposedLeg], net: Mapping[str, Decimal], bases: Bases, left: Decimal, tried: set[PnlKey]
) -> ExposedLeg | None:
    """The leg whose cut can remove the most of the exposure that is left; ties by position."""
    best: tuple[Decimal, PnlKey] | None = None
    chosen = None
    for leg in legs:
        each, total = bases.get(leg.base), net[leg.base]
        if each is None or leg.key is None or leg.key in tried or not leg.is_cuttable:
            continue
        if leg.units * total <= ZERO or each.weight * total * left <= ZERO:
            continue  # a hedge of its base, or of the book
        room = abs(each.weight) * each.price * min(abs(leg.units), abs(total))
        if best is None or room > best[0] or (room == best[0] and leg.key < best[1]):
            best, chosen = (room, leg.key), leg
    return chosen


def least_risk_cuts(
    legs: Sequence[ExposedLeg], bases: Bases, keep: Decimal, covariance: Matrix, names: Sequence[str], order: Order
) -> Cuts:
    """Reductions after which the share `keep` of the gross is left, with the least variance of the whole book.

    `covariance`: of the returns of the bases `names`. Legs that may not be cut count in the gross, and stay.
    """
    place = [names.index(leg.base) for leg in legs]
    values = [float(leg.units * bases[leg.base].price) for leg in legs]
    of_legs = [[covariance[i][j] for j in place] for i in place]
    limits = [
        abs(value) if leg.is_cuttable and leg.key is not None else None for leg, value in zip(legs, values, strict=True)
    ]
    gross, fixed = sum(map(abs, values)), sum(abs(v) for v, most in zip(values, limits, strict=True) if most is None)
    kept = min(max(float(keep) * gross - fixed, 0.0), gross - fixed)
    left = least_variance(values, of_legs, limits, kept)
    found: dict[PnlKey, Decimal] = {}
    net = nets(legs)
    before = exposure(net, bases)
    for leg, limit, rest in zip(legs, limits, left, strict=True):
        if leg.key is None or not limit:
            continue
        part = Decimal(repr(min(1.0, max(0.0, round(1.0 - rest / limit, DIGITS)))))
        sold = order(leg.key, leg.contracts * part) if part else ZERO
        if sold:
            found[leg.key] = sold
            net[leg.base] -= leg.unit * sold
    return Cuts(found, before, exposure(net, bases))


def after_cuts(legs: Sequence[ExposedLeg], cuts: Mapping[PnlKey, Decimal]) -> dict[str, Decimal]:
    """Base asset → its net in base units after the cuts."""
    found: dict[str, Decimal] = {}
    for leg in legs:
        sold = ZERO if leg.key is None else cuts.get(leg.key, ZERO)
        found[leg.base] = found.get(leg.base, ZERO) + leg.unit * (leg.contracts - sold)
    return found


def variance_of(net: Mapping[str, Decimal], bases: Bases, covariance: Matrix, names: Sequence[str]) -> float:
    """x′Sx of the money in each of the bases `names`, per return."""
    return variance([float(net.get(name, ZERO) * bases[name].price) for name in names], covariance)


def is_riskier(before: float, after: float) -> bool:
    """Whether the variance has grown."""
    return after > before * (1.0 + EQUAL)
