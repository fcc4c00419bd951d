"""Request timeouts follow the answers to other requests of the same kind, also those sent before the first answer."""

from __future__ import annotations

import asyncio

import pytest

from killswitch.execution.closing_pace import PACE
from killswitch.execution.response_timeouts import ResponseTimeouts
from killswitch.model.venue import FateUnknownError
from tests.virtual_time import VirtualTime


def test_a_fast_answer_shortens_the_timeout_of_a_request_already_in_flight() -> None:
    """Two orders leave together: one is answered after 0.1 s, so the other is given up after 1 s, not after 10."""
    time = VirtualTime()

    async def two_orders() -> None:
        timeouts = ResponseTimeouts(PACE)
        unanswered = asyncio.create_task(timeouts.await_answer("submit", asyncio.Event().wait(), None))
        await timeouts.await_answer("submit", asyncio.sleep(0.1), None)
        with pytest.raises(FateUnknownError):
            await unanswered

    time.run(two_orders())
    # 0.1 s, plus four times half of it, is below the shortest timeout, which is 1 s from when the order was sent.
    assert time.elapsed == pytest.approx(1.0)
