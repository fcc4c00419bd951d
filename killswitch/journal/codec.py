"""Rows of the journal ↔ typed entries: the one place where the keys of a row's data are written.

What this version writes is read back as it was, and encoded again it is the same row to the byte. What another version
wrote is read as far as it can be: a key that is missing is absent, one that nobody knows here is passed over, and a row
of an unknown kind is `Undecodable`. `decode` never raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final, get_args

from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Cancelled,
    Charged,
    Entry,
    Filled,
    Finished,
    GivenUp,
    Guarded,
    Locked,
    Number,
    OrderedLock,
    Planned,
    PositionKey,
    Protected,
    Recorded,
    Rejected,
    Sending,
    SetAside,
    Swept,
    Undecodable,
    Unknown,
    Unprotected,
    Unreadable,
    Verified,
    When,
    Whole,
    text_of,
)
from killswitch.model.instant import rfc3339
from killswitch.model.snapshot import Side
from killswitch.model.store import JournalEntry, JournalKind

Data = Mapping[str, str | None]
_Written = dict[str, str | None]

_KINDS: Final[Mapping[str, JournalKind]] = {kind: kind for kind in get_args(JournalKind)}
_YES: Final = "yes"
_LEFT: Final = "left "
"""In a `finished` row: `left SIDE SYMBOL` → contracts above the target."""
_SIDES: Final[Mapping[str, Side]] = {"long": "long", "short": "short"}


def decode(row: JournalEntry) -> Entry:
    """The typed entry of a row."""
    kind = _KINDS.get(row.kind)
    if row.unreadable is not None:
        why = "what it says cannot be read"
    elif kind is None:
        why = f"this version knows no entry of the kind {row.kind!r:.40}"
    else:
        return _decode(kind, row, row.data)
    return Undecodable(*_head(row), row=row, why=why)


def decode_all(rows: Iterable[JournalEntry]) -> tuple[Entry, ...]:
    """The typed entries of rows, in their order."""
    return tuple(map(decode, rows))


def encode(entry: Entry) -> JournalEntry:
    """The row of a typed entry."""
    if isinstance(entry, Undecodable):
        return entry.row
    return JournalEntry(
        entry.decision,
        entry.kind,
        entry.at,
        entry.account,
        entry.symbol,
        entry.position_side,
        entry.client_order_id,
        entry.attempt,
        _encode(entry),
        entry.sequence,
    )


def _decode(  # noqa: PLR0911, PLR0912 - a case for each kind of entry, and mypy says which one is missing
    kind: JournalKind, row: JournalEntry, data: Data
) -> Entry:
    head = _head(row)
    get = data.get
    match kind:
        case "planned":
            return _decode_planned(head, data)
        case "sending":
            return _decode_sending(head, data)
        case "acknowledged":
            return Acknowledged(*head, order=get("order"), filled=number(get("filled")))
        case "unknown":
            return Unknown(*head, reason=get("reason"), text=get("text"), state=get("state"))
        case "rejected":
            return Rejected(*head, reason=get("reason"), text=get("text"), order=get("order"))
        case "absent":
            return Absent(*head, text=get("text"), early="early" in data)
        case "filled":
            return Filled(
                *head,
                order=get("order"),
                state=get("state"),
                filled=number(get("filled")),
                price=number(get("price")),
                fee=number(get("fee")),
            )
        case "set_aside":
            return SetAside(*head, text=get("text"))
        case "abandoned":
            return Abandoned(*head, text=get("text"))
        case "swept":
            return Swept(*head)
        case "cancelled":
            return Cancelled(*head, order=get("order"), why=get("why"))
        case "unprotected" | "protected" | "guarded":
            return _decode_protection(kind, head, data)
        case "verified":
            position, target = number(get("position")), number(get("target"))
            return Verified(*head, position=position, target=target, is_last="left" in data)
        case "given_up":
            return GivenUp(*head, author=get("author"), reason=get("reason"), event=get("event"))
        case "locked":
            return Locked(*head, scope=get("scope"), status=get("status"))
        case "charged":
            return Charged(*head, fee=number(get("fee")), text=get("text"))
        case "finished":
            return Finished(
                *head,
                status=get("status"),
                reason=get("reason"),
                cost=number(get("cost")),
                delay=number(get("delay")),
                left=_left(data),
                scope=get("scope"),
                effect=get("effect"),
            )


def _decode_planned(head: _Head, data: Data) -> Planned:
    get = data.get
    return Planned(
        *head,
        contracts=number(get("contracts")),
        target=number(get("target")),
        mark=number(get("mark")),
        value=number(get("value")),
        lock=OrderedLock(get("lock"), get("scope"), _instant(get("until"))) if "lock" in data else None,
        effect=get("effect"),
    )


def _decode_sending(head: _Head, data: Data) -> Sending:
    get = data.get
    return Sending(
        *head,
        side=get("side"),
        amount=number(get("amount")),
        position=number(get("position")),
        order=get("order"),
        rung=_whole(get("rung")),
        price=number(get("price")),
        after=get("after"),
        mark=number(get("mark")),
        value=number(get("value")),
        valid_for=number(get("valid_for")),
    )


def _decode_protection(kind: JournalKind, head: _Head, data: Data) -> Entry:
    """The same of entries about protective orders."""
    get = data.get
    if kind == "guarded":
        return Guarded(*head, replaces=get("for"), state=get("state"), order=get("order"))
    if kind == "protected":
        return Protected(
            *head,
            replaces=get("for"),
            side=get("side"),
            amount=number(get("amount")),
            type=get("type"),
            price=number(get("price")),
            trigger_price=number(get("trigger_price")),
            trigger_when=get("trigger_when"),
        )
    return Unprotected(
        *head,
        order=get("order"),
        order_client_id=get("client_order_id"),
        side=get("side"),
        order_position_side=get("position_side"),
        amount=number(get("amount")),
        type=get("type"),
        price=number(get("price")),
        trigger_price=number(get("trigger_price")),
        trigger_when=get("trigger_when"),
    )


def _encode(entry: Entry) -> _Written:  # noqa: PLR0911, PLR0912 - a case for each kind of entry
    """What a row's data says; some keys are always written, null where nothing is known, and some only where it is."""
    match entry:
        case Sending():
            return _encode_sending(entry)
        case Acknowledged():
            return {"order": entry.order, "filled": text_of(entry.filled)}
        case Filled():
            return {
                "order": entry.order,
                "state": entry.state,
                "filled": text_of(entry.filled),
                "price": text_of(entry.price),
                "fee": text_of(entry.fee),
            }
        case Unknown():
            return {**_if("reason", entry.reason), "text": entry.text, **_if("state", entry.state)}
        case Rejected():
            return {"reason": entry.reason, "text": entry.text, **_if("order", entry.order)}
        case Absent():
            return {"text": entry.text, **_if("early", _YES if entry.early else None)}
        case Verified():
            shown = {"position": text_of(entry.position), "target": text_of(entry.target)}
            return {**shown, **_if("left", _YES if entry.is_last else None)}
        case Planned():
            return _encode_planned(entry)
        case SetAside() | Abandoned():
            return {"text": entry.text}
        case Cancelled():
            return {"order": entry.order, "why": entry.why}
        case Unprotected() | Protected() | Guarded():
            return _encode_protection(entry)
        case GivenUp():
            return {"author": entry.author, "reason": entry.reason, "event": entry.event}
        case Locked():
            return {"scope": entry.scope, "status": entry.status}
        case Charged():
            return {"fee": text_of(entry.fee), "text": entry.text}
        case Finished():
            return _encode_finished(entry)
        case Swept() | Undecodable():
            return {}


