"""A bot that ignores a lock, against a real runner at wire-level venues: how soon what it opens is taken back."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from killswitch.accounts.opening import read_policies
from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import OrderSide
from killswitch.model.venue import OrderRequest
from tests.latency.sites import POLICY, VENUES, WARM_UP, Site
from tests.rotation import taking_turns
from tests.virtual_time import START, VirtualTime

D = Decimal
FALL: Final = D("0.2")
ABOVE_THE_CEILING: Final = """\
      on_breach: close
      breach: {{ceiling: 1%, cost_per_hour: 50%, pause: 60s}}
"""
AT_ONCE: Final = 2.2
"""Seconds: one until the tick, two polls and an order, and the tick after it."""
PLAYED_AT: Final = [name for name, venue in VENUES.items() if venue.market != "equity"]
"""Alpaca shows fills only of orders that it is asked about."""


class Desk(Site):
    """A site whose stage takes back what others open, and a bot that trades there."""

    bought = 0
    fraction = "100%"
    """What the stage closes of every position when it fires."""
    least = D(0)
    """What is left of the first symbol then."""

    def _policies(self) -> PolicySet:
        path = self._folder / "policy.yaml"
        text = POLICY.replace("      actions:\n", f"{ABOVE_THE_CEILING}      actions:\n")
        text = text.replace("fraction: 100%", f"fraction: {self.fraction}")
        path.write_text(text.format(scope="{each: account, match: {}}"), encoding="utf-8")
        return read_policies([path]).policies

    def bot(self, amount: Decimal, side: OrderSide = "buy") -> None:
        """The bot trades the first symbol at market."""
        self.bought += 1
        request = OrderRequest(
            client_order_id=f"bot{self.bought}", symbol=self.symbols[0], side=side, position_side="long",
            amount=amount, reduce_only=side == "sell",
        )  # fmt: skip
        self.wire.exchange.place(request, by="hand")

    @property
    def held(self) -> Decimal:
        return self.wire.exchange.held.get((self.symbols[0], "long"), D(0))

    async def taken_back_after(self, most: float) -> float:
        """Seconds until what the bot has bought is closed, at most `most`."""
        began = self.time.elapsed
        while self.held > self.least and self.time.elapsed - began < most:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.05)
        return self.time.elapsed - began


def play(venue: str, fight: Callable[[Desk], Awaitable[None]], *, fraction: str = "100%") -> None:
    """A fall closes this fraction of the book and locks it; then the fight begins."""
    time = VirtualTime(START)

    async def scenario(site: Desk) -> None:
        await site.open()
        site.start()
        try:
            await asyncio.sleep(WARM_UP)
            site.fall(FALL)
            await asyncio.sleep(20.0)
            site.least = site.held
            assert site.least == (D(0) if fraction == "100%" else D(300))
            await fight(site)
        finally:
            await site.close()
        assert site.observed.problems == []

    with tempfile.TemporaryDirectory() as folder:
        site = Desk(VENUES[venue], Path(folder), time)
        site.fraction = fraction
        time.run(scenario(site))


@pytest.mark.parametrize("venue", list(taking_turns(PLAYED_AT, "a bot is back above the ceiling")))
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


@pytest.mark.parametrize("venue", list(taking_turns(PLAYED_AT, "a bot adds to what was held before")))
def test_what_was_held_before_the_lock_stays_while_a_bot_adds_to_it(venue: str) -> None:
    """Half of 600 was closed: each purchase of 50 is sold, the first as soon as the venue's fills show it, and no more.

    Later ones may wait for the venue's fills, which are fetched less often while everything changes, or five seconds.
    """

    async def fight(site: Desk) -> None:
        taken = []
        for _ in range(4):
            site.bot(D(50))
            taken.append(await site.taken_back_after(20.0))
            assert site.held == site.least
            await asyncio.sleep(0.7)
        assert taken[0] <= AT_ONCE, taken

    play(venue, fight, fraction="50%")
