"""Kraken's counter of private questions, counted along: what may still be asked, and what has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from killswitch.model.venue import AccountSpec


@dataclass(frozen=True, slots=True)
class Tier:
    """What Kraken grants an account by its verification."""

    asked: int
    """Questions that the counter holds."""
    within: float
    """Seconds in which all of them are given back."""
    points: int
    """Of the matching engine, for each pair, and the seconds in which they are given back."""
    back: float
    spot: float
    """Seconds between two readings of the balances, one question, while nothing of ours is under way."""
    margin: float
    """The same of equity and open positions, two questions."""
    snapshot: int
    """Tenths of a question that a calm snapshot takes at a tick of one second, the larger of both markets."""


TIERS: Final[Mapping[str, Tier]] = {
    "starter": Tier(15, 45.0, 60, 60.0, spot=10.0, margin=15.0, snapshot=3),
    "intermediate": Tier(20, 40.0, 125, 53.0, spot=5.0, margin=8.0, snapshot=4),
    "pro": Tier(20, 20.0, 180, 48.0, spot=2.0, margin=3.0, snapshot=8),
}
SPARE: Final = 0.6
"""The share of the counter that readings beyond the calm ones may fill: the rest is for what closing asks."""
ROWS: Final = 0.8
"""The share that fills and ledgers may fill: they explain what happened, and do not say what is held."""


def tier_of(spec: AccountSpec) -> Tier:
    """ValueError for a tier that Kraken does not have."""
    tier = str(spec.options.get("tier", "starter"))
    if tier not in TIERS:
        raise ValueError(f"options: tier of a Kraken account is one of {', '.join(TIERS)}, not {tier}")
    return TIERS[tier]


class Counter:
    """One account's counter, in questions: each adds to it, and time takes away."""

    def __init__(self, tier: Tier) -> None:
        self._most = float(tier.asked)
        # A little less than is promised: clocks differ, and a third of a question a second is 0.33 in the documents.
        self._a_second = 0.98 * tier.asked / tier.within
        self._level = 0.0
        self._at = float("-inf")

    def fits(self, questions: int, share: float = 1.0) -> bool:
        """Whether so many may be asked now, the counter filled up to `share` of it at most."""
        return self._now() + questions <= self._most * share

    async def taken(self, questions: int) -> None:
        """Count them, as soon as there is room: seconds at most, since one is given back in three at worst."""
        while not self.fits(questions):
            missing = self._level + questions - self._most
            await asyncio.sleep(missing / self._a_second + 0.001)
        self._level += questions

    def _now(self) -> float:
        now = asyncio.get_running_loop().time()
        if now > self._at:
            self._level = max(0.0, self._level - (now - self._at) * self._a_second)
        self._at = now
        return self._level
