"""How much of a position a share cap leaves: at most a part of the scope's gross notional at firing.

Where a part of the gross is unknown, the sum of what is known stands for it: gross is at least that, so the cap is at
most what was declared. That nothing converts between two currencies of account makes the other one's part unknown.
Of a position whose own worth is unknown, no remainder is surely under the cap, so nothing is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from killswitch.planning.ranking import Candidate, Ranked
from killswitch.signals.position import ZERO


@dataclass(frozen=True, slots=True)
class Gross:
    """Sum of the known notionals by currency of account; `whole` if that is all there is."""

    known: Mapping[str, Decimal]
    whole: bool

    @classmethod
    def of(cls, book: Sequence[Candidate]) -> Gross:
        """The gross of all positions of a scope."""
        known: dict[str, Decimal] = {}
        for candidate in book:
            currency = candidate.account.currency
            known[currency] = known.get(currency, ZERO) + (candidate.worth or ZERO)
        return cls(known, len(known) < 2 and all(candidate.worth is not None for candidate in book))


def under(share_cap: Decimal, candidate: Candidate, gross: Gross) -> Decimal:
    """The contracts that may be left of a position: share cap × gross ÷ worth per contract, at most all."""
    held = candidate.position.contracts
    if candidate.worth is None:
        return ZERO
    allowed = share_cap * gross.known[candidate.account.currency]
    return held if candidate.worth <= allowed else held * allowed / candidate.worth


def remarks(chosen: Sequence[Ranked], gross: Gross) -> tuple[str, ...]:
    """What people must know of a cap that could not be taken as declared."""
    unknown = [each.candidate.position.symbol for each in chosen if each.candidate.worth is None]
    said = [f"the worth of {', '.join(unknown)} is unknown: closed wholly, as the share cap asks"] if unknown else []
    if not gross.whole:
        said.append("the gross is not wholly known: the share cap is taken of the part that is")
    return tuple(said)
