"""A venue's first answer contains the rules of all its markets, and may take longer than a tick waits."""

from __future__ import annotations

import asyncio

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.poller import FIRST_ANSWER_TIMEOUT, Polls
from killswitch.model.snapshot import AccountSnapshot
from tests import virtual_time
from tests.runner_world import ScriptedVenue
from tests.worlds import account

TIMEOUT = 5.0


class Slow(ScriptedVenue):
    """Answers each poll after its own number of seconds."""

    def __init__(self, *seconds: float) -> None:
        super().__init__(account("1"))
        self.seconds = list(seconds)
        self.requests = 0
        self.cancelled = 0

    async def snapshot(self) -> AccountSnapshot:
        self.requests += 1
        try:
            await asyncio.sleep(self.seconds.pop(0))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return account("1")


def read(venue: Slow, ticks: int) -> list[str]:
    """The account's quality at each tick, which comes 5 s after the one before, or as soon as that is done."""
    timeline = virtual_time.VirtualTime()

    async def story() -> list[str]:
        poller = Polls(
            {venue.account: ArmedAccount(venue.account, "paper", "swap", "USDT", venue, armed=False)},
            TIMEOUT, first=FIRST_ANSWER_TIMEOUT,
        )  # fmt: skip
        found: list[str] = []
        for _ in range(ticks):
            due = asyncio.get_running_loop().time() + TIMEOUT
            (polled,) = await poller.gather()
            found.append(polled.quality)
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        await poller.abandon()
        return found

    return timeline.run(story())


def test_a_first_answer_that_takes_twelve_seconds_arrives() -> None:
    """Ticks wait 5 s for it and continue without; it is not cancelled, and requested once until it is there."""
    venue = Slow(12.0, 0.0, 0.0, 0.0)
    assert read(venue, 4) == ["down", "down", "down", "ok"]
    assert (venue.requests, venue.cancelled) == (1, 0)


def test_after_its_first_answer_a_venue_has_only_the_timeout() -> None:
    """The second poll is cancelled after 5 s."""
    venue = Slow(0.0, 100.0, 0.0)
    assert read(venue, 3)[:2] == ["ok", "down"]
    assert venue.cancelled == 1


def test_a_venue_that_never_answers_is_polled_anew_after_thirty_seconds() -> None:
    """Cancelled at the tick that finds it 30 s old."""
    venue = Slow(100.0, 100.0)
    assert set(read(venue, 10)) == {"down"}
    assert (venue.requests, venue.cancelled) == (2, 2)
