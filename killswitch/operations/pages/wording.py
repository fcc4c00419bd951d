"""Text that several verbs share: decisions, triggers, effects, and operator commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import UNSET

from killswitch.incident.notify.message import render_trigger
from killswitch.incident.record.close_causes import command_text, group_orders, order_texts
from killswitch.incident.record.loss import attribution_text
from killswitch.incident.record.timeline import cancel_lines, resting_orders
from killswitch.model.effects import Cancels, Effect, Lock, Orders, kind_of, locked_place, of_kind, place_of
from killswitch.model.instant import from_micros
from killswitch.model.legible import one_line
from killswitch.model.words import place_text
from killswitch.render.document import Footnotes, Items, Part, Section, Table, section
from killswitch.render.formats import count_of, duration_text, instant, interval, money

if TYPE_CHECKING:
    from decimal import Decimal

    from killswitch.incident.notify.message import TriggerTexts
    from killswitch.model.decision import Decision, Intent, Notice
    from killswitch.model.snapshot import Event, Snapshot
    from killswitch.planning.operator.closes import Orphan
    from killswitch.planning.scopes.trigger_status import MachineStatus, TriggerStatus
    from killswitch.runner.status_blob import AccountView


def ago(at: datetime, now: datetime) -> str:
    """`12s ago`, or `in 5s` for a time in the future."""
    return f"{duration_text(now - at)} ago" if at <= now else f"in {duration_text(at - now)}"


def headline(decision: Decision) -> str:
    """A decision in one line, without its time."""
    return one_line(_headline(decision))


def _headline(decision: Decision) -> str:
    where = f"{decision.policy} on {decision.scope}"
    if decision.kind == "manual" or decision.is_unlock:
        what = command_text(decision)
        lock = of_kind(decision.effects, Lock)
        place = decision.scope if lock is None else locked_place(lock.order)
        return f"{what} by {decision.author or 'unknown'}: {place} ({decision.reason or 'no reason'})"
    if decision.kind == "reset":
        return f"reset from level {decision.previous_level} by {decision.author or 'its own condition'}: {where}"
    if decision.kind in ("hedge", "breach"):
        what = "temporary hedge" if decision.kind == "hedge" else "answer to a lock breach"
        return f"{what}: {where} ({decision.reason or 'no reason'})"
    if decision.is_withdrawal:
        return f"end of the suspicion of {decision.stage}: {where}"
    if decision.is_suspicion:
        return f"suspicion of {decision.stage}, a lock until {instant(decision.until)} and nothing else: {where}"
    return f"level {decision.level} {decision.stage}: {where}"


def decision_section(decision: Decision, thresholds: TriggerTexts | None = None, remark: str = "") -> Section:
    """A decision with its reasons and orders, one line each. `thresholds`: those of its policies."""
    lines = [*reason_lines(decision, thresholds or {})]
    if decision.kind in (None, "suspicion") and decision.reason:
        lines.append(f"note: {decision.reason}")
    orders = of_kind(decision.effects, Orders)
    lines += order_texts(() if orders is None else orders.intents)
    lines += [kind_of(effect).text(effect) for effect in decision.further]
    return Section(f"{instant(decision.as_of)}  {headline(decision)}{remark}", (Items(tuple(lines)),))


def reason_lines(decision: Decision, thresholds: TriggerTexts) -> Iterator[str]:
    """Each trigger against its threshold, and which side lost."""
    yield from (f"{each.name}: {render_trigger(decision, each, thresholds)}" for each in decision.triggers)
    if decision.attribution is not None and decision.attribution.window:
        yield attribution_text(decision.attribution)


def accounts_section(accounts: Sequence[AccountView], *, is_dated: bool = True) -> Iterator[Section]:
    """One row per account, and footnotes for long reasons. `is_dated`: whether the times of observation are shown."""
    footnotes = Footnotes()

    def quality(each: AccountView) -> str:
        return each.quality + ("" if each.reason is None else f" {footnotes.mark(f'{each.account}: {each.reason}')}")

    rows = tuple(
        (
            each.account, each.venue, each.market, "live" if each.armed else "observe", quality(each),
            money(each.equity, each.currency), "unknown" if each.positions is None else str(each.positions),
            instant(each.observed_at),
        )
        for each in accounts
    )  # fmt: skip
    head = ("account", "venue", "market", "acts", "quality", "equity", "positions", "observed")
    end = None if is_dated else -1
    expendable = (2, 7, 1, 3) if is_dated else (2, 1, 3)  # market, observed, venue, acts
    table = Table(head[:end], tuple(row[:end] for row in rows), notes=footnotes.notes, expendable=expendable)
    yield from section("Accounts", table)


def trigger_table(
    machines: Sequence[MachineStatus],
    accounts: Sequence[AccountView],
    in_money: Callable[[MachineStatus, TriggerStatus, Footnotes], str] | None = None,
) -> Table:
    """A table of triggers with value, threshold and headroom, and footnotes for long reasons.

    Those of several machines have their scope and policy. `accounts`: their reasons are shown elsewhere and not
    repeated. `in_money`: the text of the headroom in money of a trigger; without it there is no such column.
    """
    footnotes = Footnotes()
    rows = tuple(
        (
            machine.scope, machine.policy, each.name,
            "-" if each.threshold is None else interval(each.value, each.unit),
            each.threshold or "expression",
            "-" if each.headroom is None or each.truth is None else interval(each.headroom, each.unit),
            *(() if in_money is None else (in_money(machine, each, footnotes),)),
            _truth(each, accounts, footnotes),
        )
        for machine in machines
        for each in machine.triggers
    )  # fmt: skip
    money_head = () if in_money is None else ("in money",)
    head = ("scope", "policy", "trigger", "value", "threshold", "headroom", *money_head, "state")
    if len(machines) > 1:
        return Table(head, rows, notes=footnotes.notes, expendable=(5, 1))
    return Table(head[2:], tuple(row[2:] for row in rows), notes=footnotes.notes, expendable=(3,))


def watch_line(machines: Sequence[MachineStatus], accounts: int) -> str:
    """What a run watches, and the trigger that is nearest to its threshold; unknown triggers are counted."""
    triggers = [(machine, each) for machine in machines for each in machine.triggers]
    known = [it for it in triggers if it[1].truth is not None]
    reached = [(each.reached, machine, each) for machine, each in known if each.reached is not None]
    unknown = sum(each.truth is None and not each.is_young for _, each in triggers)
    young = sum(each.is_young for _, each in triggers)
    parts = [f"watching {count_of(accounts, 'account')}"]
    if reached:
        share, machine, trigger = max(reached, key=lambda each: each[0])
        parts.append(f"nearest: {trigger.name} of {machine.policy} on {machine.scope}, {share:.0%} of its threshold")
    parts += [f"{count_of(unknown, 'trigger')} unknown"] if unknown else []
    return "; ".join(parts + ([f"{count_of(young, 'trigger')} with a short history"] if young else []))


def _truth(trigger: TriggerStatus, accounts: Sequence[AccountView], footnotes: Footnotes) -> str:
    if trigger.truth is None:
        counted = ", counts as true" if trigger.held else ""
        why = without_shown_reasons(trigger.unknown_because or "not evaluated yet", accounts)
        if trigger.is_young:
            why = why.replace("history reaches back", "history")
        return f"unknown{counted}: {footnotes.mark(why)}"
    if not trigger.truth:
        return "false"
    return f"true since {instant(trigger.true_since)}, {'confirmed' if trigger.confirmed else 'not confirmed yet'}"


def without_shown_reasons(text: str, accounts: Sequence[AccountView]) -> str:
    """`text` without the reasons of unreadable accounts, which are shown above with each account."""
    for account in accounts:
        if account.reason:
            outage = f"{account.account} is {account.quality}"
            text = text.replace(f"{outage}: {account.reason}", f"{outage}, see above")
    return text


def effect_parts(effects: Iterable[Effect], snapshot: Snapshot | None) -> Iterator[Part]:
    """Orders as a table; one line for each cancel, lock or other effect."""
    for effect in effects:
        match effect:
            case Orders(intents):
                yield _orders(intents)
            case Cancels(cancels):
                yield Items(tuple(str(each) for each in cancel_lines(cancels, resting_orders(snapshot))))
            case _:
                yield Items((effect_line(effect),))


def effect_line(effect: Effect) -> str:
    """An effect besides orders and cancels in a line."""
    if not isinstance(effect, Lock):
        return kind_of(effect).text(effect)
    until = instant(effect.order.until) if effect.order.until else "it is lifted"
    return f"lock {place_of(effect.order)}: {effect.order.mode} until {until}"


def _orders(intents: Sequence[Intent]) -> Table:
    rows = tuple(
        (
            str(each.intent.rank), each.intent.account, each.intent.side, each.amount,
            f"{each.intent.symbol} ({each.intent.position_side})", f"{each.leaves:f}",
            each.intent.score or "-", _remarks(each.intent),
        )
        for each in group_orders(intents)
    )  # fmt: skip
    return Table(("#", "account", "order", "contracts", "symbol", "leaves", "score", ""), rows)


def _remarks(intent: Intent) -> str:
    remarks = ["reduce-only"] if intent.reduce_only else []
    if intent.purpose != "reduce":
        remarks.append("sells what another order buys" if intent.purpose == "hop" else "opens a temporary hedge")
    if not intent.exact:
        remarks.append("not rounded: the venue's rules are unknown")
    return ", ".join(remarks)


def amount_in(currencies: Sequence[str], amount: Decimal | None) -> str:
    """A sum with its currency; amounts in several currencies have none."""
    if len(currencies) > 1:
        return f"unknown in {' and '.join(currencies)}"
    return money(amount, *currencies)


def command_line(event: Event, now: datetime, waits_for: str = "") -> str:
    """A pending operator command in one line."""
    kind = f"{event.kind} by force" if event.force else event.kind
    if event.change is not None:
        kind = f"{kind} {event.change} as {event.restated_as or 'unknown'} on"
    if event.flag is not None:
        kind = f"flag {'set' if event.is_set else 'clear'} {event.flag} for"
    if event.side is not None or event.symbols is not None:
        kind = f"{kind} {place_text(event.side, event.symbols)} of"
    if event.kind in ("lock", "pause") and event.until is not None:
        waits_for = f", until {instant(event.until)}{waits_for}"
    cause = f"{event.cause}: " if event.cause and event.cause != event.reason else ""
    return one_line(
        f"{kind} {event.scope or 'portfolio'} by {event.author or 'unknown'}, {ago(event.at, now)}: "
        f"{cause}{event.reason or 'no reason'}{waits_for} [{event.id}]"
    )


def orphan_line(orphan: Orphan) -> str:
    """A latched stage whose policy is gone, and how to end it, in one line."""
    end = orphan.no_reset_before
    return (
        f"level {orphan.level} {orphan.stage or 'unnamed'} of {orphan.policy} on {orphan.scope} is still latched, but "
        f"its policy or account is no longer in the files: `ksctl reset {orphan.scope}` ends it and lifts its lock"
        + ("" if end is None else f", not before {instant(from_micros(end))}")
    )


def stage_label(machine: MachineStatus) -> str:
    """The stage that fired and was not reset, and whether it latched; of a circuit breaker its state."""
    if machine.breaker is not None:
        return f"breaker {machine.breaker}"
    if machine.held_back:
        return f"{machine.stage} (fired, not latched: its `where` was true for no position)"
    return f"{machine.stage or 'normal'}{'' if machine.latched else ' (fired, not latched)'}"


def pending_lines(machine: MachineStatus, now: datetime) -> Iterator[str]:
    """What a stage table does not show: disabled, paused, no reset yet, a close that waits, or a lock on suspicion."""
    if machine.disabled is not None:
        until = instant(from_micros(machine.disabled.until))
        yield one_line(f"disabled until {until}, it fires nothing: {machine.disabled.reason}")
    if (pause := machine.paused) is not None:
        by = f"by {pause.author or 'unknown'}: {pause.reason or 'no reason'}"
        yield one_line(f"PAUSED until {instant(pause.until)} {by}; it fires nothing new, and what it has begun goes on")
    if machine.no_reset_before is not None and machine.no_reset_before > now:
        yield f"nobody resets it before {instant(machine.no_reset_before)}, neither `ksctl reset` nor `ksctl unlock`"
    if (needs := machine.reset_approvals) is not UNSET:
        given = " and ".join(needs.approved) or "nobody yet"
        yield one_line(
            f"its reset needs {count_of(needs.needed, 'approval')} by other people than who gives it; approved by "
            f"{given}"
        )
    if (waiting := machine.waiting) is not None:
        waited_for = " and ".join(waiting.accounts) or "the scope's account"
        yield one_line(
            f"{waiting.stage} fired at {instant(waiting.since)}, and its close waits for {waited_for}, "
            f"{_why_waiting(machine.scope)}, until {instant(waiting.until)} or while its triggers stay true"
        )
    suspected = machine.suspected
    if suspected is not None and (suspected.until is None or suspected.until > now):
        yield one_line(
            f"lock on suspicion, {suspected.mode} until {instant(suspected.until)}: {suspected.stage} fires if the "
            "fall of equity turns out to be a loss; it has not fired"
        )


def _why_waiting(scope: str) -> str:
    cannot = "which cannot be read"
    return f"where its own part is unknown, or {cannot}" if scope.startswith("strategy/") else cannot


def dated_notice(notice: Notice) -> str:
    """A notice in one line, after its time."""
    return f"{instant(notice.as_of)}  {notice_line(notice)}"


def notice_line(notice: Notice) -> str:
    """A notice in one line, without its time."""
    whose = notice.policy if notice.policy == notice.scope else f"{notice.policy} on {notice.scope}"
    return one_line(f"{notice.severity}: {whose}: {notice.text}")
