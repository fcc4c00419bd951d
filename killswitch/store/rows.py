"""Conversion between rows of the store and records.

A database keeps whatever was written into a column, and a damaged one returns anything: values are checked when they
are read.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from killswitch.model.applied_set import PolicyFile, SetChange
from killswitch.model.decision import Decision, Notice, decode_decision, encode_decision, encode_notice
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.snapshot import Event
from killswitch.model.store import (
    Delivery,
    EquityCurvePoint,
    HistoryRow,
    JournalEntry,
    MachineState,
    Outgoing,
    RouteCount,
    StoredDecision,
    Suppression,
)
from killswitch.record.tick_entries import StoredCommand

ENCODER = msgspec.json.Encoder(decimal_format="string")
_NOTICES = msgspec.json.Decoder(Notice)
_EVENTS = msgspec.json.Decoder(Event)
_SET_CHANGES = msgspec.json.Decoder(SetChange)
_POLICY_FILES = msgspec.json.Decoder(tuple[PolicyFile, ...])
_SUPPRESSIONS = msgspec.json.Decoder(Suppression)
_HOPS = msgspec.json.Decoder(tuple[tuple[str, ...], ...])
_DATA = msgspec.json.Decoder(dict[str, str | None])

Row = dict[str, Any]


def notice(row: Any) -> Notice:
    return _NOTICES.decode(bytes_of(row.body))


def event(row: Any) -> Event:
    found = _EVENTS.decode(bytes_of(row.body))
    if found.id != row.id:
        # It would never be consumed, and processed by every tick.
        raise ValueError(f"its body has id {found.id!r:.80}")
    return found


def stored_command(row: Any) -> StoredCommand:
    """The operator command of a row with its bytes, also where this version cannot read it."""
    body = row.body if isinstance(row.body, bytes) else str(row.body).encode()
    try:
        return StoredCommand(str(row.id), body, event(row))
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError):
        return StoredCommand(str(row.id), body, None)


def set_change(row: Any) -> SetChange:
    return _SET_CHANGES.decode(bytes_of(row.body))


def packed_files(files: tuple[PolicyFile, ...]) -> bytes:
    """The files as they are stored: a tenth of their size, since a tick waits while they are written."""
    return zlib.compress(ENCODER.encode(files), 1)


def policy_files(row: Any) -> tuple[PolicyFile, ...]:
    try:
        return _POLICY_FILES.decode(zlib.decompress(bytes_of(row.files)))
    except zlib.error as error:
        raise ValueError(str(error)) from error


def state_row(state: MachineState) -> Row:
    return {"policy": state.policy, "scope": state.scope, "body": state.blob}


def history_row(row: HistoryRow) -> Row:
    return {"at": row.at, "policy": row.policy, "scope": row.scope, "body": row.blob}


def decision_row(decision: Decision, snapshot: bytes | None) -> Row:
    return {
        "id": decision.id,
        "as_of": to_micros(decision.as_of),
        "policy": decision.policy,
        "scope": decision.scope,
        "body": encode_decision(decision),
        "snapshot": snapshot,
    }


def notice_row(notice: Notice) -> Row:
    return {"as_of": to_micros(notice.as_of), "body": encode_notice(notice)}


def journal_row(entry: JournalEntry) -> tuple[object, ...]:
    """The values of a journal entry, in the order of the table's columns."""
    data = ENCODER.encode(entry.data).decode() if entry.unreadable is None else entry.unreadable
    return (
        entry.decision, entry.kind, to_micros(entry.at), entry.account, entry.symbol, entry.position_side,
        entry.client_order_id, entry.attempt, data,
    )  # fmt: skip


def integer(value: object) -> int:
    """The value as an integer. Raises TypeError for anything else."""
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} is not a whole number")
    return value


def bytes_of(value: object) -> bytes:
    if not isinstance(value, bytes | memoryview):
        raise TypeError(f"{value!r:.40} is not a blob")
    return bytes(value)


def text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def state(row: Any) -> MachineState:
    return MachineState(text(row.policy), text(row.scope), bytes_of(row.body))


def point(row: Any) -> EquityCurvePoint:
    return EquityCurvePoint(integer(row.at), float(row.value))


def checked_lease(row: Any) -> Any:
    integer(row.generation), integer(row.expires_at)
    if row.owner is not None:
        text(row.owner)
    return row


def route_count(row: Any) -> RouteCount:
    return msgspec.convert(dict(row._mapping), RouteCount)


def message_row(message: Outgoing) -> Row:
    values: Row = msgspec.structs.asdict(message)
    values["hops"] = ENCODER.encode(message.hops).decode() if message.hops else ""
    return values


def outgoing(row: Any) -> Outgoing:
    hops = text(row.hops)
    return Outgoing(
        text(row.id), integer(row.at), text(row.route), text(row.target), bytes_of(row.body), text(row.alert),
        row.is_end == 1, _HOPS.decode(hops) if hops else (), integer(row.hop_at),
    )  # fmt: skip


def delivery(row: Any) -> Delivery:
    values = dict(row._mapping) | {"message": outgoing(row), "is_refused": row.is_refused == 1}
    return msgspec.convert(values, Delivery)


def suppression_row(suppressed: Suppression) -> Row:
    return {"at": suppressed.at, "body": ENCODER.encode(suppressed)}


def suppression(row: Any) -> Suppression:
    return _SUPPRESSIONS.decode(bytes_of(row.body))


def entry(row: Any) -> JournalEntry:
    values = dict(row._mapping)
    values["at"] = from_micros(integer(row.at))
    try:
        values["data"] = _DATA.decode(row.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # A later version may write data that this one cannot read; the rest of the entry is kept.
        values["data"], values["unreadable"] = {}, text(row.data)
    return msgspec.convert(values, JournalEntry)


def stored(row: Any) -> StoredDecision:
    """A decision, with its snapshot where the row has one."""
    snapshot = getattr(row, "snapshot", None)
    return StoredDecision(decode_decision(bytes_of(row.body)), None if snapshot is None else bytes_of(snapshot))
