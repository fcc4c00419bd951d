"""A hand as the runner of one tick: it ticks, closes, and takes what other hands are given meanwhile."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from killswitch.cli.console import outlive
from killswitch.cli.terminal import mention
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.operations import commands
from killswitch.operations.progress import scheduled_seconds
from killswitch.render.formats import counted, lasting
from killswitch.runner.loop import Runner, TickReport

WORTH_TELLING = 5.0
"""Seconds from which on a person is told how long the declared pace takes."""

LOOK_AGAIN = 0.5
"""Seconds between two looks for other hands while this one is the runner."""


def scheduled(answer: commands.Answer) -> float:
    """Seconds that the declared pace of what was decided takes; a pace worth waiting for is told."""
    seconds = max((scheduled_seconds(decision) for decision in answer.decisions), default=0.0)
    if seconds >= WORTH_TELLING:
        length = lasting(timedelta(seconds=seconds))
        mention(f"the declared pace takes {length}; `ksctl status --watch` follows it")
    return seconds


FEES_WITHIN = 3.0
"""Seconds that a hand which is the runner goes on for what its orders were charged, once nothing is left to close."""


class Fired:
    """A witness of everything that was decided."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def ticked(self, report: TickReport) -> None:
        self.decisions += report.decisions


async def once(runner: Runner, store: Store, event: Event, wait: float) -> None:
    """One tick that takes `event`, and closing until it is done or `wait` seconds beyond its own pace have gone by.

    A close that waits for accounts which cannot be read is tried again at further ticks until then. The event is given
    only once everything has started: what fails before that leaves none behind. A hand that is given meanwhile was told
    that a runner lives here: it is taken by a tick more.

    A venue that tells at once what its orders were charged is heard; no hand waits long for one that does not.
    """
    outlive()
    try:
        await runner.start()
        store.put_event(event)
        await runner.tick()
        deadline = time.monotonic() + wait + scheduled(commands.answer_to(store, event))
        taken = {event.id}
        told = False
        fees_until: float | None = None
        while True:
            left = deadline - time.monotonic()
            done = await runner.work_through(min(LOOK_AGAIN, left))
            if done:
                fees_until = fees_until or time.monotonic() + FEES_WITHIN
                listens = min(fees_until, deadline) - time.monotonic()
                done = await runner.work_through(min(LOOK_AGAIN, listens), fees=True) or listens <= 0
            fresh = [each for each in store.pending_events() if each.id not in taken]
            if fresh:
                taken |= {each.id for each in fresh}
                mention(f"{counted(len(fresh), 'new command')}: running another tick")
                await runner.tick()
                deadline, fees_until = max(deadline, time.monotonic() + wait), None
            elif left <= 0:
                break
            elif commands.is_waiting(store, event):
                if not told:
                    mention(f"some accounts cannot be read: retrying for {left:.0f} s")
                told = True
                if done:
                    await asyncio.sleep(min(LOOK_AGAIN, left))
                await runner.tick()
            elif done:
                break
        await runner.finish()
    finally:
        await runner.let_go()
