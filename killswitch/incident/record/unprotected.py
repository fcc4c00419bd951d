"""For how long a position stood without its protective order, because that blocked the close."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from killswitch.incident.record.order_lines import Key, key_of, number
from killswitch.model.store import JournalEntry

Covered = Literal["put back", "never away", "not needed", "position closed", "refused", "unknown", "open"]
_ENDS: dict[str, Covered] = {"resting": "put back", "filled": "put back", "not needed": "not needed"}
_NO_ANSWER = ("unknown", "again")


class Exposure(Struct, frozen=True):
    """One protective order that was cancelled for a close, and what took its place.

    `until` is null while nothing has. `end` is `refused` where the venue did not take or keep the new order (`text` has
    its words), `never away` where it could not be cancelled, `unknown` where the venue did not say, and `open` where
    nothing has been asked for yet. `seconds` without protection; null while they run.
    """

    account: str
    symbol: str
    position_side: str | None
    order: str
    since: datetime
    until: datetime | None
    seconds: float | None
    end: Covered
    text: str | None


def exposures(journal: Sequence[JournalEntry]) -> tuple[Exposure, ...]:
    """Every protective order that was taken away, in the order of the journal (one decision's, in sequence)."""
    about: dict[str | Key, list[tuple[int, JournalEntry]]] = {}
    for index, entry in enumerate(journal):
        if entry.kind == "guarded":
            about.setdefault(entry.data.get("for") or "", []).append((index, entry))
        elif entry.kind == "verified":
            about.setdefault(key_of(entry), []).append((index, entry))
    found = []
    for index, entry in enumerate(journal):
        if entry.kind == "unprotected":
            told = [*about.get(entry.data.get("order") or "", ()), *about.get(key_of(entry), ())]
            after = [each for at, each in sorted(told, key=lambda one: one[0]) if at > index]
            found.append(_exposure(entry, after))
    return tuple(found)


def _exposure(taken: JournalEntry, after: Sequence[JournalEntry]) -> Exposure:
    order = taken.data.get("order") or ""
    until, end, text = _covered(order, key_of(taken), after)
    return Exposure(
        account=taken.account or "",
        symbol=taken.symbol or "",
        position_side=taken.position_side,
        order=order,
        since=taken.at,
        until=until,
        seconds=_seconds(taken.at, until, end),
        end=end,
        text=text,
    )


def _seconds(since: datetime, until: datetime | None, end: Covered) -> float | None:
    if end == "never away":
        return 0.0
    return None if until is None else max(0.0, (until - since).total_seconds())


def _covered(order: str, key: Key, after: Sequence[JournalEntry]) -> tuple[datetime | None, Covered, str | None]:
    """When it ended, how, and in which words; a position that is gone needs no protection."""
    end: Covered = "open"
    text: str | None = None
    for entry in after:
        if entry.kind == "guarded" and entry.data.get("for") == order:
            state = entry.data.get("state") or "unknown"
            if state == "still there":
                return None, "never away", None
            if state in _ENDS:
                return entry.at, _ENDS[state], None
            unsaid = state in _NO_ANSWER or state.startswith("tried")
            end, text = ("unknown", None) if unsaid else ("refused", state)
        elif entry.kind == "verified" and key_of(entry) == key and number(entry, "position") == 0:
            return entry.at, "position closed", None
    return None, end, text
