"""What a trace shows: parts under wholes, two lives of one closing, failures in words, and never a secret."""

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
from tests import graphs, incidents, worlds
from tests.runner_world import ScriptedVenue, World, book, crash_policy
from tests.telemetry_world import Exported, MoodyVenue, crash, run_crash, runner_of

SECRET = "planted-key-5d1e"


def only(spans: list[ReadableSpan]) -> ReadableSpan:
    (span,) = spans
    return span


def test_an_order_is_a_span_from_sending_to_the_venues_last_word(tmp_path: Path) -> None:
    """A refusal fails with the venue's words; the next attempt is a span of its own under the same close."""
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


def test_a_close_hangs_under_the_tick_that_decided_it(tmp_path: Path) -> None:
    """The ticks are traces of their own; of three, only the one that decided has the close."""
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


def test_orders_of_two_lives_hang_under_one_close(tmp_path: Path) -> None:
    """A runner dies while an order is of unknown fate; the next one ends that order and its close, in one trace."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    venue = MoodyVenue(book("1100"), ["refuse", "unsure"])

    async def first_life(exported: Exported) -> None:
        runner = runner_of(world, venue, found, exported)
        venue.deaf = True
        await crash(world, runner, venue, rounds=30)
        venue.deaf = False
        await runner.shut_down()

    async def second_life(exported: Exported) -> None:
        await world.clock.sleep(120.0)
        runner = runner_of(world, venue, found, exported)
        await runner.start()
        await runner.close_within(60.0)
        await runner.finish()
        await runner.shut_down()

    try:
        before = Exported(world, found)
        asyncio.run(first_life(before))
        died = to_micros(world.clock.now()) * 1000
        after = Exported(world, found)
        asyncio.run(second_life(after))
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


@pytest.mark.parametrize("words", ["HTTP 401 for key={}", "refused {}"])
def test_no_secret_reaches_a_span(tmp_path: Path, words: str) -> None:
    """A venue that shouts the key back is quoted without it, in attributes, events and status."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world, found, hide=Redactor([SECRET]).hide)
    venue = ScriptedVenue(VenueDownError(words.format(SECRET)))

    async def go() -> None:
        runner = runner_of(world, venue, found, exported)
        await runner.start()
        await runner.tick()
        with exported.telemetry.tracer.span("report", {"killswitch.decision": f"d {SECRET}"}) as span:
            span.fail(f"no file {SECRET}")
        await runner.shut_down()

    try:
        asyncio.run(go())
    finally:
        world.close()
    said = "".join(span.to_json() for span in exported.spans())
    assert SECRET not in said
    read = only(exported.spans("snapshot"))
    assert read.status.description == f"down: {words.format(HIDDEN)}"


def test_a_read_that_outlasts_its_tick_is_still_a_part_of_it(tmp_path: Path) -> None:
    """The venue never answers: the read is called off after the tick, and fails under the tick that began it."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world, found)
    venue = ScriptedVenue(None)

    async def go() -> None:
        runner = runner_of(world, venue, found, exported)
        await runner.start()
        await runner.tick()
        await runner.shut_down()

    try:
        asyncio.run(go())
    finally:
        world.close()
    read, tick = only(exported.spans("snapshot")), only(exported.spans("tick"))
    assert read.parent is not None
    assert tick.context is not None
    assert read.parent.span_id == tick.context.span_id
    assert read.status.description == "cancelled before it ended"


def test_a_tick_that_ends_the_run_fails_in_words(tmp_path: Path) -> None:
    """What ends a run is the status of its last tick."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world, found)

    async def go() -> None:
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
        asyncio.run(go())
    finally:
        world.close()


def test_a_sampler_that_keeps_nothing_still_keeps_what_belongs_to_a_decision(tmp_path: Path) -> None:
    """Ticks that decide nothing are thinned out, late parts included."""
    world = World(tmp_path)
    found = graphs.policy_set(crash_policy())
    exported = Exported(world, found, sampler=ALWAYS_OFF)
    venue = MoodyVenue(book("1100"), [])

    async def go() -> None:
        runner = runner_of(world, venue, found, exported)
        await crash(world, runner, venue)
        await runner.shut_down()

    try:
        asyncio.run(go())
    finally:
        world.close()
    tick = only(exported.spans("tick"))
    assert tick.context is not None
    assert {span.context.trace_id for span in exported.spans() if span.context} == {tick.context.trace_id}
    assert {span.name for span in exported.spans()} == {
        "tick", "snapshot", "evaluate", "decide", "commit", "close", "order",
    }  # fmt: skip


@pytest.mark.parametrize(("state", "seconds"), [("resting", 4.0), ("not needed", 4.0), ("refused: no", None)])
def test_time_without_protection_is_measured_until_something_covers(
    tmp_path: Path, state: str, seconds: float | None
) -> None:
    """From the cancel of the protective order to the answer about the one in its place; none for a refusal."""
    world = World(tmp_path)
    try:
        exported = Exported(world, graphs.policy_set(crash_policy()))
        decision = incidents.firing(incidents.FIRST, worlds.after(), "trim", 1, 0)
        exported.telemetry.watch.begun(decision, "main", ())
        for kind, second, data in (
            ("unprotected", 2, {"order": "s1"}),
            ("guarded", 5, {"for": "s2", "state": "resting"}),
            ("guarded", 6, {"for": "s1", "state": state}),
        ):
            at = worlds.after(seconds=second)
            exported.telemetry.watch.wrote(
                decode(JournalEntry(decision.id, kind, at, "main", "BTC", "long", data=data))  # type: ignore[arg-type] # literals
            )
        found = exported.metrics().get("killswitch.close.unprotected")
    finally:
        world.close()
    sums = [] if found is None else [point.sum for point in found.data.data_points]  # type: ignore[union-attr] # a histogram
    assert sums == ([] if seconds is None else [seconds])
