"""Builds the record of one incident from a store, with the notifications that were sent about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from msgspec.structs import replace

from killswitch.incident.notify.message import Message, decode_message
from killswitch.incident.record.checklist import StartedAs, checklist, next_commands
from killswitch.incident.record.close_causes import DRILL, cause_text
from killswitch.incident.record.closed_positions import (
    ClosedPosition,
    closed_by_request,
    closed_positions,
    credit_own_decisions,
)
from killswitch.incident.record.decision_basis import first_hops, stage_text
from killswitch.incident.record.document import (
    ChecklistItem,
    DeclaredReason,
    EquityCurve,
    Incident,
    IncidentReset,
    RunbookFacts,
    SidePnl,
    TimelineEntry,
)
from killswitch.incident.record.equity_curve import read_curve
from killswitch.incident.record.firing import build_firing, common_currency, is_part_of_accounts, scope_accounts
from killswitch.incident.record.first_minute import next_stage_text
from killswitch.incident.record.incident_books import books_of, newest_exposure
from killswitch.incident.record.incident_decisions import IncidentDecisions, IncidentNote, read_note
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.orders import account_closes, close_money, outcomes, positions_held, positions_left
from killswitch.incident.record.remarks import obstacles, remarks
from killswitch.incident.record.results import RecordedDecision, Result, read_decision
from killswitch.incident.record.timeline import holds_meanwhile, timeline
from killswitch.incident.record.totals import Totals, count_orders
from killswitch.journal.entries import GivenUp
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import from_micros
from killswitch.model.store import ROUTING, Delivery, IncidentStore, Outbox
from killswitch.planning.routing.state import read_routing
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.render.formats import count_of, duration_text, instant

MOST_NOTICES = 10_000
"""The number of newest notices that are searched for those of an incident."""

_SETTLED, _PARTLY = ("flat", "at target", "nothing to close", "recorded only"), "partly recorded only"


def incident_of(
    store: IncidentStore,
    incident: IncidentDecisions,
    run: StartedAs,
    now: datetime | None = None,
    machines: Sequence[MachineStatus] = (),
) -> Incident:
    """Return the record of one incident.

    `run` says where the commands find the store and the policies. `now` is the last tick on this store where it is
    known; an open incident lasts until then. `machines`: the scopes after that tick.
    """
    note = read_note(store, incident.decisions[0])
    recorded = [read_decision(store, decision) for decision in incident.decisions]
    notifications = notifications_about(store, {it.id for it in (*incident.decisions, *filter(None, [incident.reset]))})
    found = _recorded_facts(store, incident, note, recorded, notifications)
    if run.is_drill:
        found = replace(found, title=f"{DRILL}{found.title}", reason=REHEARSED)
    as_of = found.closed_at or max(found.as_of, now or found.as_of)
    hops = {key for each in recorded for key in first_hops(each.decision)}
    unsent = dict.fromkeys(account for each in recorded for account in each.result.unsent)
    currencies = dict.fromkeys((each.account for each in found.positions), found.money.currency)
    found = replace(
        found,
        as_of=as_of,
        lasted=duration_text(as_of - found.opened_at),
        doubts=_missing_facts(recorded, note, found.course),
        remarks=remarks(found, hops, unsent, currencies),
        ahead=None if found.state == "closed" else _ahead(found, note, machines),
    )
    return replace(
        found,
        checklist=checklist(found, notification_item(notifications)),
        commands=tuple(
            next_commands(
                found, run, is_unfinished=_is_unfinished(found, *_SETTLED),
                is_escalating=_is_escalating(store, incident),
            )
        ),
    )  # fmt: skip


def _is_escalating(store: IncidentStore, incident: IncidentDecisions) -> bool:
    """Whether a firing of the incident escalates until somebody acknowledges it."""
    mine = {each.id for each in incident.decisions}
    return any(page.announcement.decision in mine for page in read_routing(store.live(ROUTING)).unacknowledged)


def _ahead(found: Incident, note: IncidentNote, machines: Sequence[MachineStatus]) -> str | None:
    """The stage above the one in force, with its distance in the newest tick; None of a close by hand."""
    if found.by_hand:
        return None
    if note.policy is None or not note.policy.ladder:
        return "unknown: the stages of the policy were not kept"
    mine = next((each for each in machines if (each.policy, each.scope) == (found.policy, found.scope)), None)
    last = found.firings[-1]
    return next_stage_text(
        max(found.level, 0 if mine is None else mine.level), note.policy.ladder, note.policy.triggers,
        () if mine is None else mine.triggers, last.equity, last.currency,
    )  # fmt: skip


def _recorded_facts(
    store: IncidentStore,
    incident: IncidentDecisions,
    note: IncidentNote,
    recorded: Sequence[RecordedDecision],
    notifications: Sequence[Notification],
) -> Incident:
    """Return the recorded facts of the incident up to its newest moment, without conclusions."""
    opening, highest, ending = incident.decisions[0], incident.highest, incident.reset
    results = [each.result for each in recorded]
    lines = [line for each in results for line in each.orders]
    firings = tuple(build_firing(each, note) for each in recorded)
    closed = _positions(store, recorded)
    held = positions_left(recorded, closed)
    whole_book_accounts = tuple(dict.fromkeys(name for each in results for name in each.swept))
    currency = next((each.currency for each in firings if each.currency), None)
    facts = _contacts_of(note, highest)
    found = Incident(
        id=incident.id, title=_title(highest),
        policy=opening.policy, scope=opening.scope, mode=opening.mode, by_hand=incident.is_manual,
        state="open", opened_at=opening.as_of, closed_at=None, lasted="",
        level=highest.level,
        stage=stage_text(highest),
        as_of=opening.as_of,
        firings=firings,
        reset=None if ending is None else IncidentReset(ending.id, ending.as_of, ending.author, ending.reason),
        timeline=(),
        orders=outcomes(results),
        endings=tuple(one for each in recorded for one in account_closes(each)),
        left=tuple(each for each in held if each.contracts is None or each.to_close),
        settled=tuple(each for each in held if each.contracts is not None and not each.to_close),
        money=close_money(lines, currency, has_whole_book=bool(closed_by_request(closed, whole_book_accounts))),
        course=None,
        contacts=facts.contacts, escalation=facts.escalation, links=facts.links,
        checklist=(), commands=(), doubts=(),
        reason=_declared_reason(opening),
        totals=_totals(results, lines, closed),
        positions=closed,
        exposures=tuple(exposure for each in results for exposure in each.exposures),
        swept=whole_book_accounts,
        held=positions_held(recorded, closed),
        sides=_sides(recorded[0], lines),
    )  # fmt: skip
    closed_at = _closed_at(found, recorded)
    suspicions = [read_decision(store, decision) for decision in incident.suspicions]
    notices = _notices(store, opening, closed_at)
    holds = holds_meanwhile(store, recorded[0], closed_at)
    moments = timeline(firings, recorded, notices, delivery_moments(notifications), found.reset, suspicions, holds)
    books = books_of(store, incident.id, is_closed=closed_at is not None)
    return replace(
        found,
        state="open" if closed_at is None else "closed",
        closed_at=closed_at,
        as_of=max(moment.at for moment in moments),
        timeline=moments,
        course=read_curve(store, incident.decisions, closed_at),
        books=books,
        newest=newest_exposure(books, found.scope, firings[-1].at),
        obstacles=obstacles(notices, found.left) if closed_at is None else (),
    )


def _sides(opening: RecordedDecision, orders: Sequence[OrderOutcome]) -> tuple[SidePnl, ...]:
    """P&L by side: a side is known only if each of its positions, or of its filled orders, is."""
    if opening.snapshot is None:
        return ()
    at_work = opening.decision.accounts_at_work
    accounts = scope_accounts(opening.decision.scope, opening.snapshot)
    accounts = accounts or tuple(each for each in opening.snapshot.accounts if each.account in at_work)
    if common_currency(accounts) is None:
        return ()
    rows = [row for each in accounts for row in each.positions or () if row.contracts]
    is_read = all(each.positions is not None for each in accounts)
    found = []
    for side in ("long", "short"):
        open_ones = [row.unrealized_pnl for row in rows if row.side == side]
        filled = [each.realised for each in orders if each.position_side == side and each.filled]
        if open_ones or filled or not is_read:
            found.append(SidePnl(side, _sum_of(open_ones) if is_read else None, _sum_of(filled)))
    return tuple(found)


def _sum_of(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [each for each in amounts if each is not None]
    return sum(known, Decimal(0)) if len(known) == len(amounts) else None


def _positions(store: IncidentStore, recorded: Sequence[RecordedDecision]) -> tuple[ClosedPosition, ...]:
    positions = closed_positions((each.decision, each.journal, each.result.orders, each.snapshot) for each in recorded)
    return credit_own_decisions(store, positions, recorded[0].decision.as_of, {each.decision.id for each in recorded})


def _totals(results: Sequence[Result], lines: Sequence[OrderOutcome], positions: Sequence[ClosedPosition]) -> Totals:
    """Sum up the orders. Several closes have no common duration, because the time between them belongs to none."""
    is_over = all(each.standing != "closing" for each in results)
    durations = [each.totals.took for each in results if each.orders]
    totals = count_orders(lines, [each.seen_at for each in positions if each.seen_at], ended=is_over)
    return replace(totals, took=durations[0] if len(durations) == 1 else None)


def _is_unfinished(incident: Incident, *settled: str) -> bool:
    """Whether something is left to close, or the work on a decision has not ended in one of the `settled` ways."""
    return bool(incident.left) or any(each.standing not in settled for each in incident.firings)


def _closed_at(incident: Incident, recorded: Sequence[RecordedDecision]) -> datetime | None:
    """Return when the incident was reset; for a manual close without a reset, when its last account ended.

    A manual close that an operator has given up has ended too, whatever is left.
    """
    if incident.reset is not None:
        return incident.reset.at
    if not incident.by_hand:
        return None
    if _is_unfinished(incident, *_SETTLED, _PARTLY) and not _is_given_up(incident, recorded):
        return None
    return max((each.at for each in incident.endings if each.at is not None), default=incident.opened_at)


def _is_given_up(incident: Incident, recorded: Sequence[RecordedDecision]) -> bool:
    """Whether every close has ended, and an operator gave up each that did not end flat."""
    entries = [entry for each in recorded for entry in each.journal if isinstance(entry, GivenUp)]
    given_up = {(entry.decision, entry.account) for entry in entries}
    short = {(each.decision, each.account) for each in incident.endings if each.status != "flat"}
    return bool(given_up) and short <= given_up


REHEARSED: Final = DeclaredReason(
    "drill", "DRILL", "This is a DRILL on the paper market. Nothing was wrong, and no order left the process."
)
"""The reason of every incident of a drill, whichever stage of it fired."""


def _title(highest: Decision) -> str:
    if highest.kind == "manual":
        declared = cause_text(highest.cause)
        return f"{'Close by hand' if declared is None else declared.heading} on {highest.scope}"
    return f"{stage_text(highest)} on {highest.scope}"


def _declared_reason(opening: Decision) -> DeclaredReason | None:
    declared = cause_text(opening.cause)
    return (
        None
        if declared is None or opening.cause is None
        else DeclaredReason(opening.cause, declared.heading, declared.tone)
    )


def _notices(store: IncidentStore, opening: Decision, closed_at: datetime | None) -> list[Notice]:
    """Return the notices about the policy on its scope, and the runner's own, while the incident was open."""
    mine = {(opening.policy, opening.scope), ("runner", "runner")}
    found = [
        each
        for each in store.notices(MOST_NOTICES)
        if (each.policy, each.scope) in mine and opening.as_of <= each.as_of <= (closed_at or each.as_of)
    ]
    return found[::-1]


