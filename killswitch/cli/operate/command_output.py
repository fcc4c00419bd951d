"""Output of operator commands: pending commands, results, and unfinished work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click
from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.arming import open_closes
from killswitch.cli.terminal import encode_record, print_answer, print_note
from killswitch.incident.record.results import read_decision, read_result
from killswitch.model.decision import Decision
from killswitch.model.effects import Lock, of_kind
from killswitch.model.flags import OF_POLICY
from killswitch.model.instant import LocalTime, from_micros, to_micros
from killswitch.model.snapshot import Event, EventKind
from killswitch.model.store import Store, decoded
from killswitch.operations import commands
from killswitch.operations.lifting import chosen, holds_of
from killswitch.operations.pages.outcome import CommandOutcome, outcome_page, outcome_record
from killswitch.operations.pages.wording import command_line
from killswitch.operations.status import LockView, locks_at, runner_state
from killswitch.planning.operator.closes import whole_accounts_in
from killswitch.planning.operator.plan_file import SavedPlan
from killswitch.render.formats import money
from killswitch.runner.assembly import LockPaths
from killswitch.runner.clock import SystemClock
from killswitch.runner.status_blob import LIVE_NAME, decode_view, tick_time
from killswitch.signals.sessions import TradingSession


class CommandRequest(Struct, frozen=True):
    """An operator command, and how its result is awaited and printed. `wait`: seconds.

    `command`: its event as of when it was given. `plan`: that of an `apply`. `lasts`: how long its lock or flag lasts:
    seconds, or until the time of the day or the next open of the session; None without end.
    """

    command: Event
    wait: float
    json: bool
    plan: SavedPlan | None = None
    lasts: float | LocalTime | TradingSession | None = None
    named: tuple[str, ...] | None = None
    """Of a command that loosens: the decisions that --id names; None for any other."""

    def event(self, store: Store | None) -> Event:
        """The event of the command, dated as ticks on `store` are.

        SpentPlanError for a plan that was applied already.
        """
        now = tick_time(store, SystemClock())
        if self.plan is not None and store is not None:
            return commands.apply_event(store, self.plan, self.command.author or "unknown", now)
        ids = None if store is None else self._ids(store, now)
        return replace(self.command, at=now, until=self._end(now), ids=ids)

    def _ids(self, store: Store, now: datetime) -> tuple[str, ...] | None:
        """The decisions, or the silences, that the command ends. UnnamedError if it names none of several."""
        verb, scope = self.command.kind, self.scope
        if verb == "silence":
            return self.command.ids
        if self.named is None or scope is None or verb not in ("resume", "unlock", "reset"):
            return None
        holds = holds_of(store, decoded(decode_view, store.live(LIVE_NAME)), scope, now)
        return chosen(verb, scope, self.named, holds)

    def _end(self, now: datetime) -> datetime | None:
        """The end of the lock or the flag of a command that is given at `now`."""
        match self.lasts:
            case None:
                return None
            case LocalTime():
                return self.lasts.next_after(now)
            case TradingSession():
                return from_micros(self.lasts.next_open(to_micros(now)))
            case seconds:
                return now + timedelta(seconds=seconds)

    @property
    def kind(self) -> EventKind:
        return self.command.kind

    @property
    def scope(self) -> str | None:
        return self.command.scope

    @property
    def has_orders(self) -> bool:
        """Whether the command sends orders and needs an armed account."""
        return self.kind in ("close", "apply")

    @property
    def lifts(self) -> bool:
        """Whether the command lifts locks of its scope."""
        return self.kind in ("reset", "unlock") or (self.kind == "resume" and not self.is_of_policy)

    @property
    def is_of_policy(self) -> bool:
        """Whether it pauses or resumes a policy."""
        return self.kind in ("pause", "resume") and (self.scope or "").startswith(OF_POLICY)


def given(kind: commands.OperatorCommandKind, scope: str | None, author: str, reason: str, **more: Any) -> Event:
    """The event of a command that is given now; `more` as of `operator_event`."""
    return commands.operator_event(kind, scope, author, reason, SystemClock().now(), **more)


def lock_of(request: CommandRequest, locks: LockPaths | None) -> LockView | None:
    """The lock file of the scope of a reset or unlock; None for a close, and where no lock is written."""
    if not request.lifts or locks is None:
        return None
    return next((lock for lock in locks_at(locks.folder, None, datetime.now(UTC)) if lock.scope == request.scope), None)


def is_lock_pending(request: CommandRequest, store: Store, locks: LockPaths | None) -> bool:
    """Whether the lock of the scope of a reset or unlock still exists and no close keeps it."""
    lock = lock_of(request, locks)
    return lock is not None and lock.ordered and lock.has_own and not _closing_on(request.scope, store)


def _closing_on(scope: str | None, store: Store) -> list[str]:
    return list(dict.fromkeys(each.id for _, each in open_closes(store) if each.scope == scope))


def is_lock_unwritten(store: Store, answer: commands.CommandAnswer) -> bool:
    """Whether the lock of a decision of the answer is not in its file yet."""
    locks = (each for each in answer.decisions if of_kind(each.effects, Lock) is not None)
    return any(read_result(store, each).locked_at is None for each in locks)


def print_outcome(
    request: CommandRequest,
    store: Store,
    answer: commands.CommandAnswer,
    locks: LockPaths | None,
    sent: Event | None = None,
    store_at: str = "",
) -> None:
    """Print the result of the command; exit 1 if it was refused or did not finish.

    `locks`: the lock paths, if locks are lifted. `sent`: the stored event of the command. `store_at`: the store, for
    the commands that follow.
    """
    lock = lock_of(request, locks)
    if not answer.decisions and not answer.notices and lock is None:
        raise click.ClickException("command processed; no decision resulted; see `ksctl status`")
    outcome = replace(
        outcome_of(answer, store), fired_again=commands.fired_again(store, answer), lock=lock,
        closing=() if lock is None else tuple(_closing_on(lock.scope, store)), splits_notices=request.kind == "apply",
        store=store_at,
    )  # fmt: skip
    print_command_outcome(outcome, json=request.json)
    if sent is not None and commands.is_pending(store, sent):
        raise click.ClickException(
            f"the close is incomplete, and the command waits for the rest ({sent.id}): {continuation_text(store)}"
        )
    if outcome.is_failed:
        raise click.exceptions.Exit(1)


def outcome_of(answer: commands.CommandAnswer, store: Store) -> CommandOutcome:
    """The decisions and notices of an answer, with the results of the decisions."""
    results = tuple((decision, read_result(store, decision)) for decision in answer.decisions)
    resets = (each for each in answer.decisions if each.kind == "reset" and not each.is_unlock)
    bases = {each.id: equity for each in resets if (equity := _equity_at(store, each))}
    return CommandOutcome(results, answer.notices, continuation_text(store), bases=bases)


def _equity_at(store: Store, decision: Decision) -> str:
    """The equity of the decision's scope when it was made, a sum per currency; empty where it is not known."""
    snapshot = read_decision(store, decision).snapshot
    sums: dict[str, Decimal] = {}
    for account in () if snapshot is None else whole_accounts_in(decision.scope, snapshot):
        if account.equity is None:
            return ""
        sums[account.currency] = sums.get(account.currency, Decimal(0)) + account.equity
    return " and ".join(money(amount, currency) for currency, amount in sums.items())


