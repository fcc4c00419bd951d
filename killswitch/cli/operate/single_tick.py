"""An operator command as the runner of one tick: it ticks, closes, and processes commands that arrive meanwhile."""

from __future__ import annotations

import time
from datetime import timedelta

from killswitch.cli.console import ignore_foreign_signals
from killswitch.cli.terminal import print_note
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.operations import commands
from killswitch.operations.progress import scheduled_seconds
from killswitch.render.formats import count_of, duration_text
from killswitch.runner.loop import Runner
from killswitch.runner.observers import TickReport

PRINTED_PACE_SECONDS = 5.0
"""Seconds of pace from which its duration is printed."""

COMMAND_POLL_SECONDS = 0.5
"""Seconds between two checks for further commands."""


def paced_seconds(answer: commands.CommandAnswer) -> float:
    """Seconds that the declared pace of the decisions takes; a long one is printed."""
    seconds = max((scheduled_seconds(decision) for decision in answer.decisions), default=0.0)
    if seconds >= PRINTED_PACE_SECONDS:
        length = duration_text(timedelta(seconds=seconds))
        print_note(f"the declared pace takes {length}; `ksctl status --watch` follows it")
    return seconds


FEE_WAIT_SECONDS = 3.0
"""Seconds to wait for the fees of orders after the close."""


class DecisionCollector:
    """Observer that collects all decisions."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def ticked(self, report: TickReport) -> None:
        self.decisions += report.decisions


def _awaits_accounts(runner: Runner, event: Event) -> bool:
    close = runner.interpreter.unfinished_closes().get(event.id)
    return close is not None and bool(close.accounts)


async def run_one_tick(runner: Runner, store: Store, event: Event, wait: float) -> None:
    """Run one tick that processes `event`, and close until finished or until `wait` seconds after its own pace.

    A close that waits for unreadable accounts is retried at further ticks, and one whose orders have ended is looked at
    again until its accounts are seen closed. The event is stored after the start has
    succeeded, so that a failed start leaves none behind. A command that arrives meanwhile is processed by a further
    tick.

    Fees that a venue reports at once are recorded; the command does not wait long for others.
    """
    ignore_foreign_signals()
    try:
        await runner.start()
        store.put_event(event)
        await runner.tick()
        deadline = time.monotonic() + wait + paced_seconds(commands.answer_to(store, event))
        processed = {event.id}
        is_retry_printed = False
        fees_until: float | None = None
        while True:
            seconds_left = deadline - time.monotonic()
            done = await runner.close_within(min(COMMAND_POLL_SECONDS, seconds_left))
            if done:
                fees_until = fees_until or time.monotonic() + FEE_WAIT_SECONDS
                fee_seconds_left = min(fees_until, deadline) - time.monotonic()
                done = await runner.close_within(min(COMMAND_POLL_SECONDS, fee_seconds_left), fees=True)
                done = done or fee_seconds_left <= 0
            new_commands = [each for each in store.pending_events() if each.id not in processed]
            if new_commands:
                processed |= {each.id for each in new_commands}
                print_note(f"{count_of(len(new_commands), 'new command')}: running another tick")
                await runner.tick()
                deadline, fees_until = max(deadline, time.monotonic() + wait), None
            elif seconds_left <= 0:
                break
            elif commands.is_pending(store, event):
                if not is_retry_printed and _awaits_accounts(runner, event):
                    print_note(f"some accounts cannot be read: retrying for {seconds_left:.0f} s")
                    is_retry_printed = True
                if done:
                    await runner.clock.sleep(min(COMMAND_POLL_SECONDS, seconds_left))
                await runner.tick()
            elif done:
                break
        await runner.finish()
    finally:
        await runner.shut_down()
