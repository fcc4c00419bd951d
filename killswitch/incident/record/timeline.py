"""The timeline of an incident, and the resting orders that it cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from msgspec import Struct

from killswitch.incident.record.close_causes import command_text, manual_close_text
from killswitch.incident.record.document import Firing, IncidentReset, MomentKind, TimelineEntry
from killswitch.incident.record.filters import amount, place
from killswitch.incident.record.firing import scope_accounts
from killswitch.incident.record.order_outcomes import NEVER_REACHED
from killswitch.incident.record.results import RecordedDecision, Result
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Cancelled,
    Entry,
    Filled,
    Finished,
    Locked,
    Number,
    OrderDetached,
    OrderSending,
    Protected,
    ProtectionAnswered,
    Rejected,
    Undecodable,
    Unknown,
    Unprotected,
    Verified,
    WholeBookClose,
    is_plan,
    known,
    text_of,
)
from killswitch.model.decision import Cancel, Decision, Notice
from killswitch.model.effects import Lock, locked_place, of_kind
from killswitch.model.snapshot import Order, Snapshot
from killswitch.model.store import Store
from killswitch.render.formats import instant

HOLDS_SEARCHED = 1_000
"""The number of newest decisions that are searched for what was held by hand during an incident."""
LOCK_ENDS = ("lifted", "superseded by another lock", "the lock ran out before it was written")
"""The journal's words for a lock that is not in force any more."""

_LEAST_GROUPED = 4
"""This many similar moments within one second, with nothing else between them, become one line."""
_NAMED = 6

_ENDS: frozenset[MomentKind] = frozenset({"finished", "lock", "reset"})
"""Kinds that are sorted after the others of the same instant."""
_KINDS: Mapping[str, MomentKind] = {"stage": "fired", "hand": "hand", "hedge": "hedge", "breach": "breach"}
_ANSWER_TEXTS = {
    Acknowledged: "was accepted by the venue",
    Unknown: "has an unknown status",
    Rejected: "was rejected",
    Absent: NEVER_REACHED,
    Filled: "was filled",
    OrderDetached: "is detached",
    Abandoned: "is no longer queried",
}


class _Row(Struct, frozen=True):
    """A moment with the text under which similar ones are grouped; None for a moment that is never grouped."""

    moment: TimelineEntry
    like: str | None = None
    symbol: str = "?"


def timeline(
    firings: Iterable[Firing],
    recorded: Iterable[RecordedDecision],
    notices: Iterable[Notice],
    notifications: Iterable[TimelineEntry],
    reset: IncidentReset | None,
    suspicions: Iterable[RecordedDecision],
    holds: Iterable[TimelineEntry] = (),
) -> tuple[TimelineEntry, ...]:
    """Return all moments, oldest first: triggers, firings, locks, orders, answers, ends, notices, messages, the reset.

    `recorded` has the decision of each firing. `suspicions` are included although they fired nothing. `holds`: what was
    held by hand meanwhile.
    """
    moments: list[TimelineEntry] = [*notifications, *holds]
    orders: list[_Row] = []
    for firing, decided in zip(firings, recorded, strict=True):
        moments += _triggers(firing)
        moments.append(TimelineEntry(firing.at, _KINDS[firing.kind], firing.level or None, _fired(firing)))
        orders += _journal(decided)
        moments += _ends(decided.result)
        moments += _effect_ends(decided.journal)
    for each in suspicions:
        moments.append(TimelineEntry(each.decision.as_of, "suspicion", None, _suspicion(each)))
        orders += _journal(each)
        moments += _effect_ends(each.journal)
    moments += [TimelineEntry(notice.as_of, "notice", None, f"{notice.severity}: {notice.text}") for notice in notices]
    if reset is not None:
        by = reset.author or "the stage's own condition"
        moments.append(TimelineEntry(reset.at, "reset", None, f"reset by {by}: {reset.reason or 'no reason given'}"))
    before = [_Row(each) for each in dict.fromkeys(moments) if each.kind not in _ENDS]
    after = [_Row(each) for each in dict.fromkeys(moments) if each.kind in _ENDS]
    return tuple(_grouped(sorted((*before, *orders, *after), key=lambda row: row.moment.at)))


