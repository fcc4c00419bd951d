"""What a run has next to its runner, as a command and as a library: gate's view, commands, server, sentinel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import LoadedPolicies
from killswitch.gate.sentinel import SentinelWatch
from killswitch.runner.clock import SystemClock
from killswitch.runner.locks.gate_view import GateSources, GateViewWriter, gate_view_file
from killswitch.runner.loop import Runner
from killswitch.runner.status_blob import tick_time
from killswitch.runner.tick_inputs import CommandWatch, SpoolIntake
from killswitch.store.command_spool import CommandSpool, spool_of
from killswitch.store.received import ReceivedInput, received_file
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import CommandCounter

GATE_VIEW_TIMEOUT: Final = 2.0
"""Seconds that the end of a run waits for the gate's view."""


def path_of_store(store_at: str) -> Path:
    """The file of a store at a path or `sqlite:///` URL."""
    return Path(store_at.removeprefix("sqlite:///"))


@contextmanager
def open_gate_view(
    store_at: str, loaded: LoadedPolicies, lock_folder: Path, on_problem: Callable[[str], None]
) -> Iterator[GateViewWriter]:
    """Write the gate's view next to the store during a run, and what is left to write at its end.

    `on_problem` is called with a sentence if the last view was not written in time.
    """
    writer = GateViewWriter(gate_view_file(store_at), loaded.policies, lock_folder)
    try:
        yield writer
    finally:
        if not writer.close(GATE_VIEW_TIMEOUT):
            on_problem(f"the last view for the gate was not written to {writer.path} in time")


def connect_gate_view(writer: GateViewWriter, runner: Runner, accounts: Mapping[str, ArmedAccount]) -> None:
    """Connect the writer to the run that it shows."""
    clock, own_orders = runner.clock, runner.observers.own_orders
    enforces = {name: account.adapter.traits.enforces_reduce_only for name, account in accounts.items()}
    writer.connect(
        GateSources(
            runner.poller.dated, own_orders.in_flight, clock.now, clock.monotonic, clock.off, enforces,
            runner.interpreter.recoveries.caps, lambda: runner.store.in_memory_because,
        )
    )  # fmt: skip


def open_intake(store_at: Path, store: SqlStore) -> SpoolIntake:
    """What takes the commands of a server that serves this store."""
    return SpoolIntake(CommandSpool(spool_of(store_at)), store, lambda: tick_time(store, SystemClock()))


def connect_server(intake: SpoolIntake, runner: Runner, store_at: Path) -> None:
    """Let commands of a server begin a tick, and every tick read what the server has received."""
    intake.call_tick = runner.call_tick
    runner.received = ReceivedInput(received_file(store_at)).at_tick


@asynccontextmanager
async def following_inputs(
    runner: Runner, store_at: Path, intake: SpoolIntake, sentinel: SentinelWatch
) -> AsyncIterator[None]:
    """Let commands in the store and the sentinel begin a tick for as long as the block lasts."""
    commands = CommandWatch(CommandCounter(str(store_at)), runner.call_tick)
    commands.start()
    intake.take()
    runner.sentinel, sentinel.call_tick = lambda: sentinel.present, runner.call_tick
    sentinel.start()
    try:
        yield
    finally:
        commands.stop()
        sentinel.stop()


@asynccontextmanager
async def taking_commands(intake: SpoolIntake, stop: asyncio.Event) -> AsyncIterator[None]:
    """Take the commands of a server next to the ticks. An error of it sets `stop`, and is raised at the end."""
    working = asyncio.ensure_future(intake.run())
    working.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        working.cancel()
        outcome = (await asyncio.gather(working, return_exceptions=True))[0]
    if isinstance(outcome, Exception):
        raise outcome
