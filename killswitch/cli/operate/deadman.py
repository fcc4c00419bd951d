"""`ksctl deadman`: heartbeats by hand, and the switches of a watcher: watch, status, arm and disarm."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from killswitch.cli import options
from killswitch.cli.options import RECORD_TEXT, WORD, option
from killswitch.cli.terminal import print_answer, print_json, print_note, print_text

if TYPE_CHECKING:
    from killswitch.watcher.watch import SwitchCommand, SwitchView

LONGEST_DISARM = 7 * 86400.0
"""Seconds; a switch that is off for longer is one that should not be declared."""
COMMAND_WAIT = 2.0
"""Seconds beyond two checks for which a command waits for its watcher."""
POLL = 0.1
"""Seconds between two reads of the store while a command waits for its watcher."""


@click.group(epilog=options.example_text("ksctl deadman status --store watcher.sqlite"))
def deadman() -> None:
    """Send heartbeats, and watch dead man's switches."""


@options.verb(
    "ksctl deadman heartbeat market-maker --progress 17 --store ks.sqlite",
    "ksctl deadman heartbeat night-desk --to /run/killswitch/beats",
    group=deadman,
)
@click.argument("name", type=WORD)
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner, whose policies read heartbeat.age(NAME).")  # fmt: skip
@click.option("--to", "destinations", metavar="DIR|URL", multiple=True,
              help="In place of --store: a way that a watcher listens on. May be given more than once.")  # fmt: skip
@click.option("--progress", type=options.COUNT,
              help="A counter of the bot's loops: while it does not change, the heartbeat does not count.")  # fmt: skip
@options.output
def heartbeat(
    name: str, store_at: str | None, destinations: tuple[str, ...], progress: int | None, output: str
) -> None:
    """Send the heartbeat NAME: to the store of a runner, or to a watcher of dead man's switches.

    Send it from the loop that it vouches for, after the work of the loop, and declare its counter: a thread may go on
    beating next to a loop that hangs. Count loops, not orders: a quiet market is no dead bot.

    With --store a running runner reads it at its next tick; without one it is stored, with a message, and the next
    runner reads it. With --output json the answer has the time from which the age counts. With --to it is a file in a
    folder, or a request to an address, as a `DeadMansSwitch` declares its ways.
    """
    if destinations:
        _send(name, destinations, progress, output)
    elif store_at is None:
        raise click.UsageError("name the store of a runner with --store, or a way of a watcher with --to")
    else:
        _store(name, store_at, progress, output)


def _send(name: str, destinations: tuple[str, ...], progress: int | None, output: str) -> None:
    from killswitch.client.heartbeat import monotonic_seconds, post, require_destination, require_name, write_file

    try:
        require_name(name)
        for each in destinations:
            require_destination(each)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for each in destinations:
        with options.file_errors(f"the heartbeat cannot be delivered to {each}"):
            if each.startswith("/"):
                write_file(each, name, progress, monotonic_seconds())
            else:
                post(each, name, progress)
    if output == "json":
        print_json({"name": name, "progress": progress, "to": list(destinations)})


def _store(name: str, store_at: str, progress: int | None, output: str) -> None:
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


@options.verb("ksctl deadman status --store watcher.sqlite", group=deadman, name="status")
@options.store
@options.page_output
def status_of_switches(store_at: str, output: str) -> None:
    """Show each switch of a watcher: whether it is armed, the age of the last heartbeat, and when it fires.

    A switch is pending until it is heard for the first time. A fired one stays fired until `ksctl deadman arm`,
    whatever is heard later.
    """
    from datetime import UTC, datetime

    import msgspec

    from killswitch.cli.session import opened_store
    from killswitch.operations.pages.status_sections import switches_page
    from killswitch.operations.status import runner_state
    from killswitch.watcher.watch import switch_views

    now = datetime.now(UTC)
    with opened_store(store_at, read_only=True) as store:
        found, is_watching = switch_views(store), runner_state(store.lease(), now).is_alive
    if not found:
        raise click.ClickException(f"{store_at} is not the store of a watcher: start one with `ksctl deadman watch`")
    print_answer(
        output, lambda: msgspec.json.encode({"is_watching": is_watching, "switches": found}),
        lambda: switches_page(found, now, is_watching=is_watching),
    )  # fmt: skip


def _command_options(command: Any) -> Any:
    for add in reversed((
        click.argument("switch", type=WORD),
        click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record."),
        click.option("--author", type=RECORD_TEXT, help="Name of the operator. Default: the user of this session."),
        options.store,
        options.output,
    )):  # fmt: skip
        command = add(command)
    return command


