"""Callbacks never disturb a tick: errors, slowness and a full queue stay with the caller."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from msgspec.structs import replace

from killswitch.embedding.callbacks import Callbacks, StageChange
from killswitch.model.decision import Notice
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.observers import TickReport
from tests.unit.embedding.embedded import until
from tests.worlds import snapshot

AT = datetime(2024, 1, 1, tzinfo=UTC)
NORMAL = MachineStatus("crash", "account/main", "enforce", 0, None, None, None, None, ())
FIRED = replace(NORMAL, level=3, stage="stop", decision="d1")


def report(*machines: MachineStatus, notices: int = 0) -> TickReport:
    """A tick with these machines and so many notices."""
    found = tuple(Notice(AT, "crash", "account/main", "warning", "info", str(number)) for number in range(notices))
    return TickReport(snapshot(AT), (), found, (), (), 0.0, machines=lambda: machines)


def test_only_changes_are_called_back_in_their_order() -> None:
    """Normal, fired twice, reset: two changes; a scope that was never seen begins at normal."""
    seen: list[StageChange] = []
    callbacks = Callbacks(seen.append, None)
    callbacks.start()
    for machine in (NORMAL, FIRED, FIRED, NORMAL):
        callbacks.ticked(report(machine))
    assert callbacks.stop(10.0)
    assert [(each.level_before, each.level, each.stage, each.decision) for each in seen] == [
        (0, 3, "stop", "d1"), (3, 0, None, None),
    ]  # fmt: skip


def test_a_callback_that_raises_is_a_problem_and_the_next_is_called() -> None:
    """The error is kept in words; ticks and later calls go on."""
    seen: list[str] = []

    def on_notice(notice: Notice) -> None:
        seen.append(notice.text)
        if notice.text == "0":
            raise ValueError("mine")

    callbacks = Callbacks(None, on_notice)
    callbacks.start()
    callbacks.ticked(report(notices=3))
    assert callbacks.stop(10.0)
    assert seen == ["0", "1", "2"]
    assert callbacks.problem == "a callback failed: ValueError: mine"


def test_a_callback_that_hangs_delays_no_tick_and_fills_a_bounded_queue() -> None:
    """Of nine calls one hangs, three wait, and five are dropped and counted."""
    hangs, goes_on = threading.Event(), threading.Event()

    def on_notice(_: Notice) -> None:
        hangs.set()
        goes_on.wait()

    callbacks = Callbacks(None, on_notice, most_waiting=3)
    callbacks.start()
    callbacks.ticked(report(notices=1))
    assert hangs.wait(10.0)
    callbacks.ticked(report(notices=8))
    assert callbacks.dropped == 5
    assert not callbacks.stop(0.01), "it still hangs"
    goes_on.set()
    until(lambda: callbacks.stop(1.0), "over")
