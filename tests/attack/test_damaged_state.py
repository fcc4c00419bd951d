"""A damaged part of what a run has stored: the next run names it and does not start, instead of forgetting it."""

from __future__ import annotations

import asyncio

import pytest

from killswitch.model.store import (
    BREACH_ANSWERS,
    FLAGS,
    HEARTBEAT,
    HEARTBEAT_DATES,
    LOCKED_BOOKS,
    OWN_QUANTITIES,
    REALISED,
    DamagedStateError,
    MachineState,
    TickRecord,
)
from tests.runner_world import ScriptedVenue, World, book
from tests.worlds import START

NAMED = {
    FLAGS: "flags", OWN_QUANTITIES: "own quantities", LOCKED_BOOKS: "books of locked accounts",
    BREACH_ANSWERS: "answers to breaches", REALISED: "realised P&L",
    HEARTBEAT_DATES: "dates of heartbeats",
}  # fmt: skip


@pytest.mark.parametrize(
    "blob", [b"\xff\x00", b"{", b'{"in_force": 1, "books": 1}', b"[[]]"], ids=["bytes", "cut", "types", "rows"]
)
@pytest.mark.parametrize("name", NAMED)
def test_a_damaged_blob_stops_the_start_and_is_named(world: World, name: str, blob: bytes) -> None:
    """An empty memory would lift a flag, forget a breach, and give a position to the wrong strategy."""
    store = world.open()
    store.put_live(name, blob)
    runner = world.runner(store, [ScriptedVenue(book("1100"))])
    with pytest.raises(DamagedStateError, match=NAMED[name]):
        asyncio.run(runner.start())


def test_a_damaged_heartbeat_is_unknown_and_stops_nothing(world: World) -> None:
    """It is written by another process, often, and may be of another version."""
    store = world.open()
    store.put_live(f"{HEARTBEAT}bot", b"{")
    runner = world.runner(store, [ScriptedVenue(book("1100"))])

    async def run() -> object:
        await runner.start()
        report = await runner.tick()
        await runner.finish()
        return report.snapshot.heartbeats

    assert asyncio.run(run()) == {}


def test_a_damaged_state_of_a_scope_is_named(world: World) -> None:
    """At the first tick, before anything is decided on a scope without its latch."""
    store = world.open()
    state = MachineState("crash", "account/main", b'{"engine": {}}')
    store.commit_tick(TickRecord(START, "sha256:test", (state,), (), (), (), (), None, (), 0))
    runner = world.runner(store, [ScriptedVenue(book("1100"))])

    async def run() -> None:
        await runner.start()
        await runner.tick()

    with pytest.raises(DamagedStateError, match="crash on account/main cannot be read"):
        asyncio.run(run())
