"""`ksctl flag` and `ksctl deadman heartbeat`: what people and bots report, and policies read as `flag.set(NAME)` and
`heartbeat.age(NAME)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from killswitch.cli import completion, options
from killswitch.cli.operate.verbs import operator_options
from killswitch.cli.options import RECORD_TEXT, WORD, option
from killswitch.cli.terminal import print_json, print_note

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import CommandSite


@click.group(
    epilog=options.example_text("ksctl flag set maintenance --for 2h --reason 'venue upgrade' --store ks.sqlite")
)
def flag() -> None:
    """Set or clear a flag that policies read."""


_scope = click.option("--scope", type=RECORD_TEXT, shell_complete=completion.scopes,
                      help="account/NAME, venue/NAME or portfolio.")  # fmt: skip
_reason = click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")


@options.verb("ksctl flag set maintenance --for 2h --reason 'venue upgrade' --store ks.sqlite", group=flag, name="set")
@click.argument("name", type=WORD)
@_reason
@option("--for", "length", type=options.DURATION, help="How long. Default: until it is cleared.")
@_scope
@operator_options
def set_flag(
    name: str, reason: str, length: float | None, scope: str | None, site: CommandSite, live: bool, author: str,
    wait: float, output: str,
) -> None:  # fmt: skip
    """Set the flag NAME, for the portfolio or for --scope.

    A flag has an effect only where a policy reads it: the answer names the policies that do. A flag of a scope is set
    for every narrower one. Setting it again replaces its end. It outlives restarts. A running runner processes the
    command at its next tick; without one, this command takes the lease and ticks once, which needs --live if a document
    says execution: live.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    command = given("flag", scope, author, reason, flag=name, is_set=True)
    deliver(CommandRequest(command, wait, output == "json", lasts=length), site, live=live)


@options.verb("ksctl flag clear maintenance --reason 'upgrade is over' --store ks.sqlite", group=flag, name="clear")
@click.argument("name", type=WORD)
@_reason
@_scope
@operator_options
def clear_flag(
    name: str, reason: str, scope: str | None, site: CommandSite, live: bool, author: str, wait: float, output: str
) -> None:
    """Clear the flag NAME in every scope, or in --scope alone.

    A flag that is not set is a warning, which lists those that are. Where no runner is alive, see `ksctl flag set`.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    command = given("flag", scope, author, reason, flag=name, is_set=False)
    deliver(CommandRequest(command, wait, output == "json"), site, live=live)


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
    from killswitch.runner.tick_inputs import beat, tick_time_of

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
