"""A close ends soon after the venue is flat, at the shortest tick that `venues check` allows, at every venue."""

from __future__ import annotations

from typing import Final

import pytest

from tests.conformance.wires import WIRES
from tests.faults.mishaps import Mishap, Rule
from tests.rotation import each_taking_turns
from tests.wire.polled_close import PolledClose

ABSENCE_ACCEPTED: Final = {"bybit": 6.5, "bitget": 31.5, "mexc": 11.5, "alpaca": 61.5}
"""Seconds until an absence may be accepted, by how long the venue can execute a request; elsewhere two. Alpaca enforces
no reduce-only, so that a second order could sell more than there is, and it documents no bound for a request: a minute.
"""
SOON: Final = 6.0
"""Seconds: one until the query after that, and two windows of a limit."""
RECORDED: Final = 2.0
"""Seconds from flat at the venue to flat in the record: a query, and a poll that may wait for a limit."""

ANSWERS: Final[tuple[Mishap, ...]] = ("lost", "done", "silent", "done_silent")


@pytest.mark.parametrize(
    ("name", "answer"), each_taking_turns(WIRES, "an answer is lost at the tightest tick", ANSWERS)
)
def test_a_lost_answer_to_an_order_does_not_keep_a_close_open(name: str, answer: Mishap) -> None:
    """Every order fills a quarter, and one request gets no answer: the close ends soon after the venue is flat."""
    close = PolledClose(WIRES[name])
    assert close.play(Rule("submit", answer), Rule("submit_batch", answer)) == "flat"
    assert close.ended_at - close.flat_at <= RECORDED
    assert close.ended_at <= ABSENCE_ACCEPTED.get(name, 2.0) + SOON
