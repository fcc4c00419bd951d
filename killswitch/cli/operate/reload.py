"""`ksctl reload`: a running runner takes its policy files, between two ticks."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from killswitch.cli import options
from killswitch.cli.options import RECORD_TEXT
from killswitch.cli.terminal import print_json, print_note, print_text

if TYPE_CHECKING:
    from killswitch.model.store import Store
    from killswitch.runner.hot_reload import ReloadAnswer

POLL = 0.1
"""Seconds between two looks for the answer."""


@options.verb("ksctl reload --store ks.sqlite --reason 'RISK-112: 4% for the weekend'")
@options.store
@click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
@click.option("--author", type=RECORD_TEXT, help="Who reloads. Default: the user of this session.")
@options.option("--wait", type=options.DURATION, default="60s", help="How long to wait for the answer.")
@options.output
def reload(store_at: str, reason: str, author: str | None, wait: float, output: str) -> int:
    """Take the policy files of a running runner between two of its ticks, without a restart.

    The files are read and compiled next to the ticks. What is in force stays: latches, locks, closes and orders go on,
    levels follow the names of stages, and a renamed policy or stage says so with `formerly`. Files with mistakes change
    nothing. Accounts and dead-man switches are read by a start only.

    Exits 0 once they are taken, 2 while they wait for a close, and 1 if they are refused.
    """
    from killswitch.cli.operate.command_delivery import is_runner_alive, this_user
    from killswitch.cli.session import opened_store
    from killswitch.operations.commands import operator_event

    with opened_store(store_at, read_only=False) as store:
        if not is_runner_alive(store):
            raise click.ClickException(f"no runner is alive on {store_at}: the next start reads the policy files")
        event = operator_event("reload", None, author or this_user(), reason, datetime.now(UTC))
        store.put_event(event)
        answer = _answer(store, event.id, wait)
    if output == "json":
        from msgspec import to_builtins

        print_json(to_builtins(answer))
    else:
        _print(answer)
    return {"taken": 0, "held": 2}.get(answer.status, 1)


def _answer(store: Store, event: str, wait: float) -> ReloadAnswer:
    """The runner's answer. ClickException if there is none within `wait` seconds."""
    from killswitch.cli.operate.command_delivery import is_runner_alive
    from killswitch.runner.hot_reload import reply_to

    # The answer comes from a thread next to the ticks, after the tick that has consumed the command.
    deadline = time.monotonic() + wait
    while (answer := reply_to(store, event)) is None:
        if time.monotonic() > deadline:
            state = "has not answered yet" if is_runner_alive(store) else "has ended"
            raise click.ClickException(f"the runner {state}: `ksctl status --store …` shows the set in force")
        time.sleep(POLL)
    return answer


def _print(answer: ReloadAnswer) -> None:
    """What became of the files, why, and what that does to what is in force."""
    print_text(f"{answer.status}: {answer.digest[:19]}" if answer.digest else answer.status)
    for reason in answer.reasons:
        print_note(reason)
    for line in answer.preview:
        print_text(f"  {line}")
    for each in answer.needs_start:
        print_note(f"not taken before the next start: {each}")
