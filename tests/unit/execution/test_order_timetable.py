"""The timetable of a paced close: when each order may leave."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.state.account_job import Timetable
from killswitch.journal.targets import PositionTarget
from killswitch.model.decision import Unwinding
from tests.faults.exchange import Key
from tests.faults.scene import Scene

D = Decimal


def target(symbol: str) -> PositionTarget:
    return PositionTarget("d1", "main", symbol, "long", "sell", D(0), D(10), D(10), True, 1, 0)


def test_orders_are_spaced_evenly_and_lateness_is_not_passed_on() -> None:
    """Sixty a minute: each order late by up to 0.4 s, and the sixtieth still leaves at its own second."""
    table = Timetable(Unwinding("u", max_orders_per_minute=60))
    for number in range(60):
        due = table.due(target(f"S{number}"))
        assert due <= number + 1e-9
        table.record_sent(target(f"S{number}"), number + 0.4 * (number % 2))
    assert abs(table.due(target("next")) - 60.0) < 1e-9


def test_a_long_wait_is_not_followed_by_a_burst() -> None:
    """After an hour without an order, two more leave a second apart, at the least the declared minute divided by 60."""
    table = Timetable(Unwinding("u", max_orders_per_minute=60))
    table.record_sent(target("A"), 0.0)
    table.record_sent(target("B"), 3600.0)
    table.record_sent(target("C"), max(3600.0, table.due(target("C"))))
    assert table.due(target("D")) >= 3601.0


def test_a_pause_holds_only_the_position_that_was_just_traded() -> None:
    """Two seconds between slices of A; B may leave at once."""
    table = Timetable(Unwinding("u", pause=2.0))
    table.record_sent(target("A"), 10.0)
    assert (table.due(target("A")), table.due(target("B")) <= 10.0) == (12.0, True)


def test_without_a_declared_pace_everything_may_leave_at_once() -> None:
    """No unwinding, no timetable."""
    table = Timetable(None)
    table.record_sent(target("A"), 10.0)
    assert (table.due(target("A")) <= 10.0, table.is_declared) == (True, False)


def test_a_close_keeps_the_pace_that_its_policy_declares() -> None:
    """Six orders a minute: three positions are closed ten seconds apart."""
    positions: list[Key] = [("A", "long"), ("B", "long"), ("C", "long")]
    scene = Scene(dict.fromkeys(positions, 10))
    slow = Unwinding("slow", max_orders_per_minute=6)
    scene.decide(dict.fromkeys(positions, 0), change=lambda decision: replace(decision, unwinding=slow))
    assert scene.play() == {"d1": "flat"}
    first, *others = (deed.at for deed in scene.exchange.deeds)
    assert [at - first for at in others] == pytest.approx([10.0, 20.0], abs=0.5)
