"""A bot that ignores a lock, against a real runner at wire-level venues: how soon what it opens is taken back."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

import pytest

from tests.latency.breaches import FIGHT, Desk, play
from tests.latency.sites import VENUES
from tests.rotation import taking_turns

D = Decimal
AT_ONCE: Final = 2.2
"""Seconds: one until the tick, two polls and an order, and the tick after it."""
CONTRADICTED: Final = 5.0 + AT_ONCE + 0.2
"""Seconds: the same, and those for which the venue must contradict our fills while it lists none of others; one poll
more."""
WITH_REDUCE_ONLY: Final = [name for name, venue in VENUES.items() if venue.market != "equity"]
"""Alpaca caps no order by the position, so that an answer waits there for its fills, as where a part stays."""


@pytest.mark.parametrize("venue", list(taking_turns(WITH_REDUCE_ONLY, "a bot is back above the ceiling")))
def test_above_the_ceiling_every_answer_leaves_at_once(venue: str) -> None:
    """50 of 80 is 4% of the equity, the ceiling 1%: not only the first purchase is sold in the next tick."""

    async def fight(site: Desk) -> None:
        taken = []
        for _ in range(5):
            site.bot(D(50))
            taken.append(await site.taken_back_after(12.0))
            await asyncio.sleep(0.7)
        assert max(taken) <= AT_ONCE, taken

    play(venue, fight)


@pytest.mark.parametrize("venue", list(taking_turns(list(VENUES), "a bot adds to what was held before")))
def test_what_was_held_before_the_lock_stays_while_a_bot_adds_to_it(venue: str) -> None:
    """Half of 600 was closed: each purchase of 50 is sold, the first as soon as the venue's fills show it, and no more.

    Later ones wait for the venue's fills, which are fetched less often while everything changes, or five seconds; the
    wait takes no requests from the polls that show the next one.
    """

    async def fight(site: Desk) -> None:
        taken = []
        for gap in FIGHT[:8]:
            taken.append(await site.answered_after(D(50)))
            assert site.held == site.least
            await asyncio.sleep(gap)
        assert taken[0] <= AT_ONCE, taken
        assert max(taken) <= CONTRADICTED, taken

    play(venue, fight, fraction="50%")
