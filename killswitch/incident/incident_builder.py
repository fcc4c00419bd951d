"""From a store to the record of one incident, with who was notified of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec import structs

from killswitch.incident.notify.message import Message, decode_message
from killswitch.incident.record.checklist import StartedAs, checklist, next_commands
from killswitch.incident.record.close_causes import text_of
from killswitch.incident.record.closed_positions import (
    ClosedPosition,
    closed_by_request,
    closed_positions,
    credit_own_decisions,
)
from killswitch.incident.record.decision_basis import first_hops
from killswitch.incident.record.document import (
    Course,
    Ended,
    Incident,
    Item,
    Moment,
    OrderOutcome,
    Person,
    PositionLeft,
    Reason,
    Reset,
    RunbookFacts,
    Step,
)
from killswitch.incident.record.equity_curve import course_in
from killswitch.incident.record.firing import Acted, firing_of
from killswitch.incident.record.lifetime import Life, Note, note_of
from killswitch.incident.record.order_lines import OrderLine
from killswitch.incident.record.orders import endings, money_of, outcomes, positions, stage_of
from killswitch.incident.record.remarks import remarks
from killswitch.incident.record.results import Result, kept_snapshot, result_of
from killswitch.incident.record.timeline import Suspected, timeline
from killswitch.incident.record.totals import Totals, totals_of
from killswitch.incident.record.unprotected import Exposure
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import Delivery, IncidentStore, Outbox
from killswitch.render.formats import instant, lasting

LOOKED_THROUGH = 10_000
"""How many of the newest notices are looked through for those of an incident."""

_SETTLED = ("flat", "at target", "nothing to close", "recorded only", "partly recorded only")


def incident_of(store: IncidentStore, life: Life, started: StartedAs, now: datetime | None = None) -> Incident:
    """The record of one incident. `started`: where the commands find the store and the policies.

    `now`: the last tick on this store, where it is known; an open incident lasts until then.
    """
    opening, highest = life.decisions[0], life.highest
    note = note_of(store, opening)
    acted = [_acted(store, decision, note) for decision in life.decisions]
    firings, orders = tuple(each.firing for each in acted), _orders(acted)
    came = _came_of(store, acted)
    reset = _reset(life.reset)
    closed_at = _closed_at(life, came, reset)
    notices = _notices(store, opening, closed_at)
    told = told_of(store, {each.decision.id for each in acted} | ({reset.decision} if reset else set()))
    recorded = [(each.firing, each.journal, each.result, each.snapshot) for each in acted]
    suspicions = [_suspected(store, decision) for decision in life.suspicions]
    moments = timeline(recorded, notices, delivery_moments(told), reset, suspicions)
    newest = max(moment.at for moment in moments)
    as_of = closed_at if closed_at is not None else max(newest, now or newest)
    course = course_in(store, opening, closed_at)
    currency = next((each.currency for each in firings if each.currency), None)
    money = money_of(came.lines, currency, swept=bool(closed_by_request(came.became, came.swept)))
    reason = _declared(opening)
    doubts = _doubts(acted, note, course)
    facts = _facts(note, highest)
    is_open = closed_at is None
    return Incident(
        id=life.id, title=_title(highest),
        policy=opening.policy, scope=opening.scope, mode=opening.mode, by_hand=life.by_hand,
        state="open" if is_open else "closed",
        opened_at=opening.as_of, closed_at=closed_at, lasted=lasting(as_of - opening.as_of),
        level=highest.level,
        stage=stage_of(highest),
        as_of=as_of,
        firings=firings,
        reset=reset,
        timeline=moments,
        orders=orders,
        endings=came.ended,
        left=came.left,
        settled=came.settled,
        money=money,
        course=course,
        contacts=facts.contacts, escalation=facts.escalation, links=facts.links,
        checklist=checklist(
            firings, orders, came.ended, came.left, came.settled, money, item(told), doubts, reason
        ),
        commands=next_commands(
            life.id, opening.scope, [highest.id], started, is_open=is_open and not life.by_hand,
            unfinished=came.unfinished or came.partly, cause=opening.cause or "operator",
        ),
        doubts=doubts,
        reason=reason,
        totals=came.totals,
        positions=came.became,
        exposures=came.uncovered,
        remarks=_remarks(acted, orders, came, currency),
        swept=came.swept,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Came:
    """What came of the decisions of an incident: of their orders, and of the positions that they were about.

    `left` is still to be closed, or not known. `unfinished`: something is; `partly`: some was recorded only.
    """

    lines: Sequence[OrderLine]
    became: tuple[ClosedPosition, ...]
    uncovered: tuple[Exposure, ...]
    left: tuple[PositionLeft, ...]
    settled: tuple[PositionLeft, ...]
    ended: tuple[Ended, ...]
    swept: tuple[str, ...]
    totals: Totals
    unfinished: bool
    partly: bool


def _came_of(store: IncidentStore, acted: Sequence[Acted]) -> _Came:
    results = [each.result for each in acted]
    lines = [line for each in results for line in each.orders]
    became = closed_positions((each.decision, each.journal, each.result.orders, each.snapshot) for each in acted)
    became = credit_own_decisions(store, became, acted[0].decision.as_of, {each.decision.id for each in acted})
    held = positions([(each.decision, each.journal) for each in acted], became)
    left = tuple(each for each in held if each.contracts is None or each.to_close)
    is_over = all(each.standing != "closing" for each in results)
    totals = totals_of(lines, [each.seen_at for each in became if each.seen_at], ended=is_over)
    return _Came(
        lines=lines,
        became=became,
        uncovered=tuple(exposure for each in results for exposure in each.exposures),
        left=left,
        settled=tuple(each for each in held if each.contracts is not None and not each.to_close),
        ended=tuple(one for each in acted for one in endings(each.decision, each.journal, each.result)),
        swept=tuple(dict.fromkeys(name for each in results for name in each.swept)),
        totals=structs.replace(totals, took=_took(results)),
        unfinished=bool(left) or any(each.standing not in _SETTLED for each in results),
        partly=any(each.standing == "partly recorded only" for each in results),
    )


def _remarks(
    acted: Sequence[Acted], orders: tuple[OrderOutcome, ...], came: _Came, currency: str | None
) -> tuple[str, ...]:
    hops = {key for each in acted for key in first_hops(each.decision)}
    unsent = tuple(dict.fromkeys(account for each in acted for account in each.result.unsent))
    return remarks(orders, came.became, came.uncovered, came.swept, currency, hops, unsent)


def _closed_at(life: Life, came: _Came, reset: Reset | None) -> datetime | None:
    """When it was reset; of a close by hand without a reset, when the last of it ended."""
    if reset is not None:
        return reset.at
    if not life.by_hand or came.unfinished:
        return None
    return max((each.at for each in came.ended if each.at is not None), default=life.decisions[0].as_of)


def _acted(store: IncidentStore, decision: Decision, note: Note) -> Acted:
    whole = store.decision(decision.id)
    snapshot: Snapshot | None = None if whole is None else kept_snapshot(whole.snapshot)
    journal = decode_all(store.journal(decision.id))
    result = result_of(decision, journal, snapshot)
    return Acted(decision, firing_of(decision, result, journal, snapshot, note), journal, result, snapshot)


def _took(results: Sequence[Result]) -> float | None:
    """The time of the only close of the incident; None of several: the time between them belongs to none."""
    took = [each.totals.took for each in results if each.orders]
    return took[0] if len(took) == 1 else None


def _suspected(store: IncidentStore, decision: Decision) -> Suspected:
    whole = store.decision(decision.id)
    snapshot = None if whole is None else kept_snapshot(whole.snapshot)
    return Suspected(decision, decode_all(store.journal(decision.id)), snapshot)


def _orders(acted: Sequence[Acted]) -> tuple[OrderOutcome, ...]:
    found: list[OrderOutcome] = []
    for each in acted:
        found += outcomes(each.decision, each.result, len(found) + 1)
    return tuple(found)


def _reset(decision: Decision | None) -> Reset | None:
    return None if decision is None else Reset(decision.id, decision.as_of, decision.author, decision.reason)


def _title(highest: Decision) -> str:
    if highest.kind == "manual":
        said = text_of(highest.cause)
        return f"{'Close by hand' if said is None else said.heading} on {highest.scope}"
    return f"{stage_of(highest)} on {highest.scope}"


def _declared(opening: Decision) -> Reason | None:
    said = text_of(opening.cause)
    return None if said is None or opening.cause is None else Reason(opening.cause, said.heading, said.tone)


def _notices(store: IncidentStore, opening: Decision, closed_at: datetime | None) -> list[Notice]:
    """Notices about the policy on its scope, and the runner's own, while the incident was open."""
    mine = {(opening.policy, opening.scope), ("runner", "runner")}
    found = [
        notice
        for notice in store.notices(LOOKED_THROUGH)
        if (notice.policy, notice.scope) in mine
        and notice.as_of >= opening.as_of
        and (closed_at is None or notice.as_of <= closed_at)
    ]
    return found[::-1]