def _contacts_of(note: IncidentNote, highest: Decision) -> RunbookFacts:
    """Return the contacts: those of the highest stage's runbook first, then those that other runbooks add."""
    first = note.runbooks.get(highest.stage or "", RunbookFacts(""))
    others = [facts for stage, facts in note.runbooks.items() if stage != highest.stage]
    contacts = dict.fromkeys(contact for each in (first, *others) for contact in each.contacts)
    steps = next((each.escalation for each in (first, *others) if each.escalation), ())
    return RunbookFacts(first.name, contacts=tuple(contacts), escalation=steps, links=first.links)


def _missing_facts(
    recorded: Sequence[RecordedDecision], note: IncidentNote, curve: EquityCurve | None
) -> tuple[str, ...]:
    """Return what could not be found out, as sentences."""
    fired = any(each.decision.kind != "manual" for each in recorded)
    missing = []
    if fired and note.policy is None:
        missing.append("the policy's lines are unknown: no run on this store used its policy set")
    missing += [f"no readable snapshot was kept with decision {it.decision.id}" for it in recorded if not it.snapshot]
    has_equity = not any(is_part_of_accounts(each.decision.scope) for each in recorded)
    if fired and curve is None and has_equity:
        missing.append("no equity curve was kept")
    return tuple(missing)


