"""A cut of the selected gross that is not the same part of every position: the worst ranked go first.

By most rankings that is what it says: the worst position whole, then the next, until the cut is made. By component risk
the worst changes with every step, because closing what carries the risk makes what hedged it the risk; so the cut is
the one that leaves the book with the least variance (`risk.cut`).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from killswitch.planning.cap import Gross
from killswitch.planning.component import BookRisk
from killswitch.planning.ranking import Ranked
from killswitch.risk.cut import least_variance
from killswitch.signals.position import ZERO
from killswitch.signals.view import PnlKey

DIGITS = 9
"""To which a part that is kept is rounded: below it is what floats lose, and a lot must not be closed for that."""

Kept = dict[PnlKey, Decimal]
"""What may be left or is left of each position, in contracts."""


def unspreadable(chosen: Sequence[Ranked]) -> str | None:
    """Why no part of the selected gross can be taken, or None."""
    gross = Gross.of([each.candidate for each in chosen])
    if not gross.whole:
        return "the selected gross is not wholly known"
    return None if any(gross.known.values()) else "the selected positions are worth nothing"


def worst_first(fraction: Decimal, chosen: Sequence[Ranked], most: Kept) -> Kept:
    """What is left when `fraction` of the gross of `chosen` is taken from the worst ranked first.

    `most` is what may be left of each at most, whatever the rank; what that takes counts towards the cut. Every worth
    must be known.
    """
    left = dict(most)
    to_cut = fraction * sum((_worth(each) for each in chosen), ZERO) - _taken(chosen, most)
    for each in chosen:
        held, key = each.candidate.position.contracts, each.candidate.key
        worth = _worth(each) * most[key] / held
        if to_cut <= ZERO:
            break
        if worth > ZERO:
            left[key] = ZERO if worth <= to_cut else most[key] * (1 - to_cut / worth)
            to_cut -= min(worth, to_cut)
    return left


def least_risk(fraction: Decimal, chosen: Sequence[Ranked], most: Kept, risk: BookRisk) -> Kept:
    """What is left when `fraction` of the gross of `chosen` is taken so that the whole book varies the least."""
    limits = {each.candidate.key: _worth(each) * most[each.candidate.key] / each.candidate.position.contracts
              for each in chosen}  # fmt: skip
    gross = sum((_worth(each) for each in chosen), ZERO)
    kept = min((1 - fraction) * gross, sum(limits.values(), ZERO))
    bounds = [None if key not in limits else float(limits[key]) for key in risk.keys]
    worths = dict(zip(risk.keys, least_variance(risk.exposures, risk.covariance, bounds, float(kept)), strict=True))
    left = {}
    for key, limit in limits.items():
        part = round(worths[key] / float(limit), DIGITS) if limit > ZERO else 0.0
        left[key] = most[key] * Decimal(repr(min(1.0, max(0.0, part))))
    return left


def _worth(ranked: Ranked) -> Decimal:
    if ranked.candidate.worth is None:
        raise AssertionError("a cut of the gross is only made where every worth is known")
    return ranked.candidate.worth


def _taken(chosen: Sequence[Ranked], most: Kept) -> Decimal:
    """The gross that the bounds take by themselves."""
    parts = (1 - most[each.candidate.key] / each.candidate.position.contracts for each in chosen)
    return sum((_worth(each) * part for each, part in zip(chosen, parts, strict=True)), ZERO)
