"""The virtual time of the tests: it jumps, keeps the order of events, and raises where real time would hang."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from tests.virtual_time import START, NothingWillHappenError, VirtualTime, run


def test_a_day_of_virtual_waiting_ends_at_once() -> None:
    """The clock has advanced by the slept time, to the second."""
    timeline = VirtualTime()
    timeline.run(timeline.sleep(86_400))
    assert timeline.now() == START + timedelta(days=1)


def test_concurrent_waits_take_as_long_as_the_longest() -> None:
    """Tasks wake up in the order of their times, not in the order of their starts."""
    order: list[float] = []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    async def main() -> float:
        await asyncio.gather(wait(30.0), wait(0.04), wait(10.0))
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(30.0, abs=1e-6)
    assert order == [0.04, 10.0, 30.0]


def test_a_timeout_ends_a_call_that_never_answers() -> None:
    """Exactly the ten seconds of the timeout pass."""
    timeline = VirtualTime()

    async def main() -> None:
        async with asyncio.timeout(10.0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        timeline.run(main())
    assert timeline.elapsed == pytest.approx(10.0, abs=1e-6)


def test_a_wait_that_would_never_end_is_an_error() -> None:
    """No task or timer can end the wait."""
    with pytest.raises(NothingWillHappenError):
        run(asyncio.Event().wait())


def test_virtual_time_stops_while_a_thread_works() -> None:
    """A timeout around work in a thread does not expire because the loop is idle."""
    timeline = VirtualTime()

    async def main() -> str:
        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(work)

    def work() -> str:
        time.sleep(0.02)
        return "done"

    assert timeline.run(main()) == "done"
    assert timeline.elapsed == 0.0


def test_virtual_time_continues_where_the_last_run_ended() -> None:
    """A program that is killed and restarted finds the current virtual time."""
    timeline = VirtualTime()
    timeline.run(timeline.sleep(5.0))
    timeline.run(timeline.sleep(7.0))
    assert timeline.monotonic() == pytest.approx(12.0, abs=1e-6)