def print_command_outcome(outcome: CommandOutcome, *, json: bool) -> None:
    """Print the outcome as a page or as JSON."""
    print_answer(
        "json" if json else "text", lambda: encode_record(outcome_record(outcome)), lambda: outcome_page(outcome)
    )


def continuation_text(store: Store) -> str:
    """Which process continues unfinished work: a running runner, unless it is this process."""
    runner = runner_state(store.lease(), datetime.now(UTC))
    if runner.liveness != "alive" or runner.pid == os.getpid():
        return "no runner is working on it: start `ksctl run --live` on this store"
    return f"the runner (pid {runner.pid}) continues it; `ksctl status --watch` follows it"


def print_pending(store: Store) -> None:
    """Print what the tick of the command processes as well: unfinished closes and pending commands."""
    for line in (*_unfinished(store), *_waiting(store)):
        print_note(f"also processed here: {line}")


def print_unfinished(store: Store) -> None:
    """Print the closes that are unfinished at the end of the command."""
    for line in _unfinished(store):
        print_note(f"unfinished: {line}")


@contextmanager
def printing_unfinished(store: Store) -> Iterator[None]:
    """On Ctrl-C, print unfinished work and which process continues it."""
    try:
        yield
    except KeyboardInterrupt:
        left = (*_unfinished(store), *_waiting(store))
        for line in left:
            print_note(f"interrupted: {line}")
        if left:
            print_note(continuation_text(store))
        raise


def _unfinished(store: Store) -> list[str]:
    return [f"the close of {each.scope} on account {account} [{each.id}]" for account, each in open_closes(store)]


def _waiting(store: Store) -> list[str]:
    now = tick_time(store, SystemClock())
    return [f"pending command: {command_line(event, now)}" for event in store.pending_events()]