def _grouped(rows: Iterable[_Row]) -> Iterator[TimelineEntry]:
    """Combine similar moments in a row within one second into one line, because every order has a row of its own.

    A different moment between two separates them, so that a line never covers what came before and after it.
    """
    for (like, _), run in groupby(rows, key=lambda row: (row.like, row.moment.at.replace(microsecond=0))):
        found = list(run)
        if like is None or len(found) < _LEAST_GROUPED:
            yield from (row.moment for row in found)
            continue
        symbols = list(dict.fromkeys(row.symbol for row in found))
        more = f" and {len(symbols) - _NAMED} more" if len(symbols) > _NAMED else ""
        first = found[0].moment
        text = f"{len(found)} times: {like} ({', '.join(symbols[:_NAMED])}{more})"
        yield TimelineEntry(first.at, first.kind, None, text)


def _triggers(firing: Firing) -> Iterator[TimelineEntry]:
    for each in firing.triggers:
        if each.true_since is not None:
            yield TimelineEntry(each.true_since, "trigger", firing.level or None, f"trigger {each.name} became true")


def _fired(firing: Firing) -> str:
    why = firing.reason or "no reason given"
    if firing.kind == "hand":
        return f"{manual_close_text(firing.cause)} by {firing.author or 'unknown'}: {why}"
    if firing.kind == "hedge":
        return f"a temporary hedge was decided on: {why}"
    if firing.kind == "breach":
        return f"the stage answers a breach of its lock: {why}"
    confirmed = ", ".join(trigger.name for trigger in firing.triggers)
    remark = "" if firing.acted else "; recorded only, nothing is sent"
    return f"level {firing.level} {firing.stage} fired ({confirmed or 'no trigger recorded'} confirmed){remark}"


def _suspicion(suspected: RecordedDecision) -> str:
    decision = suspected.decision
    is_enforced = any(is_plan(entry) for entry in suspected.journal) or decision.is_withdrawal
    return f"{decision.reason or 'suspicion'}{'' if is_enforced else '; recorded only, nothing is locked'}"


def _journal(recorded: RecordedDecision) -> Iterator[_Row]:
    """Yield the rows of orders and answers."""
    resting = resting_orders(recorded.snapshot)
    kinds = {entry.client_order_id: entry.order for entry in recorded.journal if isinstance(entry, OrderSending)}
    for entry in recorded.journal:
        found = _entry_text(entry, kinds.get(entry.client_order_id), resting)
        if found is not None:
            kind, like, text = found
            yield _Row(TimelineEntry(entry.at, kind, None, text), like, entry.symbol or "?")


def _entry_text(entry: Entry, sent_as: str | None, resting: Resting) -> tuple[MomentKind, str, str] | None:
    """Return (kind, group text, text) of an entry; None for an entry without a moment of its own.

    `sent_as` is the kind of the order, where the journal has it.
    """
    where = place(entry.account, entry.symbol, entry.position_side)
    match entry:
        case OrderSending():
            return ("sent", "an order was sent", f"order sent: {entry.side} {_amount(entry.amount)} {where}")
        case Acknowledged() | Unknown() | Rejected() | Absent() | Filled() | OrderDetached() | Abandoned():
            what = _ANSWER_TEXTS[type(entry)]
            if isinstance(entry, Filled) and known(entry.filled) == 0:
                what = "ended without a fill"
            elif isinstance(entry, Acknowledged) and sent_as == "limit":
                what = "rests at the venue"
            return ("answered", f"an order {what}", f"the order on {where} {what}{_detail(entry)}")
        case Cancelled():
            return _cancelled(entry, resting)
        case Verified():
            shown = f"{_amount(entry.position)} (target {_amount(entry.target)})"
            return ("verified", "the venue showed a position", f"the venue shows {shown} of {where}")
        case Locked():
            return ("lock", "lock written", f"lock of {entry.scope} written: {entry.status}")
    return _protection(entry, where)


