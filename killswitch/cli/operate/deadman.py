"""`ksctl deadman heartbeat`: a sign of life of a bot, which policies read as `heartbeat.age(NAME)`."""

from __future__ import annotations

import click

from killswitch.cli import options
from killswitch.cli.options import WORD
from killswitch.cli.terminal import print_json, print_note


@click.group(epilog=options.example_text("ksctl deadman heartbeat market-maker --progress 17 --store ks.sqlite"))
def deadman() -> None:
    """Send heartbeats of bots."""


@options.verb("ksctl deadman heartbeat market-maker --progress 17 --store ks.sqlite", group=deadman)
@click.argument("name", type=WORD)
@options.store
@click.option("--progress", type=options.COUNT,
              help="A counter of the bot's loops: while it does not change, the heartbeat does not count.")  # fmt: skip
@options.output
def heartbeat(name: str, store_at: str, progress: int | None, output: str) -> None:
    """Store the heartbeat NAME for the runner's next tick; waits for no tick.

    Send it from the loop that it vouches for, after the work of the loop, and declare its counter: a thread may go on
    beating next to a loop that hangs. Count loops, not orders: a quiet market is no dead bot. With --output json the
    answer has the time from which the age counts. A running runner reads it at its next tick; without one it is stored,
    with a message, and the next runner reads it.
    """
    from datetime import UTC, datetime

    from killswitch.cli.session import opened_store
    from killswitch.model.instant import rfc3339
    from killswitch.operations.status import runner_state
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.heartbeats import beat, tick_time_of

    with opened_store(store_at, read_only=True):
        pass  # a misspelled path must not create a second store
    with opened_store(store_at, read_only=False) as store:
        sent = beat(store, name, tick_time_of(store, SystemClock()), progress)
        if runner_state(store.lease(), datetime.now(UTC)).liveness != "alive":
            print_note("no runner is alive on this store: the heartbeat is stored, and nobody watches it")
    if sent.moved_at != sent.at:
        print_note(f"the progress of {name} is still {progress}: its age counts from {rfc3339(sent.moved_at)}")
    if output == "json":
        print_json({"name": name, "at": rfc3339(sent.at), "counts_from": rfc3339(sent.moved_at), "progress": progress})
