"""Traces: parents and children, a close over two runs, failures with their reason, and no secret."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from killswitch.accounts.redaction import HIDDEN, Redactor
from killswitch.journal.codec import decode
from killswitch.model.instant import to_micros
from killswitch.model.store import JournalEntry
from killswitch.model.venue import VenueDownError
from killswitch.runner.lease import LeaseLostError
from killswitch.telemetry.metrics import NotificationCounts
from tests import graphs, incidents, worlds
from tests.runner_world import ScriptedVenue, World, book, crash_policy
from tests.telemetry_world import Exported, OutcomeVenue, crash, run_crash, runner_of

SECRET = "planted-key-5d1e"


def only(spans: list[ReadableSpan]) -> ReadableSpan:
    (span,) = spans
    return span


def test_an_order_is_a_span_from_sending_to_its_final_status(tmp_path: Path) -> None:
    """A rejection fails the span with the venue's message; the next attempt is another span of the same close."""
    exported = run_crash(tmp_path, ["refuse"], graphs.policy_set(crash_policy()))
    close = only(exported.spans("close"))
    first, second = exported.spans("order")
    assert first.attributes is not None
    assert second.attributes is not None
    assert close.attributes is not None
    assert close.context is not None
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "the price is outside the band")
    assert [span.attributes["killswitch.order.outcome"] for span in (first, second) if span.attributes] == [
        "rejected", "filled",
    ]  # fmt: skip
    assert [span.attributes["killswitch.order.attempt"] for span in (first, second) if span.attributes] == [1, 2]
    assert {span.parent.span_id for span in (first, second) if span.parent} == {close.context.span_id}
    assert (close.attributes["killswitch.close.status"], close.attributes["killswitch.close.orders"]) == ("flat", 2)
    assert close.status.status_code is StatusCode.UNSET


def test_a_close_is_a_child_of_the_tick_that_decided_it(tmp_path: Path) -> None:
    """Each tick is its own trace; of three, only the deciding one has the close."""
    exported = run_crash(tmp_path, [], graphs.policy_set(crash_policy()))
    ticks = exported.spans("tick")
    assert len({span.context.trace_id for span in ticks if span.context}) == 3
    close = only(exported.spans("close"))
    assert close.parent is not None
    tick = only([span for span in ticks if span.context and span.context.span_id == close.parent.span_id])
    assert tick.attributes is not None
    assert close.attributes is not None
    assert tick.context is not None
    assert close.parent.trace_id == tick.context.trace_id
    assert tick.attributes["killswitch.decisions"] == 1
    assert tick.attributes["killswitch.as_of"] == close.attributes["killswitch.as_of"]


def test_a_close_and_its_orders_carry_the_incident_that_their_stage_opened(tmp_path: Path) -> None:
    """A stage that fires from normal opens an incident with its own id, which leads from every span to the report."""
    exported = run_crash(tmp_path, [], graphs.policy_set(crash_policy()))
    found = [each.attributes or {} for name in ("close", "order") for each in exported.spans(name)]
    decisions = {each["killswitch.decision"] for each in found}
    assert {each.get("killswitch.incident") for each in found} == decisions
    assert len(decisions) == 1


def test_orders_of_two_runs_are_children_of_one_close(tmp_path: Path) -> None:
    """A runner dies with an order of unknown status; the next one ends that order and its close, in one trace."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    venue = OutcomeVenue(book("1100"), ["refuse", "unsure"])

    async def first_run(exported: Exported) -> None:
        runner = runner_of(world, venue, found, exported)
        venue.deaf = True
        await crash(world, runner, venue, rounds=30)
        venue.deaf = False
        await runner.shut_down()

    async def second_run(exported: Exported) -> None:
        await world.clock.sleep(120.0)
        runner = runner_of(world, venue, found, exported)
        await runner.start()
        await runner.close_within(60.0)
        await runner.finish()
        await runner.shut_down()

    try:
        before = Exported(world)
        asyncio.run(first_run(before))
        died = to_micros(world.clock.now()) * 1000
        after = Exported(world)
        asyncio.run(second_run(after))
    finally:
        world.close()
    refused, resumed = only(before.spans("order")), after.spans("order")[0]
    close = only(before.spans("close") + after.spans("close"))
    assert resumed.start_time is not None
    assert resumed.end_time is not None
    assert close.context is not None
    assert resumed.start_time < died < resumed.end_time
    assert [event.name for event in resumed.events] == ["unknown", "set_aside"]
    for order in (refused, *after.spans("order")):
        assert order.parent is not None
        assert (order.parent.trace_id, order.parent.span_id) == (close.context.trace_id, close.context.span_id)
    deciding = only([span for span in before.spans("tick") if (span.attributes or {})["killswitch.decisions"] == 1])
    assert close.parent is not None
    assert deciding.context is not None
    assert close.parent.span_id == deciding.context.span_id


@pytest.mark.parametrize("text", ["HTTP 401 for key={}", "refused {}"])
def test_no_secret_reaches_a_span(tmp_path: Path, text: str) -> None:
    """A venue that echoes the key is quoted without it, in attributes, events and status."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world, hide=Redactor([SECRET]).hide)
    venue = ScriptedVenue(VenueDownError(text.format(SECRET)))

    async def run() -> None:
        runner = runner_of(world, venue, found, exported)
        await runner.start()
        await runner.tick()
        with exported.telemetry.tracer.span("report", {"killswitch.decision": f"d {SECRET}"}) as span:
            span.fail(f"no file {SECRET}")
        await runner.shut_down()

    try:
        asyncio.run(run())
    finally:
        world.close()
    texts = "".join(span.to_json() for span in exported.spans())
    assert SECRET not in texts
    read = only(exported.spans("snapshot"))
    assert read.status.description == f"down: {text.format(HIDDEN)}"


