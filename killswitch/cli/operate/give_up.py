"""`ksctl close --give-up`: end a close that would continue while the venue shows a position."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

from killswitch.accounts.arming import open_closes
from killswitch.cli.operate.command_delivery import POLL, is_runner_alive
from killswitch.cli.operate.command_output import outcome_of, print_command_outcome
from killswitch.cli.session import opened_store
from killswitch.cli.terminal import print_text
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.operations import commands
from killswitch.runner.clock import SystemClock
from killswitch.runner.give_up_commands import accounts_closing
from killswitch.runner.status_blob import tick_time


def give_up(
    store_at: str, id_prefix: str, scope: str | None, author: str, reason: str, wait: float, *, json: bool
) -> None:
    """Send the command to the running runner, or leave it for the next one. `wait`: seconds for each of two steps."""
    with opened_store(store_at, read_only=False) as store:
        decision = _full_id(store, id_prefix)
        pending_close = next((event for event in store.pending_events() if event.id == decision), None)
        if pending_close is not None and scope is not None and not commands.is_unfinished(store, pending_close):
            remedy = "leave out --scope to give it up on all accounts, or repeat the command after the next tick"
            raise click.ClickException(f"no tick has processed {decision} yet, so its accounts are unknown: {remedy}")
        if pending_close is None and not accounts_closing(store, decision, scope):
            raise click.ClickException(_no_such_close(store, decision, scope))
        now = tick_time(store, SystemClock()) if pending_close is None else datetime.now(UTC)
        event = commands.operator_event("give_up", scope, author, reason, now, decision=decision)
        store.put_event(event)
        if not is_runner_alive(store):
            print_text(f"no runner is alive here: {event.id} waits, and the first tick of the next run ends the close")
            return
        _await_tick(store, event, wait)
        deadline = time.monotonic() + wait
        while accounts_closing(store, decision, scope) and time.monotonic() < deadline and is_runner_alive(store):
            time.sleep(POLL)
        print_command_outcome(outcome_of(commands.answer_to(store, event), store), json=json)
        if left := accounts_closing(store, decision, scope):
            condition = "it ends when every one of its orders has an answer"
            raise click.ClickException(
                f"no further order is sent on {', '.join(left)}, and the close is not finished: {condition}"
            )


def _await_tick(store: Store, event: Event, wait: float) -> None:
    deadline = time.monotonic() + wait
    while commands.is_pending(store, event):
        if time.monotonic() > deadline or not is_runner_alive(store):
            raise click.ClickException(f"no tick has processed {event.id} yet; the next one will. See `ksctl status`")
        time.sleep(POLL)


def _full_id(store: Store, decision: str) -> str:
    """The full id of the close or pending command that starts with `decision`; unchanged if there is none."""
    open_ids = {each.id for _, each in open_closes(store)}
    open_ids |= {event.id for event in store.pending_events() if event.kind == "close"}
    matches = sorted(each for each in open_ids if each.startswith(decision))
    if len(matches) > 1 and decision not in matches:
        raise click.ClickException(f"{decision} matches several: {', '.join(matches)}")
    return matches[0] if len(matches) == 1 else decision


def _no_such_close(store: Store, decision: str, scope: str | None) -> str:
    """Error text that lists the closes in progress."""
    open_closes_text = [f"{each.id} on {account}" for account, each in open_closes(store)]
    known = f" In progress: {', '.join(open_closes_text)}" if open_closes_text else " No close is in progress"
    return f"nothing is being closed for {decision} on {scope or 'any account'}.{known}"
