"""Fights over a lock at wire-level venues: a bot that ignores it, against a real runner, in virtual time.

`taken` measures from a fill of the bot at the venue until our closing order arrives there.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Final

from msgspec import Struct

from killswitch.accounts.opening import read_policies
from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import OrderSide
from killswitch.model.venue import OrderRequest
from tests.latency.sites import OPEN_MARKET, POLICY, VENUES, WARM_UP, Site
from tests.virtual_time import START, VirtualTime

D = Decimal
FALL: Final = D("0.2")
CLOSED_WITHIN: Final = 20.0
"""Seconds after the fall until the bot begins."""
ABOVE_THE_CEILING: Final = """\
      on_breach: close
      breach: {{ceiling: 1%, cost_per_hour: 50%, pause: 60s}}
"""
ORDERS: Final = ("submit", "submit_batch", "close_book")
TRIES: Final = 14
FIGHT: Final = tuple(0.7 + 0.13 * (number % 8) for number in range(TRIES))
"""Seconds from an answer to the bot's next purchase, at other moments between two ticks each time."""
CALM: Final = tuple(45.0 + 0.13 * number for number in range(TRIES))
MOST: Final = 60.0
"""Seconds after which a purchase counts as never taken back."""


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

    async def answered_after(self, amount: Decimal) -> float:
        """The bot buys; seconds until our next order arrives at the venue. It returns when the purchase is closed."""
        seen, began = len(self.wire.seen), self.time.elapsed
        self.bot(amount)
        await self.taken_back_after(MOST)
        at = [it.at for it in self.wire.seen[seen:] if it.call in ORDERS]
        return min(at, default=began + MOST) + self.wire.latency / 2 - began


def play(venue: str, fight: Callable[[Desk], Awaitable[None]], *, fraction: str = "100%", pushed: bool = False) -> None:
    """A fall closes this fraction of the book and locks it, then the fight begins. `pushed`: with the stream."""
    kind = VENUES[venue]
    time = VirtualTime(OPEN_MARKET if kind.market == "equity" else START)

    async def scenario(site: Desk) -> None:
        await site.open()
        site.start()
        try:
            await asyncio.sleep(WARM_UP)
            site.fall(FALL)
            await asyncio.sleep(CLOSED_WITHIN)
            site.least = site.held
            assert site.least == (D(0) if fraction == "100%" else D(300))
            await fight(site)
        finally:
            await site.close()
        assert site.observed.problems == []

    # A worker that the end of the played time abandons may still write a file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        site = Desk(kind, Path(folder), time, pushed=pushed)
        site.fraction = fraction
        time.run(scenario(site))


class BreachTimes(Struct, frozen=True):
    """Seconds from each of the bot's fills to our order, of one fight. `left`: whether the close left a part."""

    venue: str
    left: bool
    gaps: str
    pushed: bool
    seconds: tuple[float, ...]

    @property
    def line(self) -> str:
        """A row of the table."""
        book = "half is left" if self.left else "closed whole"
        stream = "stream" if self.pushed else "polls"
        least, middle, most = min(self.seconds), median(self.seconds), max(self.seconds)
        count = f"{len(self.seconds)} tries"
        return f"{self.venue:<14} {book:<12} {self.gaps:<6} {stream:<6} {least:6.2f} {middle:6.2f} {most:6.2f}  {count}"


def measure(venue: str) -> Iterator[BreachTimes]:
    """The times at a venue: of a whole close and one of half, in a fight and in calm, with and without its stream."""
    for fraction in ("100%", "50%"):
        for name, gaps in (("fight", FIGHT), ("calm", CALM)):
            for pushed in (False, True)[: 1 + ("push" in VENUES[venue].can)]:
                seconds: list[float] = []

                async def fight(site: Desk, gaps: tuple[float, ...] = gaps, seconds: list[float] = seconds) -> None:
                    for gap in gaps:
                        seconds.append(await site.answered_after(D(50)))
                        await asyncio.sleep(gap)

                play(venue, fight, fraction=fraction, pushed=pushed)
                yield BreachTimes(venue, fraction != "100%", name, pushed, tuple(seconds))