def _facts(note: Note, highest: Decision) -> RunbookFacts:
    """Who is to be reached: as the runbook of the highest stage says, and all whom the others add."""
    first = note.runbooks.get(highest.stage or "", RunbookFacts(""))
    others = [facts for stage, facts in note.runbooks.items() if stage != highest.stage]
    contacts: dict[Person, None] = dict.fromkeys((*first.contacts, *(c for each in others for c in each.contacts)))
    steps: tuple[Step, ...] = first.escalation or next((each.escalation for each in others if each.escalation), ())
    return RunbookFacts(first.name, contacts=tuple(contacts), escalation=steps, links=first.links)


def _doubts(acted: Sequence[Acted], note: Note, course: Course | None) -> tuple[str, ...]:
    """What could not be found out, in words."""
    fired = [each.firing for each in acted if each.decision.kind != "manual"]
    doubts = []
    if fired and note.policy is None:
        doubts.append("the policy's lines are unknown: its policy set was not run on this store")
    doubts += [
        f"no readable snapshot was kept with decision {each.firing.decision}" for each in acted if not each.snapshot
    ]
    if fired and course is None:
        doubts.append("no course of equity was kept")
    return tuple(doubts)


DELIVERIES_LOOKED_THROUGH = 10_000
"""How many of the newest notifications are looked through for those of an incident."""

