"""The tests' own time: it jumps, keeps the order of events, and says where real time would hang."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from tests.virtual_time import START, NothingWillHappenError, VirtualTime, run


def test_a_day_of_waiting_is_over_at_once_and_has_taken_a_day() -> None:
    """The clock shows what was slept, to the second."""
    timeline = VirtualTime()
    timeline.run(timeline.sleep(86_400))
    assert timeline.now() == START + timedelta(days=1)


def test_tasks_that_wait_side_by_side_take_as_long_as_the_longest() -> None:
    """And are woken in the order of their times, not in the order in which they began."""
    order: list[float] = []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    async def main() -> float:
        await asyncio.gather(wait(30.0), wait(0.04), wait(10.0))
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(30.0, abs=1e-6)
    assert order == [0.04, 10.0, 30.0]


def test_a_timeout_ends_what_never_answers() -> None:
    """The ten seconds of patience pass, and no more."""
    timeline = VirtualTime()

    async def main() -> None:
        async with asyncio.timeout(10.0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        timeline.run(main())
    assert timeline.elapsed == pytest.approx(10.0, abs=1e-6)


def test_what_would_hang_for_ever_is_an_error() -> None:
    """Waiting for something that nobody can bring about."""
    with pytest.raises(NothingWillHappenError):
        run(asyncio.Event().wait())


def test_time_stands_still_while_a_thread_works() -> None:
    """A timeout around work in a thread does not run out because the loop had nothing else to do."""
    timeline = VirtualTime()

    async def main() -> str:
        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(work)

    def work() -> str:
        time.sleep(0.02)
        return "done"

    assert timeline.run(main()) == "done"
    assert timeline.elapsed == 0.0


def test_a_timeline_goes_on_where_the_last_run_ended() -> None:
    """A program that is killed and started again finds the time that it is."""
    timeline = VirtualTime()
    timeline.run(timeline.sleep(5.0))
    timeline.run(timeline.sleep(7.0))
    assert timeline.monotonic() == pytest.approx(12.0, abs=1e-6)
