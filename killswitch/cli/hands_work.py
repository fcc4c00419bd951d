"""What `close`, `apply` and `reset` do: hand the order to the runner that lives, or be the runner for one tick."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from killswitch.cli.hands_text import Order, is_lifting, tell
from killswitch.cli.session import arming_words, friendly, lock_paths, opened_store, require_locks, written
from killswitch.cli.watching import reporting, watching
from killswitch.cli.wording import decision_lines, lasting
from killswitch.incident.note import keep_runbooks
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.planning.plan_file import SavedPlan
from killswitch.runner import hands
from killswitch.runner.accounts import ArmedAccount
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.clock import SystemClock
from killswitch.runner.loop import Pace, Runner, TickReport
from killswitch.runner.opening import Written, open_accounts
from killswitch.runner.progress import scheduled_seconds
from killswitch.runner.standing import Standing, locks_at, runner_state, standing_of
from killswitch.runner.status import RunnerView
from killswitch.store.sql import SqlStore

WORTH_TELLING = 5.0
"""Seconds from which on a person is told how long the declared pace takes."""

POLL = 0.1
"""Seconds between two looks at the store while waiting for a runner."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is to happen."""

    store_at: str
    policies_at: tuple[Path, ...]
    read_timeout: float
    lock_dir: Path | None
    lock_file: Path | None

    def written(self, view: RunnerView | None) -> Written:
        """The policies named, or those of the last runner, if they are still where they were."""
        paths = self.policies_at or tuple(Path(path) for path in (view.policies if view else ()))
        if not paths or not all(path.exists() for path in paths):
            raise click.UsageError("name the policies and accounts with --policies: no runner has left word of them")
        return written(paths)

    def locks(self, view: RunnerView | None) -> LockPaths:
        """Where the last runner wrote its locks, unless told otherwise."""
        folder = self.lock_dir or _path(view.lock_folder if view else None)
        return lock_paths(self.store_at, folder, self.lock_file or _path(view.union if view else None))


def _path(written: str | None) -> Path | None:
    return None if written is None else Path(written)


