"""How long a position was without its protective order, because that order blocked the close."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from killswitch.journal.entries import Entry, Place, ProtectionAnswered, Unprotected, Verified, known

ExposureEnd = Literal["put back", "never away", "not needed", "position closed", "refused", "unknown", "open"]
_ENDS: dict[str, ExposureEnd] = {"resting": "put back", "filled": "put back", "not needed": "not needed"}


class Exposure(Struct, frozen=True):
    """One protective order that was cancelled for a close, and what replaced it.

    `until` is null while nothing has. `end` is `refused` where the venue rejected or dropped the new order (`text` has
    its answer), `never away` where it could not be cancelled, `unknown` where the venue did not answer, and `open`
    where nothing has been requested yet. `seconds` is the time without protection; null while it runs.
    """

    account: str
    symbol: str
    position_side: str | None
    order: str
    since: datetime
    until: datetime | None
    seconds: float | None
    end: ExposureEnd
    text: str | None


def exposures(journal: Sequence[Entry]) -> tuple[Exposure, ...]:
    """Return every protective order that was cancelled, in the order of the journal (one decision's, in sequence)."""
    about: dict[str | Place, list[tuple[int, ProtectionAnswered | Verified]]] = {}
    for index, entry in enumerate(journal):
        if isinstance(entry, ProtectionAnswered):
            about.setdefault(entry.replaces or "", []).append((index, entry))
        elif isinstance(entry, Verified):
            about.setdefault(entry.place, []).append((index, entry))
    found = []
    for index, entry in enumerate(journal):
        if isinstance(entry, Unprotected):
            answers = [*about.get(entry.order or "", ()), *about.get(entry.place, ())]
            after = [each for at, each in sorted(answers, key=lambda one: one[0]) if at > index]
            found.append(_exposure(entry, after))
    return tuple(found)


def _exposure(cancelled: Unprotected, after: Sequence[ProtectionAnswered | Verified]) -> Exposure:
    order = cancelled.order or ""
    until, end, text = _covered(order, cancelled.place, after)
    seconds = None if until is None else max(0.0, (until - cancelled.at).total_seconds())
    return Exposure(
        account=cancelled.account or "",
        symbol=cancelled.symbol or "",
        position_side=cancelled.position_side,
        order=order,
        since=cancelled.at,
        until=until,
        seconds=0.0 if end == "never away" else seconds,
        end=end,
        text=text,
    )


def _covered(
    order: str, place: Place, after: Sequence[ProtectionAnswered | Verified]
) -> tuple[datetime | None, ExposureEnd, str | None]:
    """Return when the exposure ended, how, and with which text; a closed position needs no protection."""
    end: ExposureEnd = "open"
    text: str | None = None
    for entry in after:
        if isinstance(entry, ProtectionAnswered) and entry.replaces == order:
            state = entry.state or "unknown"
            if state == "still there":
                return None, "never away", None
            if state in _ENDS:
                return entry.at, _ENDS[state], None
            end, text = ("unknown", None) if entry.is_unknown else ("refused", state)
        elif isinstance(entry, Verified) and entry.place == place and known(entry.position) == 0:
            return entry.at, "position closed", None
    return None, end, text