MOST_DELIVERIES = 10_000
"""The number of newest notifications that are searched for those of an incident."""

_KEY, _TITLE = "notified", "Notifications sent"

Notification = tuple[Delivery, Message]


def notifications_about(store: Outbox, decisions: Collection[str]) -> list[Notification]:
    """Return every notification about the decisions, oldest first."""
    found = []
    for delivery in reversed(store.deliveries(MOST_DELIVERIES)):
        try:
            message = decode_message(delivery.message.body)
        except msgspec.DecodeError:
            continue  # written by another version: its subject is unknown
        if message.decision in decisions:
            found.append((delivery, message))
    return found


def notification_item(notifications: Sequence[Notification]) -> ChecklistItem:
    """Return the checklist item for notifications: proved when every message was delivered."""
    if not notifications:
        return ChecklistItem(_KEY, _TITLE, "open", "no notification is recorded: inform the desk yourself")
    sent = [delivery for delivery, _ in notifications]
    states = Counter(each.state for each in sent)
    targets = ", ".join(dict.fromkeys(each.message.target for each in sent))
    if states["delivered"] == len(sent):
        newest = instant(from_micros(max(each.ended_at or each.message.at for each in sent)))
        count = count_of(len(sent), "message")
        return ChecklistItem(_KEY, _TITLE, "proved", f"{count} delivered to {targets}, last at {newest}")
    counts = [f"{states[each]} {each.replace('_', ' ')}" for each in ("pending", "given_up") if states[each]]
    why = next((f": {each.error}" for each in sent if each.state != "delivered" and each.error), "")
    return ChecklistItem(_KEY, _TITLE, "open", f"{' and '.join(counts)} of {len(sent)} to {targets}{why}")


def delivery_moments(notifications: Sequence[Notification]) -> list[TimelineEntry]:
    """Return when each message was delivered or given up."""
    texts = {"delivered": "notified", "given_up": "could not notify"}
    return [
        TimelineEntry(from_micros(delivery.ended_at), "told", None,
               f"{texts[delivery.state]} {delivery.message.target}: {message.title}")
        for delivery, message in notifications
        if delivery.ended_at is not None and delivery.state in texts
    ]  # fmt: skip