def _cancelled(entry: Cancelled, resting: Resting) -> tuple[MomentKind, str, str]:
    order = resting.get((entry.account, entry.symbol, entry.order))
    kind = cancel_kind(entry.why, order)
    was = "" if order is None else f": {order_terms(order)}"
    what = f"resting {kind} order" if kind else "resting order"
    text = f"{what} {entry.order} of {entry.symbol} on {entry.account} is cancelled{was}"
    return ("answered", f"a {what} is cancelled", text)


def _protection(entry: Entry, where: str) -> tuple[MomentKind, str, str] | None:
    """Return the same for whole-book closes, protective orders and undecodable entries."""
    match entry:
        case Undecodable():
            what = "an entry of the journal cannot be decoded"
            return ("answered", what, f"{what}, about {where}: {entry.why}")
        case WholeBookClose():
            what = "a whole-book close was requested"
            return ("sent", what, f"a whole-book close of {entry.account} was requested")
        case Unprotected():
            text = f"protective order {entry.order} of {where} is to be cancelled, because it blocks the close"
            return ("protection", "a protective order is to be cancelled", text)
        case Protected():
            amounts = f"{text_of(entry.amount)}, trigger {text_of(entry.trigger_price)}"
            text = f"protection of {where} is to be restored: {amounts}"
            return ("protection", "protection is to be restored", text)
        case ProtectionAnswered():
            text = f"protection of {where} in place of {entry.replaces}: {entry.state or 'unknown'}"
            return ("protection", "the venue answered about protection", text)
    return None


def _amount(value: Number) -> str | None:
    """Format a number as in the tables; text that is no number is returned as it is."""
    number = known(value)
    return text_of(value) if number is None else amount(number)


def _detail(entry: Entry) -> str:
    match entry:
        case Filled():
            price = f" at {_amount(entry.price)}" if text_of(entry.price) else ""
            state = "" if entry.state in (None, "filled") else f" ({entry.state})"
            return f": {_amount(entry.filled)}{price}{state}"
        case Unknown() | Rejected():
            detail = "; ".join(each for each in (entry.reason, entry.text) if each)
        case Absent() | OrderDetached() | Abandoned():
            detail = entry.text or ""
        case _:
            detail = ""
    return f": {detail}" if detail else ""


def _ends(result: Result) -> Iterator[TimelineEntry]:
    for ending in result.endings:
        why = f": {ending.reason}" if ending.reason else ""
        outcome = "the venue shows every position at its target" if ending.status == "flat" else ending.status
        if ending.at is not None:
            yield TimelineEntry(ending.at, "finished", None, f"the close on {ending.account} ended, {outcome}{why}")


def _effect_ends(journal: Sequence[Entry]) -> Iterator[TimelineEntry]:
    for entry in journal:
        if not isinstance(entry, Finished):
            continue
        if entry.effect is not None:
            yield TimelineEntry(entry.at, "finished", None, f"{entry.effect}: {entry.status or 'ended'}")
        elif entry.account is None and entry.status != "locked":
            text = f"lock of {entry.scope or 'the scope'}: {entry.status or 'ended'}"
            yield TimelineEntry(entry.at, "lock", None, text)


Resting = Mapping[tuple[str | None, str | None, str | None], Order]
"""Account, symbol and venue order id → the order."""

MOST_NAMED = 3
"""The number of orders of one kind that are named."""


def resting_orders(snapshot: Snapshot | None) -> Resting:
    """Return every order in the snapshot; empty where none was kept."""
    accounts = () if snapshot is None else snapshot.accounts
    return {(account.account, order.symbol, order.id): order for account in accounts for order in account.orders or ()}


def cancel_kind(why: str | None, order: Order | None) -> str:
    """Return `entry`, `protective` (with a trigger, or blocking a close) or `exit`; empty where it is unknown.

    `why` is the reason of the cancel, as it was decided and journaled.
    """
    if why != "all":
        return {"entry": "entry", "blocks the close": "protective"}.get(why or "", "")
    if order is None:
        return "exit or protective"
    return "exit" if order.trigger_price is None else "protective"


