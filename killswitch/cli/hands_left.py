"""What a hand finds waiting, what it leaves behind, and who goes on with that: said before and after it acts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from killswitch.cli.wording import ago
from killswitch.model.legible import one_line
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.runner.acting import left_to_do
from killswitch.runner.clock import SystemClock
from killswitch.runner.standing import RunnerState, runner_state
from killswitch.runner.started import tick_time


def other_runner(store: Store) -> RunnerState | None:
    """The living runner on this store, unless it is this process."""
    state = runner_state(store.lease(), datetime.now(UTC))
    return state if state.liveness == "alive" and state.pid != os.getpid() else None


def who_goes_on(store: Store) -> str:
    """Who goes on with what is not finished."""
    runner = other_runner(store)
    if runner is None:
        return "nobody goes on with it now: `ksctl run --live` on this store does"
    return f"the runner (pid {runner.pid}) goes on with it, and `ksctl status --watch` follows it"


def tell_waiting(store: Store) -> None:
    """Say what the tick of a hand will take up besides: closings of an earlier run, and hands that wait."""
    for line in (*_unfinished(store), *_waiting(store)):
        click.echo(f"taken up as well, {line}", err=True)


def tell_unfinished(store: Store) -> None:
    """Say what the end of a hand leaves behind."""
    for line in _unfinished(store):
        click.echo(f"left behind, {line}", err=True)


@contextmanager
def saying_what_is_left(store: Store) -> Iterator[None]:
    """Where a person breaks it off: what is being closed, and whether anybody goes on with it."""
    try:
        yield
    except KeyboardInterrupt:
        left = (*_unfinished(store), *_waiting(store))
        for line in left:
            click.echo(f"broken off, {line}", err=True)
        if left:
            click.echo(who_goes_on(store), err=True)
        raise


def _unfinished(store: Store) -> list[str]:
    return [
        f"not finished: the close of {decision.scope} on account {account} [{decision.id}]"
        for account, decisions in left_to_do(store).items()
        for decision in decisions
    ]


def _waiting(store: Store) -> list[str]:
    now = tick_time(store, SystemClock())
    return [f"waits: {_hand(event, now)}" for event in store.pending_events()]


def _hand(event: Event, now: datetime) -> str:
    by = f"{event.kind} of {event.scope or 'portfolio'} by {event.author or 'unknown'}"
    return one_line(f"{by}, given {ago(event.at, now)}: {event.reason or 'no reason'} [{event.id}]")