def _encode_planned(entry: Planned) -> _Written:
    lock = entry.lock
    if lock is not None:
        return {"lock": lock.mode, "scope": lock.scope, "until": _instant_text(lock.until)}
    return {
        **_if("contracts", text_of(entry.contracts)),
        **_if("target", text_of(entry.target)),
        **_if("mark", text_of(entry.mark)),
        **_if("value", text_of(entry.value)),
        **_if("effect", entry.effect),
    }


def _encode_sending(entry: Sending) -> _Written:
    rung = entry.rung.text if isinstance(entry.rung, Unreadable) else None if entry.rung is None else str(entry.rung)
    data: _Written = {
        "side": entry.side,
        "amount": text_of(entry.amount),
        "position": text_of(entry.position),
        "order": entry.order,
        "rung": rung,
    }
    for key, value in (
        ("price", text_of(entry.price)),
        ("after", entry.after),
        ("mark", text_of(entry.mark)),
        ("value", text_of(entry.value)),
        ("valid_for", text_of(entry.valid_for)),
    ):
        if value is not None:
            data[key] = value
    return data


def _encode_protection(entry: Unprotected | Protected | Guarded) -> _Written:
    if isinstance(entry, Guarded):
        return {"for": entry.replaces, "state": entry.state, "order": entry.order}
    terms = {
        "amount": text_of(entry.amount),
        "type": entry.type,
        "price": text_of(entry.price),
        "trigger_price": text_of(entry.trigger_price),
        "trigger_when": entry.trigger_when,
    }
    if isinstance(entry, Protected):
        return {"for": entry.replaces, "side": entry.side, **terms}
    return {
        "order": entry.order,
        "client_order_id": entry.order_client_id,
        "side": entry.side,
        "position_side": entry.order_position_side,
        **terms,
    }


def _encode_finished(entry: Finished) -> _Written:
    if entry.effect is not None:
        return {"effect": entry.effect, "status": entry.status}
    if entry.scope is not None:
        return {"scope": entry.scope, "status": entry.status}
    return {
        "status": entry.status,
        "reason": entry.reason,
        "cost": text_of(entry.cost),
        "delay": text_of(entry.delay),
        **{f"{_LEFT}{side} {symbol}": text_of(left) for (symbol, side), left in entry.left.items()},
    }


_Head = tuple[str, datetime, str | None, str | None, str | None, str | None, int | None, int]


def _head(row: JournalEntry | Recorded) -> _Head:
    return (
        row.decision,
        row.at,
        row.account,
        row.symbol,
        row.position_side,
        row.client_order_id,
        row.attempt,
        row.sequence,
    )


def number(text: str | None) -> Number:
    """A quantity or a price: a finite number, or text that is none."""
    if text is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return Unreadable(text)
    return value if value.is_finite() else Unreadable(text)


_MOST_DIGITS: Final = 18
"""Of a whole number; Python refuses to read one of thousands."""


def _whole(text: str | None) -> Whole:
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else Unreadable(text)


def _instant(text: str | None) -> When:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return Unreadable(text)
    return Unreadable(text) if at.tzinfo is None else at


def _instant_text(at: When) -> str | None:
    return at.text if isinstance(at, Unreadable) else None if at is None else rfc3339(at)


def _left(data: Data) -> Mapping[PositionKey, Number]:
    found: dict[PositionKey, Number] = {}
    for key, value in data.items():
        if key.startswith(_LEFT):
            side, _, symbol = key.removeprefix(_LEFT).partition(" ")
            if side in _SIDES:
                found[symbol, _SIDES[side]] = number(value)
    return found


def _if(key: str, value: str | None) -> _Written:
    """The key where there is anything to say."""
    return {} if value is None else {key: value}