def order_terms(order: Order) -> str:
    """Format an order: `buy 1 at 50`, `sell 2, trigger 90`."""
    price = "" if order.price is None else f" at {amount(order.price)}"
    trigger = "" if order.trigger_price is None else f", trigger {amount(order.trigger_price)}"
    return f"{order.side} {amount(order.amount)}{price}{trigger}"


def cancel_lines(cancels: Sequence[Cancel], resting: Resting) -> Iterator[str]:
    """Yield the cancels: entries before the orders of the close, the rest after them; only the first few of many."""
    for when, why in (("first", "entry"), ("at the end", "all")):
        alike: dict[tuple[str, str, str], list[Cancel]] = {}
        for cancel in cancels:
            if cancel.why == why:
                kind = cancel_kind(why, resting.get(_key(cancel)))
                alike.setdefault((cancel.account, cancel.symbol, kind), []).append(cancel)
        for (account, symbol, kind), found in alike.items():
            of = f"{symbol} on {account}"
            if len(found) <= MOST_NAMED:
                yield from (f"cancel {when}: {kind} order {_named(each, resting)} of {of}" for each in found)
                continue
            named = ", ".join(_named(each, resting) for each in found[:MOST_NAMED])
            yield f"cancel {when}: {len(found)} {kind} orders of {of}: {named} and {len(found) - MOST_NAMED} more"


def _named(cancel: Cancel, resting: Resting) -> str:
    order = resting.get(_key(cancel))
    return cancel.order if order is None else f"{cancel.order} ({order_terms(order)})"


def _key(cancel: Cancel) -> tuple[str, str, str]:
    return (cancel.account, cancel.symbol, cancel.order)


def holds_meanwhile(store: Store, opening: RecordedDecision, closed_at: datetime | None) -> Iterator[TimelineEntry]:
    """Yield what people held by hand on a scope of the incident while it was open, newest first, and what ended that.

    Halts, pauses, locks and cancels; of those before it, the ones that were in force when it opened.
    """
    began, scopes = opening.decision.as_of, _scopes_of(opening)
    for each in (stored.decision for stored in store.decisions(HOLDS_SEARCHED)):
        is_mine = scopes is None or each.scope in scopes
        if not is_mine or not (each.is_hold or each.is_unlock) or (closed_at is not None and each.as_of > closed_at):
            continue
        if each.as_of < began and not _is_held_at(store, each, began):
            continue
        lock = of_kind(each.effects, Lock)
        where = each.scope if lock is None else locked_place(lock.order)
        end = "" if lock is None or lock.order.until is None else f", until {instant(lock.order.until)}"
        text = f"{command_text(each)} of {where} by {each.author or 'unknown'}: {each.reason or 'no reason given'}{end}"
        yield TimelineEntry(each.as_of, "hand", None, text)


def _scopes_of(opening: RecordedDecision) -> frozenset[str] | None:
    """The scopes that share an account with the incident; None: all."""
    decision = opening.decision
    if decision.scope == "portfolio" or opening.snapshot is None:
        return None
    names = {each.account for each in scope_accounts(decision.scope, opening.snapshot)} or set(decision.accounts)
    accounts = [each for each in opening.snapshot.accounts if each.account in names]
    own = (f"account/{each.account}" for each in accounts), (f"venue/{each.venue}" for each in accounts)
    return frozenset({"portfolio", decision.scope, *own[0], *own[1]})


def _is_held_at(store: Store, decision: Decision, at: datetime) -> bool:
    """Whether the lock of a command was written before `at`, and neither lifted nor over by then."""
    lock = of_kind(decision.effects, Lock)
    if lock is None or (lock.order.until is not None and lock.order.until <= at):
        return False
    ends = [each for each in decode_all(store.journal(decision.id)) if isinstance(each, Finished)]
    return not any(each.status in LOCK_ENDS and each.at <= at for each in ends)
