"""Codec between journal rows and typed entries: the only module that knows the keys of a row's data.

Decoding and encoding a row of this version reproduces it byte for byte. Rows of other versions are decoded as far as
possible: a missing key decodes as absent, an unknown key is ignored, and a row of an unknown kind decodes as
`Undecodable`. `decode` never raises.

The fields of an entry class are the keys of its row, and their types select the reader of each key. The tables below
hold the exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, get_args, get_type_hints

from killswitch.journal.entries import (
    Absent,
    Entry,
    Finished,
    Number,
    OrderedLock,
    OrderSending,
    PlannedWork,
    PositionKey,
    Recorded,
    Rejected,
    Undecodable,
    Unknown,
    Unreadable,
    Verified,
    When,
    WholeNumber,
    text_of,
)
from killswitch.model.snapshot import Side
from killswitch.model.store import JournalEntry

Data = Mapping[str, str | None]

_HEAD: Final = Recorded.__struct_fields__
_CLASSES: Final[Mapping[str, type[Any]]] = {each.kind: each for each in get_args(Entry) if each is not Undecodable}
_KEYS: Final = {
    "replaces": "for", "order_client_id": "client_order_id", "order_position_side": "position_side", "is_last": "left",
}  # fmt: skip
"""Field → key, for fields whose key differs from their name."""
_ONLY_IF_KNOWN: Final[Mapping[type[Any], tuple[str, ...]]] = {
    PlannedWork: ("contracts", "target", "mark", "value", "effect"),
    OrderSending: ("price", "after", "mark", "value", "valid_for"),
    Unknown: ("reason", "state"),
    Rejected: ("order",),
    Absent: ("early",),
    Verified: ("is_last",),
}
"""Fields whose key is omitted while the value is unknown; the keys of all other fields are then written as null."""
_LEFT: Final = "left "
"""Key prefix in a `finished` row: `left SIDE SYMBOL` → contracts above the target."""
_SIDES: Final[Mapping[str, Side]] = {"long": "long", "short": "short"}


def decode(row: JournalEntry) -> Entry:
    """Decode a row into its typed entry."""
    kind = _CLASSES.get(row.kind)
    head = [getattr(row, name) for name in _HEAD]
    if row.unreadable is not None:
        why = "its data cannot be read"
    elif kind is None:
        why = f"this version does not know the kind {row.kind!r:.40}"
    else:
        values = {name: read(row.data, _KEYS.get(name, name)) for name, read in _READERS[kind].items()}
        entry: Entry = kind(*head, **values)
        return entry
    return Undecodable(*head, row=row, why=why)


def decode_all(rows: Iterable[JournalEntry]) -> tuple[Entry, ...]:
    """Decode rows, in their order."""
    return tuple(map(decode, rows))


def encode(entry: Entry) -> JournalEntry:
    """Encode a typed entry as its row."""
    if isinstance(entry, Undecodable):
        return entry.row
    return JournalEntry(
        entry.decision, entry.kind, entry.at, entry.account, entry.symbol, entry.position_side, entry.client_order_id,
        entry.attempt, _data(entry), entry.sequence,
    )  # fmt: skip


def _data(entry: Entry) -> dict[str, str | None]:
    if isinstance(entry, PlannedWork) and entry.lock is not None:
        return {"lock": entry.lock.mode, "scope": entry.lock.scope, "until": text_of(entry.lock.until)}
    if isinstance(entry, Finished):
        return _finished_data(entry)
    data: dict[str, str | None] = {}
    for name, key, is_optional in _WRITTEN[type(entry)]:
        text = text_of(getattr(entry, name))
        if text is not None or not is_optional:
            data[key] = text
    return data


def _finished_data(entry: Finished) -> dict[str, str | None]:
    if entry.effect is not None:
        return {"effect": entry.effect, "status": entry.status}
    if entry.scope is not None:
        return {"scope": entry.scope, "status": entry.status}
    data = {name: text_of(getattr(entry, name)) for name in ("status", "reason", "cost", "delay")}
    return data | {f"{_LEFT}{side} {symbol}": text_of(value) for (symbol, side), value in entry.left.items()}


def number(text: str | None) -> Number:
    """Parse a quantity or a price: a finite number, or `Unreadable`."""
    if text is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return Unreadable(text)
    return value if value.is_finite() else Unreadable(text)


_MOST_DIGITS: Final = 18
"""Longest whole number that is parsed; Python refuses to parse thousands of digits."""


def _whole(text: str | None) -> WholeNumber:
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


def _lock(data: Data, key: str) -> OrderedLock | None:
    return OrderedLock(data[key], data.get("scope"), _instant(data.get("until"))) if key in data else None


def _left(data: Data, _key: str) -> Mapping[PositionKey, Number]:
    found: dict[PositionKey, Number] = {}
    for key, value in data.items():
        if key.startswith(_LEFT):
            side, _, symbol = key.removeprefix(_LEFT).partition(" ")
            if side in _SIDES:
                found[symbol, _SIDES[side]] = number(value)
    return found


_READ_AS: Final[Mapping[object, Callable[[Data, str], object]]] = {
    str | None: lambda data, key: data.get(key),
    Number: lambda data, key: number(data.get(key)),
    WholeNumber: lambda data, key: _whole(data.get(key)),
    bool: lambda data, key: key in data,
    OrderedLock | None: _lock,
    Mapping[PositionKey, Number]: _left,
}
"""Field type → function that reads the field from a row's data."""
_READERS: Final = {
    each: {name: _READ_AS[kind] for name, kind in get_type_hints(each).items() if name not in (*_HEAD, "kind")}
    for each in _CLASSES.values()
}
"""Entry class → reader of each of its own fields, in the order in which they are written."""
_WRITTEN: Final = {
    each: tuple(
        (name, _KEYS.get(name, name), name in _ONLY_IF_KNOWN.get(each, ()))
        for name in (_ONLY_IF_KNOWN[each] if each is PlannedWork else _READERS[each])
    )
    for each in _CLASSES.values()
}
"""Entry class → field, key, and whether the key is omitted while the value is unknown; in the order of writing."""


def texts_of(row: JournalEntry) -> Mapping[str, str | None]:
    """The texts of a row as they are stored, whether or not this version can decode them."""
    return row.data if row.unreadable is None else {"unreadable": row.unreadable}
