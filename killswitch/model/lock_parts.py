"""The algebra of locks that reach a part of their scope: one side, some symbols, or everything.

Locks of the same part merge to the strictest mode and the latest end, and different parts are kept next to each other.
So the merge does not depend on the order, and nothing that a part locks gets free by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from killswitch.model.instant import rfc3339
from killswitch.model.snapshot import LockPart, Side
from killswitch.model.words import LockMode, place_text

Restriction = tuple[str, tuple[str, ...] | None]
"""Side (empty: both) and symbols (None: all) of a part."""


def strictest_mode(modes: Iterable[LockMode]) -> LockMode:
    """`all` if any is."""
    return "all" if "all" in modes else "reduce_only"


def latest_end(ends: Iterable[datetime | None]) -> datetime | None:
    """The latest end; None, which is no end, if any is."""
    found = list(ends)
    return None if None in found else max(end for end in found if end is not None)


def merged_parts(parts: Iterable[LockPart]) -> tuple[LockPart, ...]:
    """The parts, each side and set of symbols once, in a fixed order."""
    found: dict[Restriction, LockPart] = {}
    for part in parts:
        symbols = None if part.symbols is None else tuple(sorted(set(part.symbols)))
        key = (part.side or "", symbols)
        before = found.get(key, part)
        mode, until = strictest_mode((before.mode, part.mode)), latest_end((before.until, part.until))
        found[key] = LockPart(mode, until, part.side, symbols)
    return tuple(found[key] for key in sorted(found, key=lambda key: (key[0], key[1] is not None, key[1] or ())))


def in_force(parts: Iterable[LockPart], now: datetime) -> tuple[LockPart, ...]:
    """The parts that have not ended at `now`."""
    return tuple(part for part in parts if part.until is None or part.until > now)


def cover(parts: Iterable[LockPart], others: Iterable[LockPart]) -> bool:
    """Whether everything that `others` lock is locked by one of `parts`, as strictly and as long."""
    present = tuple(parts)
    return all(any(_covers(part, other) for part in present) for other in others)


def _covers(part: LockPart, other: LockPart) -> bool:
    return (
        part.side in (None, other.side)
        and (part.symbols is None or (other.symbols is not None and set(other.symbols) <= set(part.symbols)))
        and strictest_mode((part.mode, other.mode)) == part.mode
        and (part.until is None or (other.until is not None and other.until <= part.until))
    )


def strictest_at(parts: Iterable[LockPart], side: Side, symbol: str) -> LockMode | None:
    """The strictest mode of the parts that reach the position; None if none does."""
    modes = [part.mode for part in parts if part.reaches(side, symbol)]
    return strictest_mode(modes) if modes else None


def parts_text(parts: Iterable[LockPart]) -> str:
    """The parts for people: `long in BTC_USDT (reduce_only until 2026-12-01T08:00:00Z) and short (all)`."""
    return " and ".join(f"{place_text(part.side, part.symbols)} ({part.mode}{_end_text(part)})" for part in parts)


def _end_text(part: LockPart) -> str:
    return "" if part.until is None else f" until {rfc3339(part.until)}"
