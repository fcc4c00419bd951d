"""What `close` and `reset` do: hand the order to the runner that lives, or be the runner for one tick."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from killswitch.cli.chain_text import what_is_decided
from killswitch.cli.session import arming_words, friendly, lock_paths, opened_store, written
from killswitch.cli.wording import headline, money
from killswitch.model.decision import Decision, Notice, decision_record, encode_decision
from killswitch.model.snapshot import Event, Snapshot
from killswitch.model.store import Store
from killswitch.runner import hands
from killswitch.runner.accounts import ArmedAccount
from killswitch.runner.assembly import assemble
from killswitch.runner.clock import SystemClock
from killswitch.runner.loop import Pace, Runner
from killswitch.runner.opening import Written, open_accounts, read_once
from killswitch.runner.preview import from_store, preview
from killswitch.runner.results import Result
from killswitch.runner.standing import Standing, runner_state, standing_of
from killswitch.runner.status import RunnerView
from killswitch.store.errors import StoreMissingError
from killswitch.store.sqlite import open_store

POLL = 0.1
"""Seconds between two looks at the store while waiting for a runner."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asks for. `wait` in seconds."""

    kind: hands.HandKind
    scope: str | None
    author: str
    reason: str
    wait: float
    json: bool

    def event(self) -> Event:
        return hands.hand(self.kind, self.scope, self.author, self.reason, datetime.now(UTC))


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