def this_user() -> str:
    """The name of this session's user, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


# The real thing


def give(order: Order, place: Place, *, live: bool) -> None:
    """Hand the order to the living runner, or tick once ourselves. Where there is no store, none is made."""
    _require_taker(order, place.store_at, live=live)
    with friendly(), _unspent(), opened_store(place.store_at, read_only=False) as store:
        standing = standing_of(store, datetime.now(UTC), 0)
        if standing.runner.liveness == "alive" and standing.view is not None:
            _hand_over(order, store, standing, standing.view)
        else:
            _tick_ourselves(order, store, place, standing.view, live=live)


@contextmanager
def _unspent() -> Iterator[None]:
    """A plan that was carried out already is refused in words."""
    try:
        yield
    except hands.SpentPlanError as error:
        raise click.ClickException(str(error)) from error


def _require_taker(order: Order, store_at: str, *, live: bool) -> None:
    """Refuse, before anything is changed, a store that is not there and orders that nobody would send."""
    with friendly(), _unspent(), opened_store(store_at, read_only=True) as store:
        liveness = runner_state(store.lease(), datetime.now(UTC)).liveness
        if order.plan is not None:
            hands.require_unspent(store, order.plan)
    if order.sends and not live and liveness != "alive":
        raise click.UsageError(
            "no runner lives on this store, so this command would send the orders itself: add --live"
            + (", or --dry-run to see them" if order.kind == "close" else "")
        )


def _hand_over(order: Order, store: Store, standing: Standing, view: RunnerView) -> None:
    locked = hands.locked_scopes(standing.locks)
    if order.plan is not None:
        _require_armed(order.plan, {each.account: each.armed for each in view.accounts})
    elif order.kind == "close":
        require_known(order.scope, hands.closable_scopes(view))
        _require_an_armed(order, standing, view)
    else:
        require_known(order.scope, hands.watched_scopes(view) | locked)
    if order.kind == "reset" and not any(account.armed for account in view.accounts):
        click.echo("locks stay as they are: the runner is armed for no account", err=True)
    event = order.event(store)
    store.put_event(event)
    click.echo(f"handed to the runner (pid {standing.runner.pid}) as {event.id}", err=True)
    deadline = time.monotonic() + order.wait
    while hands.is_waiting(store, event):
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"the runner has not taken {event.id} within {order.wait:g} s; it still will at its next tick. "
                "See `ksctl status`"
            )
        time.sleep(POLL)
    answer = hands.answer_to(store, event)
    deadline += _scheduled(answer)
    for decision in answer.decisions:
        while hands.progress_of(store, decision).standing == "closing" and time.monotonic() < deadline:
            time.sleep(POLL)
    at = LockPaths(Path(view.lock_folder), None) if view.lock_folder else None
    # The tick lifts the lock right after it has written down that it took the hand.
    while order.scope in locked and is_lifting(order, store, at) and time.monotonic() < deadline:
        time.sleep(POLL)
    tell(order, store, answer, at)


def _tick_ourselves(order: Order, store: SqlStore, place: Place, view: RunnerView | None, *, live: bool) -> None:
    found = place.written(view)
    if order.kind == "reset" and not live and any(each.spec.execution == "live" for each in found.accounts):
        raise click.UsageError(
            "no runner lives on this store, so this command would tick once itself; unarmed, whatever fires in that "
            "tick would be latched without being acted on. Add --live"
        )
    accounts = open_accounts(found.accounts, live=live)
    locks = place.locks(view)
    require_locks(accounts, locks)
    if order.plan is not None:
        _require_armed(order.plan, {name: account.armed for name, account in accounts.items()})
    elif order.kind == "close":
        require_closable(order.scope, accounts)
    else:
        standing_locks = locks_at(locks.folder, locks.union, datetime.now(UTC))
        require_known(order.scope, hands.machine_scopes(found.policies, accounts) | hands.locked_scopes(standing_locks))
    seen = _Fired()
    with (
        watching(found, place.store_at, None, SystemClock()) as told,
        reporting(store, place.store_at, told.telemetry.tracer) as reports,
    ):
        runner = assemble(
            found.policies, accounts, store, SystemClock(), Pace(interval=1.0, read_timeout=place.read_timeout),
            live=live, locks=locks, witnesses=(seen, reports, *told.witnesses),
            tracer=told.telemetry.tracer, watch=told.telemetry.watch,
            paths=tuple(str(path.resolve()) for path in place.policies_at) or (view.policies if view else ()),
        )  # fmt: skip
        keep_runbooks(store, found.policies.digest, found.runbooks)
        click.echo(f"no runner lives here: ticking once; {arming_words(accounts, live=live)}", err=True)
        armed = any(account.armed for account in accounts.values())
        if order.kind == "reset" and not armed:
            click.echo("locks stay as they are: nothing is armed", err=True)
        event = order.event(store)
        try:
            asyncio.run(_once(runner, store, event, order.wait))
        except BaseException:
            if hands.is_waiting(store, event):
                click.echo(
                    f"{event.id} ({order.kind}) waits on: the next tick of any runner here carries it out", err=True
                )
            raise
        # The answer first: the pages and the last traces take their time.
        for decision in seen.decisions:
            click.echo("\n".join(("the same tick brought about by itself:", *decision_lines(decision))), err=True)
        tell(order, store, hands.answer_to(store, event), locks if armed else None)


def _scheduled(answer: hands.Answer) -> float:
    """Seconds that the declared pace of what was decided takes; a pace worth waiting for is told."""
    seconds = max((scheduled_seconds(decision) for decision in answer.decisions), default=0.0)
    if seconds >= WORTH_TELLING:
        length = lasting(timedelta(seconds=seconds))
        click.echo(f"the declared pace alone takes {length}; `ksctl status --watch` follows it", err=True)
    return seconds


class _Fired:
    """A witness of what policies decided by themselves."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def ticked(self, report: TickReport) -> None:
        self.decisions += [decision for decision in report.decisions if decision.kind is None]


async def _once(runner: Runner, store: Store, event: Event, wait: float) -> None:
    """One tick that takes `event`, and closing until it is done or `wait` seconds beyond its own pace have gone by.

    The event is given only once everything has started: what fails before that leaves none behind.
    """
    try:
        await runner.start()
        store.put_event(event)
        await runner.tick()
        await runner.work_through(wait + _scheduled(hands.answer_to(store, event)))
        await runner.finish()
    finally:
        await runner.let_go()


def _require_an_armed(order: Order, standing: Standing, view: RunnerView) -> None:
    if not any(each.armed for each in hands.accounts_named(view, order.scope)):
        raise click.ClickException(
            f"the runner (pid {standing.runner.pid}) is armed for no account of {order.scope or 'the portfolio'}, so "
            "nothing would be sent: restart it with --live, for accounts whose document says execution: live"
        )


def _require_armed(plan: SavedPlan, armed: Mapping[str, bool]) -> None:
    """A plan is carried out as a whole: every account that it acts on must be armed."""
    acted_on = {each.account for decision in plan.decisions for each in decision.intents}
    acted_on |= {each.account for decision in plan.decisions for each in decision.cancels}
    missing = sorted(name for name in acted_on if not armed.get(name, False))
    if missing:
        raise click.ClickException(
            f"the plan acts on {', '.join(missing)}, for which nothing is armed here: that takes --live, and a "
            "document that says execution: live"
        )


def require_closable(scope: str | None, accounts: dict[str, ArmedAccount]) -> None:
    known = {f"account/{name}" for name in accounts} | {f"venue/{each.venue}" for each in accounts.values()}
    require_known(scope, known | {"portfolio"})


def require_known(scope: str | None, known: set[str]) -> None:
    if scope is None:
        return
    try:
        hands.require_scope(scope, known)
    except hands.RefusedScopeError as error:
        raise click.ClickException(str(error)) from error
