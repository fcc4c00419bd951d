"""Dry run of a close, halt, pause, lock, cancel or reset by hand: read the venues, print it all, change nothing."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import open_accounts, read_once
from killswitch.cli.live.plan import require_new_file, save_plan
from killswitch.cli.operate.command_delivery import CommandSite
from killswitch.cli.operate.command_output import CommandRequest
from killswitch.cli.operate.command_requirements import closable_scopes
from killswitch.cli.session import store_if_any
from killswitch.cli.terminal import print_note, print_page, render_page, terminal_width
from killswitch.model.decision import Decision, encode_decision
from killswitch.model.effects import Lock, LockOrder, of_kind
from killswitch.model.instant import to_micros
from killswitch.model.lock_parts import merged_parts, parts_text
from killswitch.model.snapshot import Event, LockPart, Snapshot
from killswitch.model.words import LockMode
from killswitch.operations import commands
from killswitch.operations.lifting import ScopeHold, after_resets, holds_of
from killswitch.operations.pages.decision import decided
from killswitch.operations.pages.levels import expected_section
from killswitch.operations.pages.plan import execution_text
from killswitch.operations.pages.wording import headline
from killswitch.operations.preview import Preview, closes_under_way, from_store, plan_of, preview
from killswitch.operations.status import LockView, store_status
from killswitch.planning.notices import GIVE_UP_HINT, RESET
from killswitch.planning.operator.closes import accounts_in
from killswitch.planning.orders.expected_cost import expected_orders
from killswitch.render.document import Items, Page, Section, section
from killswitch.render.formats import count_of
from killswitch.runner import process
from killswitch.runner.clock import SystemClock
from killswitch.runner.status_blob import tick_time
from killswitch.valuation.scope_view import ScopeView


def preview_command(request: CommandRequest, site: CommandSite, out: Path | None) -> None:
    """Print what a close, a halt, a pause, a lock or a cancel would do, without orders, locks, store writes or a lease.

    `out`: file for the plan, which `ksctl apply` reads.
    """
    require_new_file(out)
    decision, accounts, shown, locks = _planned(request, site)
    if request.json:
        click.echo(encode_decision(decision))
    else:
        print_page(_preview_page(decision, accounts, shown, locks))
    if out is not None:
        save_plan(plan_of(shown, [decision]), out, site.store_at)


def confirm_portfolio(request: CommandRequest, site: CommandSite) -> None:
    """Show what a close of the whole portfolio would send, and ask once. ClickException if the answer is no.

    A close must remain possible where the preview is not: an error of it is shown, and the question asked.
    """
    try:
        print_note(render_page("text", _preview_page(*_planned(request, site), asks=True), terminal_width(sys.stderr)))
    except Exception as error:  # noqa: BLE001 - a close must remain possible where its preview is not
        why = error.format_message() if isinstance(error, click.ClickException) else str(error) or repr(error)
        print_note(f"what would be closed cannot be shown: {why}")
    if not click.confirm("Close every position of the portfolio? (--scope names less)", err=True):
        raise click.ClickException("not confirmed: nothing was changed")


class CommandTick(Struct, frozen=True):
    """The tick that a command would cause, on what the venues answer now. `holds`: what the command ends."""

    event: Event
    accounts: dict[str, ArmedAccount]
    shown: Preview
    locks: tuple[LockView, ...]
    notices: tuple[str, ...]
    holds: tuple[ScopeHold, ...] = ()


def preview_reset(request: CommandRequest, site: CommandSite) -> None:
    """Print what a reset would end, that it accepts the loss, and what is demanded after it; nothing is changed.

    UnnamedError where the command itself would be refused, because it names none of several.
    """
    tick = _tick_of(request, site)
    ended = [each for each in tick.shown.decisions if each.kind == "reset" and each.author == tick.event.author]
    if not ended:
        raise click.ClickException("; ".join(tick.notices) or "nothing to reset")
    if request.json:
        click.echo("\n".join(encode_decision(each).decode() for each in ended))
        return
    others = [headline(each) for each in tick.shown.decisions if each not in ended]
    print_page(
        Page(
            "Dry run",
            summary=("Dry run: nothing is lifted, nothing is changed.",),
            sections=(
                *section("What it ends:", Items(tuple(each.line for each in tick.holds))),
                *section("What it would do:", Items((*map(headline, ended), *tick.notices))),
                *section("What follows:", Items(tuple(after_resets(ended, tick.shown.policies)))),
                *section("The same tick would also decide:", Items(tuple(others))),
            ),
        )
    )


def _planned(
    request: CommandRequest, site: CommandSite
) -> tuple[Decision, dict[str, ArmedAccount], Preview, tuple[LockView, ...]]:
    """The decision of the command on fresh snapshots, and the lock files now; a note for each problem."""
    tick = _tick_of(request, site)
    closes = [decision for decision in tick.shown.decisions if decision.kind == "manual"]
    if not closes or (closes[0].waits_for and not closes[0].accounts):
        raise click.ClickException("; ".join(tick.notices) or "nothing to close")
    for text in tick.notices:
        print_note(text)
    return closes[0], tick.accounts, tick.shown, tick.locks


def _tick_of(request: CommandRequest, site: CommandSite) -> CommandTick:
    with store_if_any(site.store_at) as store:
        status = None if store is None else store_status(store, datetime.now(UTC), 0)
        view, locks = (None, ()) if status is None else (status.view, status.locks)
        loaded = site.policies(view)
        accounts = open_accounts(loaded.accounts, live=True)
        is_kept = request.scope in commands.watched_scopes(view) if request.lifts and view is not None else False
        if not is_kept:
            commands.require_known_or_symbol(request.scope, closable_scopes(loaded.policies, accounts))
        account_snapshots = process.run(read_once(accounts, site.read_timeout))
        interpreter, memory = from_store(loaded.policies, store)
        event, now = request.event(store if request.lifts else None), tick_time(store, SystemClock())
        found = holds_of(store, view, request.scope or "portfolio", now) if store is not None and request.lifts else ()
        snapshot = Snapshot(
            now, account_snapshots, "killswitch.snapshot/v1", events=(event,), closings=closes_under_way(store)
        )
        shown = preview(loaded.policies, snapshot, interpreter, memory, frozenset(), with_levels=False)
    notices = tuple(
        notice.text.removesuffix(GIVE_UP_HINT.format(id=event.id))  # the command is not stored
        for notice in shown.notices
        if notice.policy == "operator" or notice.subject in (event.id, RESET)
    )
    return CommandTick(
        event, accounts, shown, locks, notices, tuple(each for each in found if each.decision in (event.ids or ()))
    )


def _preview_page(
    decision: Decision, accounts: dict[str, ArmedAccount], shown: Preview, locks: Sequence[LockView], *,
    asks: bool = False,
) -> Page:  # fmt: skip
    """`asks`: a question follows, and the close if the answer is yes; else nothing does."""
    heading = (
        "To be confirmed: nothing is sent before you answer."
        if asks
        else ("Dry run: nothing is sent, nothing is changed.")
    )
    observed = sorted(name for name in decision.accounts if not accounts[name].armed)
    others = [headline(each) for each in shown.decisions if each.kind in (None, "suspicion")]
    if decision.is_hold:
        return _hold_page(decision, accounts, shown, locks, others)
    is_empty = not (decision.intents or decision.cancels or decision.waits_for)
    nothing = ("Nothing to close: no account of the scope holds a position of it.",) if is_empty else ()
    return Page(
        "What would be closed" if asks else "Dry run",
        summary=(
            f"{heading} {headline(decision)}",
            *(nothing or (f"Execution: {execution_text(decision)}.",)),
        ),
        sections=(
            decided(decision, shown.snapshot),
            *_expected(decision, shown.snapshot),
            *section("", f"Nothing would be sent to {', '.join(observed)}: the document says "
                     "execution: observe." if observed else None),
            *section("The same tick would also decide:", Items(tuple(others))),
        ),
    )  # fmt: skip


def _expected(decision: Decision, snapshot: Snapshot) -> Iterator[Section]:
    """The expected prices and the cost of the orders, for each currency of the accounts."""
    rules = {(each.account, it.symbol): it for each in snapshot.accounts for it in each.instruments or ()}
    for currency in dict.fromkeys(each.currency for each in snapshot.accounts):
        accounts = [each for each in snapshot.accounts if each.currency == currency]
        names = {each.account for each in accounts}
        view = ScopeView(to_micros(snapshot.as_of), snapshot.scheduled, accounts, rules, None)
        intents = [each for each in decision.intents if each.account in names]
        yield from expected_section(expected_orders(view.trusted(), intents), currency)


def _hold_page(
    decision: Decision, armed: Mapping[str, ArmedAccount], shown: Preview, locks: Sequence[LockView], others: list[str]
) -> Page:
    """What a halt, a pause, a lock or a cancel would do, what bots see then, and what it would leave as it is."""
    cancelled = {(each.account, each.order) for each in decision.cancels}
    reached = {account.account for account in accounts_in(decision.scope, shown.snapshot, shown.policies)}
    accounts = [account for account in shown.snapshot.accounts if account.account in reached]
    observed = sorted(name for name in reached if not armed[name].armed)
    lock = of_kind(decision.effects, Lock)
    seen = () if lock is None else _what_bots_see(lock.order, reached - set(observed), locks)
    resting = sum(len(account.orders or ()) for account in accounts)
    held = sum(len(account.positions or ()) for account in accounts)
    stays = (
        f"{count_of(held, 'position')} in the accounts of {decision.scope}: nothing is closed, which costs nothing",
        f"{resting - len(cancelled)} of {count_of(resting, 'resting order')}",
    )
    return Page(
        "Dry run",
        summary=(f"Dry run: nothing is sent, nothing is changed. {headline(decision)}",),
        sections=(
            decided(decision, shown.snapshot),
            *section("What bots see:", Items(tuple(seen))),
            *section("What would be cancelled:", None if decision.cancels else _cancelled_later(decision, lock)),
            *section("What stays:", Items(stays)),
            *section("", f"Nothing would be locked or cancelled on {', '.join(observed)}: the document says "
                     "execution: observe." if observed else None),
            *section("The same tick would also decide:", Items(tuple(others))),
        ),
    )  # fmt: skip


def _what_bots_see(order: LockOrder, accounts: Collection[str], locks: Sequence[LockView]) -> Iterator[str]:
    """The lock of each file that a bot reads, as it is now and as it would be then.

    The lock of a strategy or of a symbol is in a file of its own; any other is in those of its accounts.
    """
    is_own_file = order.scope.partition("/")[0] in ("strategy", "symbol")
    scopes = [order.scope] if is_own_file else [f"account/{name}" for name in sorted(accounts)]
    files = {each.scope: each for each in locks}
    for scope in scopes:
        found = files.get(scope)
        before = () if found is None or not found.locked or not found.ordered else _parts_in(found)
        now = "not written yet" if found is None else "open" if not found.locked else found.reason
        now = parts_text(before) if before else now
        yield f"{scope}: {parts_text(merged_parts((*before, *order.parts)))}; now {now}"


def _parts_in(lock: LockView) -> tuple[LockPart, ...]:
    mode: LockMode = "all" if lock.mode == "all" else "reduce_only"
    return lock.only or (LockPart(mode, lock.until),)


def _cancelled_later(decision: Decision, lock: Lock | None) -> str:
    """What would be cancelled where nothing is at once."""
    if lock is None or decision.command == "halt":
        return "Nothing: none of the orders that could be read adds risk."
    return "Nothing that rests now; in accounts with `Limits`, orders that add risk and arrive after the lock."
