"""The virtual clock of a rehearsal moves only while somebody sleeps."""

import asyncio
from datetime import datetime

from killswitch.lab.rehearsal import VirtualClock
from tests.worlds import START, after


def test_only_sleeping_moves_the_clock() -> None:
    """An hour of sleep is over at once, and the market gets the new time before the sleeper wakes."""
    times: list[datetime] = []
    clock = VirtualClock(START, times.append)

    async def sleeper() -> list[datetime]:
        await clock.sleep(3600)
        return list(times)

    assert asyncio.run(sleeper()) == [after(hours=1)]
    assert (clock.now(), clock.monotonic()) == (after(hours=1), 3600.0)


def test_time_never_goes_back() -> None:
    """Sleeping for zero or negative seconds leaves the clock unchanged."""
    clock = VirtualClock(START)
    asyncio.run(clock.sleep(0))
    asyncio.run(clock.sleep(-5))
    assert (clock.now(), clock.monotonic()) == (START, 0.0)
