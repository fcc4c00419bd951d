"""A close ends soon after the venue is flat, at the shortest tick that `venues check` allows, at every venue."""

from __future__ import annotations

from typing import Final

import pytest

from tests.conformance.wires import WIRES
from tests.faults.mishaps import Mishap, Rule
from tests.rotation import each_taking_turns
from tests.wire.polled_close import PolledClose

ABSENCE_ACCEPTED: Final = {"bybit": 6.5, "bitget": 31.5, "mexc": 11.5}
"""Seconds until an absence may be accepted, by how long the venue can execute a request; elsewhere two."""
SOON: Final = 6.0
"""Seconds: one until the query after that, and two windows of a limit."""

ANSWERS: Final[tuple[Mishap, ...]] = ("lost", "done", "silent", "done_silent")


@pytest.mark.parametrize(
    ("name", "answer"), each_taking_turns(WIRES, "an answer is lost at the tightest tick", ANSWERS)
)
def test_a_lost_answer_to_an_order_does_not_keep_a_close_open(name: str, answer: Mishap) -> None:
    """One order request gets no answer, and every order fills a quarter: the close ends once the outcome is known."""
    close = PolledClose(WIRES[name])
    assert close.play(Rule("submit", answer), Rule("submit_batch", answer)) == "flat"
    assert close.ended_at <= ABSENCE_ACCEPTED.get(name, 2.0) + SOON
