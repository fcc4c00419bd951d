"""A clock that only moves when somebody waits."""

import asyncio
from datetime import datetime

from killswitch.lab.rehearsal import VirtualClock
from tests.worlds import START, after


def test_sleeping_is_what_makes_time_pass() -> None:
    """An hour of sleep is over at once, and the market hears of the new time before the sleeper wakes."""
    heard: list[datetime] = []
    clock = VirtualClock(START, heard.append)

    async def sleeper() -> list[datetime]:
        await clock.sleep(3600)
        return list(heard)

    assert asyncio.run(sleeper()) == [after(hours=1)]
    assert (clock.now(), clock.monotonic()) == (after(hours=1), 3600.0)


def test_time_never_goes_back() -> None:
    """Sleeping for no time, or for less, leaves the clock where it is."""
    clock = VirtualClock(START)
    asyncio.run(clock.sleep(0))
    asyncio.run(clock.sleep(-5))
    assert (clock.now(), clock.monotonic()) == (START, 0.0)