_KEY, _TITLE = "notified", "Notifications sent"

Told = tuple[Delivery, Message]


def told_of(store: Outbox, decisions: Collection[str]) -> list[Told]:
    """Every notification about the decisions, oldest first."""
    found = []
    for delivery in reversed(store.deliveries(DELIVERIES_LOOKED_THROUGH)):
        try:
            message = decode_message(delivery.message.body)
        except msgspec.DecodeError:
            continue  # another version's: what it is about cannot be told
        if message.decision in decisions:
            found.append((delivery, message))
    return found


def item(told: Sequence[Told]) -> Item:
    """The checklist's line: proved where every message was delivered."""
    if not told:
        return Item(_KEY, _TITLE, "open", "no notification is recorded: tell the desk yourself")
    states = Counter(delivery.state for delivery, _ in told)
    targets = ", ".join(dict.fromkeys(delivery.message.target for delivery, _ in told))
    if states["delivered"] == len(told):
        newest = max(delivery.ended_at or delivery.message.at for delivery, _ in told)
        count = f"{len(told)} message{'' if len(told) == 1 else 's'}"
        return Item(_KEY, _TITLE, "proved", f"{count} delivered to {targets}, last at {instant(from_micros(newest))}")
    words = [f"{states['pending']} pending"] if states["pending"] else []
    words += [f"{states['given_up']} given up"] if states["given_up"] else []
    why = next((f": {delivery.error}" for delivery, _ in told if delivery.state != "delivered" and delivery.error), "")
    return Item(_KEY, _TITLE, "open", f"{' and '.join(words)} of {len(told)} to {targets}{why}")


def delivery_moments(told: Sequence[Told]) -> list[Moment]:
    """When each message arrived, or was given up."""
    words = {"delivered": "told", "given_up": "could not tell"}
    return [
        Moment(from_micros(delivery.ended_at), "told", None,
               f"{words[delivery.state]} {delivery.message.target}: {message.title}")
        for delivery, message in told
        if delivery.ended_at is not None and delivery.state in words
    ]  # fmt: skip
