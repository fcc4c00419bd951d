"""The way back in a run on a store: what status, explain and the gate's view show, and what a restart keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.limits.view import GateView, decode_gate_view
from killswitch.operations.approving import ApprovalError, next_step
from killswitch.operations.pages.decision import decision_history_of, decision_history_record
from killswitch.operations.preview import preview
from killswitch.operations.status import store_status
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.locks.gate_view import GateSources, GateViewWriter
from killswitch.runner.loop import Runner, RunnerPace
from tests.backtests import written
from tests.runner_world import ScriptedVenue, Seen, World, book
from tests.shown import decision_history_text, plan_text, status_text
from tests.unit.planning.recovery.plans import PLAN
from tests.worlds import START, operator_event, snapshot

SECONDS = PLAN.replace("window: 1h", "window: 1m").replace("max_gap: 10m", "max_gap: 10s")
PACE = RunnerPace(interval=5.0, read_timeout=0.5, stop_timeout=0.5, lock_timeout=30.0)


def plan() -> PolicySet:
    """Steps of 30 s from 25%, after 10 s of health, with a tick each second for a minute."""
    text = SECONDS.replace("START", "{share: 25%}").replace("RAMP", "{steps: 2, every: 30s, thresholds: fixed}")
    text = text.replace("MONITORING", "monitoring: {for: 60s, interval: 1s}")
    return written(
        text.replace('equity.drawdown("15m") < 0.01\', for: 1h', 'equity.drawdown("10s") < 0.01\', for: 10s')
    )


def connected(world: World, venue: ScriptedVenue, policies: PolicySet) -> tuple[Runner, GateViewWriter]:
    """A runner with the gate's view, as `ksctl run` connects them."""
    writer = GateViewWriter(world.folder / "gate.json", policies, None)
    runner = world.runner(world.open(), [venue], policies=policies, witnesses=(writer,), pace=PACE)
    clock = runner.clock
    writer.connect(
        GateSources(
            runner.poller.dated, lambda _: (), clock.now, clock.monotonic, clock.off, {},
            runner.interpreter.recoveries.caps,
        )
    )  # fmt: skip
    return runner, writer


def view_of(world: World, writer: GateViewWriter) -> GateView:
    """The view as written after the last tick."""
    assert writer.close(10.0)
    return decode_gate_view((world.folder / "gate.json").read_bytes())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    found.close()


async def ticks(world: World, runner: Runner, number: int) -> None:
    """So many ticks, a second apart."""
    for _ in range(number):
        await runner.tick()
        await world.clock.sleep(1.0)


def test_status_explain_and_the_gates_view_show_the_step_and_a_restart_keeps_it(world: World) -> None:
    """Tripped: a pause in the view. At 25%: a gross of 250,000. The next process goes on with the same step."""
    policies, venue = plan(), ScriptedVenue(book("1100"))

    async def first() -> tuple[str, GateView]:
        runner, writer = connected(world, venue, policies)
        await runner.start()
        await ticks(world, runner, 2)
        venue.answer = book("900")
        await ticks(world, runner, 3)
        shown = status_text(store_status(runner.store, world.clock.now(), 0), "s")
        view = view_of(world, writer)
        runner.store.put_event(operator_event("reset", world.clock.now()))
        await ticks(world, runner, 20)
        assert runner.interpreter.recoveries.interval == 1_000_000
        await runner.finish()
        await runner.shut_down()
        return shown, view

    async def second() -> tuple[str, GateView]:
        runner, writer = connected(world, venue, policies)
        await runner.start()
        await ticks(world, runner, 2)
        text = status_text(store_status(runner.store, world.clock.now(), 0), "s")
        await runner.finish()
        await runner.shut_down()
        return text, view_of(world, writer)

    shown, view = asyncio.run(first())
    assert "Way back after a reset" in shown and "waits for a reset; nothing is opened" in shown
    (tripped,) = view.accounts
    assert [each.scope for each in tripped.pauses] == ["account/main"]
    assert tripped.recovery is not None and tripped.recovery.share == 0

    shown, view = asyncio.run(second())
    assert "step 0 of 2" in shown and "25% of the limits" in shown
    (on_ramp,) = view.accounts
    assert on_ramp.pauses == ()
    assert on_ramp.limits is not None and on_ramp.limits.gross is not None
    assert on_ramp.limits.gross.value == Decimal(250_000)
    assert on_ramp.limits.leverage == Decimal(1)


