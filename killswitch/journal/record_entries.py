"""Entries of the record for rows of the journal: requests announce, and the venue's answers answer them.

An answer that leaves the result open (`unknown`, `set_aside`, `abandoned`) is on record, and answers nothing: whether
the request was carried out is not known, and the report of the record lists its announcement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from killswitch.journal.codec import decode, texts_of
from killswitch.journal.entries import Cancelled, Finished, PlannedWork, ProtectionAnswered, Unprotected
from killswitch.model.record_entry import Field, Private, RecordEntry, with_known
from killswitch.model.store import JournalEntry

PERSONAL: Final = frozenset({"author"})
"""Keys of a row that name a person."""
WRITTEN: Final = frozenset({"reason"})
"""Keys of a row of `given_up` that a person wrote."""
_PERSONAL_AND_WRITTEN: Final = PERSONAL | WRITTEN

_Subject = Callable[[JournalEntry], str | None]
"""Most rows are about an order, whose id is a column: those are not decoded, because a close waits for them."""


def _order(row: JournalEntry) -> str | None:
    return None if row.client_order_id is None else f"order/{row.client_order_id}"


def _protection(row: JournalEntry) -> str | None:
    """The order whose protection it answers about, once the answer is one."""
    entry = decode(row)
    return None if isinstance(entry, ProtectionAnswered) and entry.is_unknown else _order(row)


def _resting(row: JournalEntry) -> str | None:
    """The protective order that is cancelled before a close, by the venue's id."""
    entry = decode(row)
    if not isinstance(entry, Unprotected | Cancelled) or entry.order is None:
        return None
    return f"resting/{entry.decision}/{entry.account}/{entry.order}"


def _whole_book(row: JournalEntry) -> str:
    return f"book/{row.decision}/{row.account}"


def _work(row: JournalEntry) -> str:
    """The work of a decision on an account; without one, its lock or another effect."""
    entry, what = decode(row), ""
    if isinstance(entry, PlannedWork):
        what = entry.effect or (entry.lock.scope or "portfolio" if entry.lock is not None else "")
    elif isinstance(entry, Finished):
        what = entry.effect or entry.scope or ""
    return f"work/{entry.decision}/{entry.account or what}"


_ANNOUNCES: Final[Mapping[str, _Subject]] = {
    "planned": _work, "sending": _order, "swept": _whole_book, "unprotected": _resting, "protected": _order,
}  # fmt: skip
_ANSWERS: Final[Mapping[str, _Subject]] = {
    "acknowledged": _order, "rejected": _order, "absent": _order, "filled": _order, "charged": _order,
    "cancelled": _resting, "guarded": _protection, "verified": _whole_book, "finished": _work,
}  # fmt: skip


def journal_record(rows: Iterable[JournalEntry]) -> list[RecordEntry]:
    """The entries for rows that are written in one transaction.

    Of the plans of one decision on one account the first announces: its end answers for all of them.
    """
    found, announced = [], set()
    for row in rows:
        announces = _ANNOUNCES[row.kind](row) if row.kind in _ANNOUNCES else None
        answers = _ANSWERS[row.kind](row) if row.kind in _ANSWERS else None
        if announces in announced:
            announces = None
        elif announces is not None:
            announced.add(announces)
        found.append(_entry(row, announces, answers))
    return found


def _entry(row: JournalEntry, announces: str | None, answers: str | None) -> RecordEntry:
    fields = with_known({
        "entry": row.kind,
        "decision": row.decision,
        "account": row.account,
        "symbol": row.symbol,
        "side": row.position_side,
        "client_order_id": row.client_order_id,
        "attempt": row.attempt,
    })  # fmt: skip
    personal = _PERSONAL_AND_WRITTEN if row.kind == "given_up" else PERSONAL
    details: dict[str, Field] = {key: text for key, text in texts_of(row).items() if text is not None}
    for key in personal & details.keys():
        details[key] = Private(str(details[key]))
    return RecordEntry("order", row.at, fields, details, announces=announces, answers=answers)