def test_a_poll_that_outlasts_its_tick_is_still_its_child(tmp_path: Path) -> None:
    """The venue never answers: the poll is cancelled after the tick, and fails under the tick that started it."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world)
    venue = ScriptedVenue(None)

    async def run() -> None:
        runner = runner_of(world, venue, found, exported)
        await runner.start()
        await runner.tick()
        await runner.shut_down()

    try:
        asyncio.run(run())
    finally:
        world.close()
    read, tick = only(exported.spans("snapshot")), only(exported.spans("tick"))
    assert read.parent is not None
    assert tick.context is not None
    assert read.parent.span_id == tick.context.span_id
    assert read.status.description == "cancelled before it ended"


def test_a_tick_that_ends_the_run_fails_with_the_reason(tmp_path: Path) -> None:
    """The reason for the end of a run is the status of its last tick."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world)

    async def run() -> None:
        runner = runner_of(world, ScriptedVenue(book("1100")), found, exported)
        await runner.start()
        await world.clock.sleep(3600.0)
        world.open().acquire("someone else", to_micros(world.clock.now()), 60_000_000)
        with pytest.raises(LeaseLostError) as raised:
            await runner.tick()
        await runner.shut_down()
        tick = only(exported.spans("tick"))
        assert tick.status.status_code is StatusCode.ERROR
        assert tick.status.description == f"LeaseLostError: {raised.value}"

    try:
        asyncio.run(run())
    finally:
        world.close()


def test_a_sampler_that_drops_everything_keeps_the_traces_of_decisions(tmp_path: Path) -> None:
    """Ticks without a decision are dropped, with their late children."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world, sampler=ALWAYS_OFF)
    venue = OutcomeVenue(book("1100"), [])

    async def run() -> None:
        runner = runner_of(world, venue, found, exported)
        await crash(world, runner, venue)
        await runner.shut_down()

    try:
        asyncio.run(run())
    finally:
        world.close()
    tick = only(exported.spans("tick"))
    assert tick.context is not None
    assert {span.context.trace_id for span in exported.spans() if span.context} == {tick.context.trace_id}
    assert {span.name for span in exported.spans()} == {
        "tick", "snapshot", "evaluate", "decide", "decision", "commit", "close", "order",
    }  # fmt: skip


@pytest.mark.parametrize(("state", "seconds"), [("resting", 4.0), ("not needed", 4.0), ("refused: no", None)])
def test_time_without_protection_is_measured_until_the_position_is_covered(
    tmp_path: Path, state: str, seconds: float | None
) -> None:
    """From the cancel of the protective order to the answer about its replacement; none for a refusal."""
    world = World(tmp_path)
    try:
        exported = Exported(world)
        decision = incidents.firing(incidents.FIRST, worlds.after(), "trim", 1, 0)
        exported.telemetry.closing_observer.begun(decision, "main", ())
        for kind, second, data in (
            ("unprotected", 2, {"order": "s1"}),
            ("guarded", 5, {"for": "s2", "state": "resting"}),
            ("guarded", 6, {"for": "s1", "state": state}),
        ):
            at = worlds.after(seconds=second)
            exported.telemetry.closing_observer.wrote(
                decode(JournalEntry(decision.id, kind, at, "main", "BTC", "long", data=data))  # type: ignore[arg-type] # literals
            )
        found = exported.metrics().get("killswitch.close.unprotected")
    finally:
        world.close()
    sums = [] if found is None else [point.sum for point in found.data.data_points]  # type: ignore[union-attr] # a histogram
    assert sums == ([] if seconds is None else [seconds])


def test_success_and_slippage_of_closes_are_metrics(tmp_path: Path) -> None:
    """One close that reached its target, and one order that was filled at the mark at which it was sent: slippage 0."""
    exported = run_crash(tmp_path, ["refuse"], graphs.policy_set(crash_policy()))
    found = exported.metrics()
    (ended,) = found["killswitch.closes"].data.data_points
    assert (dict(ended.attributes or {}), ended.value) == (  # type: ignore[union-attr] # a sum
        {"killswitch.account": "main", "killswitch.close.succeeded": "true"}, 1,
    )  # fmt: skip
    (slipped,) = found["killswitch.close.slippage"].data.data_points
    assert (slipped.count, slipped.sum) == (1, 0.0)  # type: ignore[union-attr] # a histogram


@pytest.mark.parametrize(("in_time", "share"), [(9, 90.0), (0, 0.0), (10, 100.0)])
def test_the_share_of_messages_that_arrived_within_a_minute_is_a_metric(
    tmp_path: Path, in_time: int, share: float
) -> None:
    """In per cent of those delivered, for each target; a target that was delivered nothing has no share."""
    world = World(tmp_path)
    try:
        exported = Exported(world)
        exported.notifications = NotificationCounts(0, {"desk": 10, "phone": 0}, {}, {"desk": in_time})
        runner = runner_of(world, ScriptedVenue(book("1000")), graphs.policy_set(crash_policy()), exported)

        async def once() -> None:
            await runner.start()
            await runner.tick()
            await runner.finish()
            await runner.shut_down()

        asyncio.run(once())
        points = exported.metrics()["killswitch.notifications.in_time"].data.data_points
    finally:
        world.close()
    assert [(dict(each.attributes or {}), each.value) for each in points] == [({"killswitch.target": "desk"}, share)]  # type: ignore[union-attr] # a gauge
