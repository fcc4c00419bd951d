"""How long the venue may still carry out a request for an order: said in the request where that can be, and waited for.

An order that is held up on its way is carried out when it arrives. The venue's word that it has no such order is an
answer only when that can no longer be. Pure.
"""

from __future__ import annotations

from killswitch.closing.pace import Pace
from killswitch.model.venue import OrderLife


def validity(life: OrderLife, pace: Pace, expired: int) -> float | None:
    """Seconds for which the next order is to be valid; None where a request cannot say it.

    `expired`: how many before it were refused because their time was up.
    """
    if life.longest is None:
        return None
    wanted = min(pace.longest_validity, pace.first_validity * 2.0 ** min(expired, 10))
    return min(life.longest, max(life.shortest, wanted))


def over_after(life: OrderLife, pace: Pace, valid_for: float | None) -> float:
    """Seconds after sending from which on a request can no longer be carried out. `valid_for`: what it said itself."""
    bounds = [bound for bound in (valid_for, life.always) if bound is not None]
    return max(pace.absence_after, min(bounds, default=pace.unbounded_validity) + pace.after_validity)
