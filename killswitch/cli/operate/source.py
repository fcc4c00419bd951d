"""`ksctl source`: how the source of the policies is, and the commands of operators to it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_TROUBLE, options
from killswitch.cli.options import RECORD_TEXT, option
from killswitch.cli.terminal import print_answer, print_json, print_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from killswitch.model.store import Store
    from killswitch.source.sync_state import CommandVerb

POLL = 0.1
"""Seconds between two reads of the store while waiting for the runner."""


@click.group(epilog=options.example_text("ksctl source status --store ks.sqlite"))
def source() -> None:
    """Show the source of the policies, suspend it, or go back to an earlier set."""


_reason = click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
_author = click.option("--author", type=RECORD_TEXT, help="Name of the operator. Default: the user of this session.")
_wait = option("--wait", type=options.DURATION, default="30s", help="How long to wait for the runner.")
_remind = option("--remind", type=options.DURATION, default="4h", help="Time between two reminders.")


def _lasts(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return option("--for", "lasts", type=options.DURATION, default=default,
                  help="For how long, in time of the runner; automatic sync is on again afterwards.")  # fmt: skip


@options.verb("ksctl source status --store ks.sqlite", group=source)
@options.store
@click.option("--detailed-exitcode", is_flag=True, help="Exit 4 unless the source is synced and healthy.")
@options.output
@click.pass_context
def status(context: click.Context, store_at: str, detailed_exitcode: bool, output: str) -> None:
    """Show sync, health and culprit, what waits until when, who has suspended it, and refused attempts.

    Sync and health are two things: a set that waits for approvals is out of sync and healthy.
    """
    from killswitch.cli.session import opened_store
    from killswitch.operations.policy_sources import source_page, source_status
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.status_blob import tick_time

    with opened_store(store_at, read_only=True) as store:
        found = source_status(store, tick_time(store, SystemClock()))
    print_answer(output, lambda: _encoded(found), lambda: source_page(found))
    if detailed_exitcode and (found is None or found.sync != "synced" or found.health != "healthy"):
        context.exit(EXIT_TROUBLE)


def _encoded(record: object) -> bytes:
    import msgspec

    return msgspec.json.encode(record)


@options.verb("ksctl source rollback sha256:1f0c --reason 'it misfires' --for 1d --store ks.sqlite", group=source)
@click.argument("digest", type=RECORD_TEXT, metavar="DIGEST|COMMIT")
@_reason
@_lasts("1d")
@_remind
@_author
@options.store
@_wait
@options.output
def rollback(
    digest: str, reason: str, lasts: float, remind: float, author: str | None, store_at: str, wait: float, output: str
) -> None:
    """Put a set that was in force in force again, at the next tick, and remember the one in force as bad.

    It needs no approval: it had those it needed. Latches, locks and open closes go on. Automatic sync is off
    until --for is over; the bad commit is not taken again after that, and the next one is. `ksctl source status`
    shows all of it.
    """
    _send("rollback", reason, author, store_at, wait, output, lasts=lasts, remind=remind, named=digest)


@options.verb("ksctl source pin --reason 'release freeze' --for 3d --store ks.sqlite", group=source)
@click.argument("digest", type=RECORD_TEXT, metavar="[DIGEST|COMMIT]", required=False)
@_reason
@_lasts("1d")
@_remind
@_author
@options.store
@_wait
@options.output
def pin(
    digest: str | None, reason: str, lasts: float, remind: float, author: str | None, store_at: str, wait: float,
    output: str,
) -> None:  # fmt: skip
    """Keep the set in force, or one that was in force, until --for is over.

    The source is polled and judged, and nothing of it is taken.
    """
    _send("pin", reason, author, store_at, wait, output, lasts=lasts, remind=remind, named=digest)


@options.verb("ksctl source pause --reason 'the host moves' --for 2h --store ks.sqlite", group=source)
@_reason
@_lasts("4h")
@_remind
@_author
@options.store
@_wait
@options.output
def pause(
    reason: str, lasts: float, remind: float, author: str | None, store_at: str, wait: float, output: str
) -> None:
    """Do not poll the source until --for is over. The set in force runs on."""
    _send("pause", reason, author, store_at, wait, output, lasts=lasts, remind=remind)


@options.verb("ksctl source resume --reason 'fixed' --store ks.sqlite", group=source)
@_reason
@click.option("--forget", type=RECORD_TEXT, metavar="COMMIT|DIGEST",
              help="Take a set again that was rolled back, by its commit or the digest of its folder.")  # fmt: skip
@_author
@options.store
@_wait
@options.output
def resume(reason: str, forget: str | None, author: str | None, store_at: str, wait: float, output: str) -> None:
    """End a rollback, pin or pause now: the source is polled at once."""
    _send("resume", reason, author, store_at, wait, output, forget=forget)


@options.verb("ksctl source anchor 3f6c… --reason 'history rewritten' --store ks.sqlite", group=source)
@click.argument("commit", type=RECORD_TEXT)
@_reason
@_author
@options.store
@_wait
@options.output
def anchor(commit: str, reason: str, author: str | None, store_at: str, wait: float, output: str) -> None:
    """Move the anchor to COMMIT, all 40 digits: the one way forward after a history was rewritten.

    It needs as many approvals as a loosening: statements for the purpose `anchor` with the commit as their subject,
    delivered to this store. The set in force stays, and what the source proposes then is reviewed against it.
    """
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise click.UsageError("write all 40 hexadecimal digits of the commit")
    _send("anchor", reason, author, store_at, wait, output, exactly=commit)


def _send(
    verb: CommandVerb, reason: str, author: str | None, store_at: str, wait: float, output: str, *,
    lasts: float = 0.0, remind: float = 0.0, named: str | None = None, forget: str | None = None,
    exactly: str | None = None,
) -> None:  # fmt: skip
    """Leave the command in the store, and wait for the runner's answer."""
    from killswitch.cli.operate.command_delivery import is_runner_alive, this_user
    from killswitch.cli.session import opened_store
    from killswitch.operations.policy_sources import result_of, send_command, source_state
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.status_blob import tick_time

    with opened_store(store_at, read_only=True) as before:
        if source_state(before) is None:
            raise click.ClickException("no runner on this store has followed a source of policies")
        digest = exactly if named is None else _digest_of(before, named)
    with opened_store(store_at, read_only=False) as store:
        now = tick_time(store, SystemClock())
        who = author or this_user()
        command = send_command(store, verb, who, reason, now, lasts=lasts, remind=remind, digest=digest, forget=forget)
        until = time.monotonic() + wait
        while (result := result_of(store, command)) is None:
            if not is_runner_alive(store):
                raise click.ClickException(
                    f"no runner is alive on this store: {command.id} waits, and the next run obeys it after its first "
                    "tick"
                )
            if time.monotonic() > until:
                raise click.ClickException(
                    f"the runner has not read {command.id} within {wait:g} s; its next tick will"
                )
            time.sleep(POLL)
    if not result.is_accepted:
        raise click.ClickException(result.text)
    if output == "json":
        print_json({"id": result.id, "accepted": True, "text": result.text, "digest": digest})
    else:
        print_text(result.text)


def _digest_of(store: Store, named: str) -> str:
    """The policy digest of the set that is named; ClickException if there is none, or there are several."""
    from killswitch.operations.policy_sources import UnknownSetError, set_named

    try:
        return set_named(store, named)
    except UnknownSetError as error:
        raise click.ClickException(str(error)) from error


@options.verb("ksctl source check source.yaml --store ks.sqlite", group=source)
@click.argument("file", type=options.UncheckedPath())
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner, for the set in force. Default: none is in force.")  # fmt: skip
@options.output
@click.pass_context
def check(context: click.Context, file: Path, store_at: str | None, output: str) -> None:
    """Poll the source once, and print what it proposes or what is wrong. Changes nothing.

    Exits 1 if the source proposes nothing because of a problem.
    """
    from killswitch.cli.live.source_start import checked_source, proposal_page

    answer = checked_source(file, store_at)
    print_answer(output, lambda: _encoded(answer), lambda: proposal_page(answer))
    if answer.problems:
        context.exit(1)
