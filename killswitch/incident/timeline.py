"""What happened when: every recorded moment of an incident in one order of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from killswitch.incident.causes import by_hand
from killswitch.incident.order_lines import number
from killswitch.incident.record import Firing, Moment, MomentKind, Reset
from killswitch.incident.results import Result
from killswitch.model.decision import Notice
from killswitch.model.store import JournalEntry

_TOGETHER = 4
"""So many like moments in one second become one line."""
_NAMED = 6

_KINDS: Mapping[str, MomentKind] = {"stage": "fired", "hand": "hand", "hedge": "hedge"}
_WORDS = {
    "acknowledged": "rests at the venue",
    "unknown": "got no answer that says what happened",
    "rejected": "was rejected",
    "absent": "never reached the venue",
    "filled": "was filled",
    "set_aside": "is set aside",
    "abandoned": "is asked about no more",
}


def timeline(
    firings: Sequence[tuple[Firing, Sequence[JournalEntry], Result]],
    notices: Iterable[Notice],
    told: Iterable[Moment],
    reset: Reset | None,
) -> tuple[Moment, ...]:
    """Triggers, firings, locks, orders, answers, verifications, ends, notices, messages and the reset, oldest first."""
    moments: list[Moment] = [*told]
    for firing, journal, result in firings:
        moments += _triggers(firing)
        moments.append(Moment(firing.at, _KINDS[firing.kind], firing.level or None, _fired(firing)))
        moments += _journal(journal)
        moments += _ends(journal, result)
    moments += [Moment(each.as_of, "notice", None, f"{each.severity}: {each.text}") for each in notices]
    if reset is not None:
        by = reset.author or "the stage's own condition"
        moments.append(Moment(reset.at, "reset", None, f"reset by {by}: {reset.reason or 'no reason given'}"))
    return tuple(sorted(dict.fromkeys(moments), key=lambda moment: moment.at))


def _triggers(firing: Firing) -> Iterator[Moment]:
    for trigger in firing.triggers:
        if trigger.true_since is not None:
            yield Moment(trigger.true_since, "trigger", firing.level or None, f"trigger {trigger.name} became true")


def _fired(firing: Firing) -> str:
    if firing.kind == "hand":
        return f"{by_hand(firing.cause)} by {firing.author or 'unknown'}: {firing.reason or 'no reason given'}"
    if firing.kind == "hedge":
        return f"a temporary hedge was decided on: {firing.reason or 'no reason given'}"
    confirmed = ", ".join(trigger.name for trigger in firing.triggers)
    acted = "" if firing.acted else "; recorded only, nothing is sent"
    return f"level {firing.level} {firing.stage} fired ({confirmed or 'no trigger recorded'} confirmed){acted}"


def _journal(journal: Sequence[JournalEntry]) -> Iterator[Moment]:
    """Orders and answers; many like ones in one second are one line, because every order has a row of its own."""
    together: dict[tuple[str, str, datetime], list[tuple[JournalEntry, MomentKind, str]]] = {}
    for entry in journal:
        said = _said(entry)
        if said is not None:
            kind, what, text = said
            key = (entry.kind, what, entry.at.replace(microsecond=0))
            together.setdefault(key, []).append((entry, kind, text))
    for (_, what, _), found in together.items():
        if len(found) < _TOGETHER:
            yield from (Moment(entry.at, kind, None, text) for entry, kind, text in found)
            continue
        symbols = list(dict.fromkeys(entry.symbol or "?" for entry, _, _ in found))
        more = f" and {len(symbols) - _NAMED} more" if len(symbols) > _NAMED else ""
        entry, kind, _ = found[0]
        yield Moment(entry.at, kind, None, f"{len(found)} times: {what} ({', '.join(symbols[:_NAMED])}{more})")


def _said(entry: JournalEntry) -> tuple[MomentKind, str, str] | None:
    """(kind, what happened, what happened to what); None for entries that are no news of their own."""
    where = f"{entry.symbol} {entry.position_side or ''}".rstrip() + f" on {entry.account}"
    data = entry.data
    match entry.kind:
        case "sending":
            amount = f"{data.get('side')} {data.get('amount')}"
            return ("sent", "an order was sent", f"order sent: {amount} {where}")
        case "acknowledged" | "unknown" | "rejected" | "absent" | "filled" | "set_aside" | "abandoned":
            empty = entry.kind == "filled" and number(entry, "filled") == 0
            what = "ended without a fill" if empty else _WORDS[entry.kind]
            return ("answered", f"an order {what}", f"the order on {where} {what}{_detail(entry)}")
        case "cancelled":
            text = f"resting order {data.get('order')} of {entry.symbol} on {entry.account} is cancelled"
            return ("answered", "a resting order is cancelled", text)
        case "verified":
            held = f"{data.get('position')} (target {data.get('target')})"
            return ("verified", "the venue showed a position", f"the venue shows {held} of {where}")
        case "locked":
            return ("lock", "lock written", f"lock of {data.get('scope')} written: {data.get('status')}")
    return _protection(entry, where)


def _protection(entry: JournalEntry, where: str) -> tuple[MomentKind, str, str] | None:
    """The same of whole books, and of orders that protect a position."""
    data = entry.data
    match entry.kind:
        case "swept":
            what = "a whole book was asked to be closed"
            return ("sent", what, f"the whole book of {entry.account} was asked to be closed in one request")
        case "unprotected":
            text = f"protective order {data.get('order')} of {where} is to be cancelled, because it blocks the close"
            return ("protection", "a protective order is to be cancelled", text)
        case "protected":
            text = f"protection of {where} is to be put back: {data.get('amount')}, trigger {data.get('trigger_price')}"
            return ("protection", "protection is to be put back", text)
        case "guarded":
            text = f"protection of {where} in place of {data.get('for')}: {data.get('state') or 'unknown'}"
            return ("protection", "the venue answered about protection", text)
    return None


def _detail(entry: JournalEntry) -> str:
    data = entry.data
    if entry.kind == "filled":
        state = data.get("state")
        price = f" at {data['price']}" if data.get("price") else ""
        return f": {data.get('filled')}{price}" + ("" if state in (None, "filled") else f" ({state})")
    said = "; ".join(each for each in (data.get("reason"), data.get("text")) if each)
    return f": {said}" if said else ""


def _ends(journal: Sequence[JournalEntry], result: Result) -> Iterator[Moment]:
    for ending in result.endings:
        why = f": {ending.reason}" if ending.reason else ""
        said = "every target is reached, as the venue itself shows" if ending.status == "flat" else ending.status
        yield Moment(ending.at, "finished", None, f"closing on {ending.account} ended, {said}{why}")
    for entry in journal:
        if entry.kind == "finished" and entry.account is None and entry.data.get("status") != "locked":
            text = f"lock of {entry.data.get('scope') or 'the scope'}: {entry.data.get('status') or 'ended'}"
            yield Moment(entry.at, "lock", None, text)