def this_user() -> str:
    """The name of this session's user, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


# A dry run


def preview_close(order: Order, place: Place) -> None:
    """Read the venues, show what a close would send, and change nothing: no order, no lock, no store, no lease."""
    with friendly():
        store = _store_to_read(place.store_at)
        try:
            view = None if store is None else standing_of(store, datetime.now(UTC), 0).view
            found = place.written(view)
            accounts = open_accounts(found.accounts, live=True)
            _require_closable(order.scope, accounts)
            seen = asyncio.run(read_once(accounts, place.read_timeout))
            interpreter, memory = from_store(found.policies, store)
        finally:
            if store is not None:
                store.close()
    snapshot = Snapshot(datetime.now(UTC), seen, "killswitch.snapshot/v1", events=(order.event(),))
    shown = preview(found.policies, snapshot, interpreter, memory, frozenset())
    closes = [decision for decision in shown.decisions if decision.kind == "manual"]
    if not closes:
        raise click.ClickException(
            "; ".join(n.text for n in shown.notices if n.policy == "operator") or "nothing closes"
        )
    _tell_preview(closes[0], accounts, shown.decisions, as_json=order.json)


def _store_to_read(store_at: str) -> Store | None:
    """The store, or None where there is none: what is open can be shown without history."""
    try:
        return open_store(store_at, read_only=True)
    except StoreMissingError:
        return None


def _tell_preview(
    decision: Decision, accounts: dict[str, ArmedAccount], decisions: Sequence[Decision], *, as_json: bool
) -> None:
    if as_json:
        click.echo(encode_decision(decision))
        return
    click.echo(f"Dry run: nothing is sent, nothing is written. {headline(decision)}")
    click.echo(what_is_decided(decision))
    observed = sorted({intent.account for intent in decision.intents if not accounts[intent.account].armed})
    if observed:
        click.echo(f"Nothing would be sent to {', '.join(observed)}: the document says execution: observe.")
    others = [headline(each) for each in decisions if each.kind is None]
    if others:
        click.echo("By itself, the same tick would bring about:\n  " + "\n  ".join(others))


# The real thing


def give(order: Order, place: Place, *, live: bool) -> None:
    """Hand the order to the living runner, or tick once ourselves."""
    if order.kind == "close" and not live:
        _require_runner(place.store_at)
    with friendly(), opened_store(place.store_at, read_only=False) as store:
        standing = standing_of(store, datetime.now(UTC), 0)
        if standing.runner.liveness == "alive" and standing.view is not None:
            _hand_over(order, store, standing, standing.view)
        else:
            _tick_ourselves(order, store, place, standing.view, live=live)


def _require_runner(store_at: str) -> None:
    """Refuse, before anything is made or changed, a close that nobody would carry out."""
    with friendly():
        store = _store_to_read(store_at)
        liveness = "gone"
        if store is not None:
            liveness = runner_state(store.lease(), datetime.now(UTC)).liveness
            store.close()
    if liveness != "alive":
        raise click.UsageError(
            "no runner lives on this store, so this command would send the orders itself: add --live, "
            "or --dry-run to see them"
        )


def _hand_over(order: Order, store: Store, standing: Standing, view: RunnerView) -> None:
    _require_known(order.scope, hands.closable_scopes(view) if order.kind == "close" else hands.resettable_scopes(view))
    if order.kind == "close" and not any(each.armed for each in hands.accounts_named(view, order.scope)):
        raise click.ClickException(
            f"the runner (pid {standing.runner.pid}) is armed for no account of {order.scope or 'the portfolio'}, so "
            "nothing would be sent: restart it with --live, for accounts whose document says execution: live"
        )
    if order.kind == "reset" and not any(account.armed for account in view.accounts):
        click.echo("locks stay as they are: the runner is armed for no account", err=True)
    event = order.event()
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
    for decision in answer.decisions:
        while hands.progress_of(store, decision).standing == "closing" and time.monotonic() < deadline:
            time.sleep(POLL)
    _tell(order, store, answer)


def _tick_ourselves(order: Order, store: Store, place: Place, view: RunnerView | None, *, live: bool) -> None:
    found = place.written(view)
    accounts = open_accounts(found.accounts, live=live)
    if order.kind == "close":
        _require_closable(order.scope, accounts)
    else:
        _require_known(order.scope, hands.machine_scopes(found.policies, accounts))
    pace = Pace(interval=1.0, read_timeout=place.read_timeout)
    runner = assemble(
        found.policies, accounts, store, SystemClock(), pace,
        live=live, locks=lock_paths(place.store_at, place.lock_dir, place.lock_file),
        paths=tuple(str(path.resolve()) for path in place.policies_at) or (view.policies if view else ()),
    )  # fmt: skip
    click.echo(f"no runner lives here: ticking once; {arming_words(accounts, live=live)}", err=True)
    if order.kind == "reset" and not any(account.armed for account in accounts.values()):
        click.echo("locks stay as they are: nothing is armed", err=True)
    event = order.event()
    store.put_event(event)
    asyncio.run(_once(runner, order.wait))
    _tell(order, store, hands.answer_to(store, event))


async def _once(runner: Runner, wait: float) -> None:
    """One tick, and closing until it is done or `wait` seconds have gone by."""
    try:
        await runner.start()
        await runner.tick()
        await runner.work_through(wait)
        await runner.finish()
    finally:
        await runner.let_go()


def _require_closable(scope: str | None, accounts: dict[str, ArmedAccount]) -> None:
    known = {f"account/{name}" for name in accounts} | {f"venue/{each.venue}" for each in accounts.values()}
    _require_known(scope, known | {"portfolio"})


def _require_known(scope: str | None, known: set[str]) -> None:
    if scope is None:
        return
    try:
        hands.require_scope(scope, known)
    except hands.RefusedScopeError as error:
        raise click.ClickException(str(error)) from error


# Telling


def _tell(order: Order, store: Store, answer: hands.Answer) -> None:
    results = [(decision, hands.progress_of(store, decision)) for decision in answer.decisions]
    if not results and not answer.notices:
        raise click.ClickException("the tick took it, and nothing came of it; see `ksctl status`")
    if order.json:
        _tell_json(results, answer.notices)
    else:
        for decision, result in results:
            click.echo(f"{headline(decision)}  [{decision.id}]\n  {_outcome(decision, result)}")
        for notice in answer.notices:
            click.echo(notice.text)
    if any(notice.severity == "page" for notice in answer.notices) or any(_failed(*each) for each in results):
        raise click.exceptions.Exit(1)


def _tell_json(results: Sequence[tuple[Decision, Result]], notices: Sequence[Notice]) -> None:
    import msgspec

    whole = {
        "decisions": [{"decision": decision_record(decision), "result": result} for decision, result in results],
        "notices": notices,
    }
    click.echo(msgspec.json.Encoder(decimal_format="string").encode(whole))


def _outcome(decision: Decision, result: Result) -> str:
    if decision.kind == "reset":
        return "back to normal"
    reasons = [f"{ending.account}: {ending.reason}" for ending in result.endings if ending.reason]
    words = f"{result.standing}, {result.closed} positions reduced, fees {money(result.fees)}"
    if result.standing == "closing":
        reasons.append("it goes on while a runner lives that is armed (`ksctl run --live`)")
    return "; ".join((words, *reasons))


def _failed(decision: Decision, result: Result) -> bool:
    return decision.kind == "manual" and result.standing not in ("flat", "at target", "nothing to close")