@options.verb("ksctl deadman arm maker --reason 'restart is over' --store watcher.sqlite", group=deadman)
@_command_options
def arm(switch: str, reason: str, author: str | None, store_at: str, output: str) -> None:
    """Arm a switch: end its disarm, or return one that has fired to service.

    A switch that has fired is pending afterwards, and is armed by the first heartbeat. The watcher carries the command
    out at its next check of the switch.
    """
    _command(store_at, switch, "arm", author, reason, None, output)


@options.verb("ksctl deadman disarm maker --for 10m --reason 'planned restart' --store watcher.sqlite", group=deadman)
@_command_options
@click.option("--for", "length", type=options.DURATION, required=True, help="How long; 7 days at the most.")
def disarm(switch: str, reason: str, author: str | None, store_at: str, output: str, length: float) -> None:
    """Disarm a switch for a planned restart. It arms itself again when the time is over, and silence counts from there.

    A switch that has fired stays fired, and what it closes is closed.
    """
    if length > LONGEST_DISARM:
        raise click.UsageError("a disarm lasts at most 7 days: remove the DeadMansSwitch if nobody is to be heard")
    _command(store_at, switch, "disarm", author, reason, length, output)


def _command(
    store_at: str, switch: str, kind: Literal["arm", "disarm"], author: str | None, reason: str, seconds: float | None,
    output: str,
) -> None:  # fmt: skip
    """Leave the command for the watcher, and wait until it has carried it out."""
    import secrets
    from datetime import UTC, datetime

    from killswitch.cli.operate.command_delivery import is_runner_alive, this_user
    from killswitch.cli.session import opened_store
    from killswitch.watcher.watch import SwitchCommand, put_command, switch_views

    with opened_store(store_at, read_only=True) as store:
        known = {each.name: each for each in switch_views(store)}
    if switch not in known:
        raise click.ClickException(
            f"the watcher of {store_at} has no switch {switch}. Known: {', '.join(sorted(known)) or 'none'}"
        )
    command = SwitchCommand(secrets.token_hex(8), kind, datetime.now(UTC), author or this_user(), reason, seconds)
    with opened_store(store_at, read_only=False) as store:
        put_command(store, switch, command)
        if not is_runner_alive(store):
            print_note("no watcher is alive on this store: its next start carries the command out")
            return
        deadline = time.monotonic() + COMMAND_WAIT + known[switch].check_every * 2
        while (found := _obeyed(switch_views(store), switch, command)) is None and time.monotonic() < deadline:
            time.sleep(POLL)
    if found is None:
        raise click.ClickException(
            f"the watcher has not carried out the command in time; its next check of {switch} will. See "
            "`ksctl deadman status`"
        )
    if output == "json":
        print_json({"switch": switch, "phase": found.phase, "command": command.id})
    else:
        print_text(f"{switch} is {found.phase}")


def _obeyed(views: tuple[SwitchView, ...], switch: str, command: SwitchCommand) -> SwitchView | None:
    return next((each for each in views if each.name == switch and each.command == command.id), None)


@options.verb(
    "ksctl deadman watch --policies policies --store watcher.sqlite",
    "ksctl deadman watch --policies policies --store watcher.sqlite --live", group=deadman,
)  # fmt: skip
@options.policies(required=True)
@options.store
@click.option("--live", is_flag=True, help="Act on accounts whose document says execution: live. Default: observe.")
@click.option("--unnotified", is_flag=True, help="With --live: start even if a recipient cannot be notified.")
@options.option("--interval", type=options.DURATION, default="5s", help="Time between two reads of the accounts.")
@options.read_timeout("5s")
@options.lock_dir
@options.lock_file
@options.log_format
@option("--ticks", type=click.IntRange(min=1), help="Stop after this many ticks. Default: run until SIGTERM.",
        hidden=True)  # fmt: skip
def watch(
    policies_at: tuple[Path, ...], store_at: str, live: bool, unnotified: bool, interval: float, read_timeout: float,
    lock_dir: Path | None, lock_file: Path | None, ticks: int | None,
) -> int:  # fmt: skip
    """Listen for heartbeats, and lock or close when they end: a process of its own, with its own credentials.

    Start it on another machine than the bots and the runner, with a store of its own. It evaluates no policy: it takes
    the accounts, the switches with `at_venue: false` and the notification routes from the policy files. Where the venue
    does not enforce reduce-only, it asks twice, 3 s or more apart, for positions and the orders of the runner before
    each round of orders, so that both together never sell more than there is.

    SIGTERM, SIGINT and SIGQUIT end it, with exit code 0. Positions stay as they are.
    """
    from killswitch.cli.live.watcher import WatcherSettings, run_watcher

    settings = WatcherSettings(
        policies_at, store_at, live, unnotified, interval, read_timeout, lock_dir, lock_file, ticks
    )
    return run_watcher(settings)