def test_explain_tells_what_has_followed_a_firing(world: World) -> None:
    """The notices of the way back of its scope since the decision, in their order, for people and in JSON."""
    policies, venue = plan(), ScriptedVenue(book("1100"))

    async def run() -> None:
        runner, _ = connected(world, venue, policies)
        await runner.start()
        await ticks(world, runner, 2)
        venue.answer = book("900")
        await ticks(world, runner, 2)
        runner.store.put_event(operator_event("reset", world.clock.now()))
        await ticks(world, runner, 16)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(run())
    store = world.open(read_only=True)
    fired = next(each.decision for each in store.decisions(9) if each.decision.kind is None)
    history = decision_history_of(store, fired.id)
    text = decision_history_text(history)
    assert "The way back since" in text and "step 0 of 2 begins, with 25% of the limits" in text
    assert len(decision_history_record(history)["way_back"]) == 3  # type: ignore[arg-type]  # trip, reset, step
    assert "way_back" not in decision_history_record(replace(history, way_back=()))


def test_the_plan_shows_the_steps_before_anything_has_happened() -> None:
    """25%, 50% and 100%, each after 30 seconds, of the account's limits."""
    policies = plan()
    shown = preview(policies, snapshot(START, book("1100")), Interpreter(policies), "none", frozenset({"main"}))
    text = plan_text(shown)
    assert "After a reset" in text
    assert "25%, 50%, 100%" in text and "30s watched" in text


def test_the_loop_ticks_at_the_shorter_interval_from_the_trip_on(world: World) -> None:
    """Every 5 s, and every second once the stage has fired: closer attention is due from then on."""
    policies, venue, seen = plan(), ScriptedVenue(book("1100")), Seen()

    async def run() -> None:
        runner = world.runner(world.open(), [venue], policies=policies, witnesses=(seen,), pace=PACE)
        await runner.run(asyncio.Event(), 3)
        venue.answer = book("900")
        runner = world.runner(world.open(), [venue], policies=policies, witnesses=(seen,), pace=PACE)
        await runner.run(asyncio.Event(), 4)

    asyncio.run(run())
    times = [each.snapshot.as_of for each in seen.reports if each.snapshot.scheduled]
    apart = [round((after - before).total_seconds()) for before, after in pairwise(times)]
    assert apart[:2] == [5, 5]
    assert apart[3:] == [1, 1, 1]


def test_an_approval_names_the_next_step_of_a_way_back_that_has_begun(world: World) -> None:
    """Its subject has the step and when the present one began; before the ramp, and elsewhere, there is none."""
    policies, venue = plan(), ScriptedVenue(book("1100"))

    async def run(number: int, *, reset: bool = False) -> None:
        runner, _ = connected(world, venue, policies)
        await runner.start()
        if reset:
            runner.store.put_event(operator_event("reset", world.clock.now()))
        await ticks(world, runner, number)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(run(2))
    venue.answer = book("900")
    asyncio.run(run(2))
    store = world.open(read_only=True)
    with pytest.raises(ApprovalError, match="waits for a reset"):
        next_step(store, "fall/account/main")
    asyncio.run(run(16, reset=True))
    subject, shown = next_step(store, "fall/account/main")
    assert subject.startswith("recovery/fall/account/main/step/1/since/2024-01-01T00:00:")
    assert "step 1 of 2" in shown
    with pytest.raises(ApprovalError, match="Begun: fall/account/main"):
        next_step(store, "fall/account/other")
