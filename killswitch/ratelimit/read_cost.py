"""What readings take of the venues' limits at an interval, and the least interval that closing allows. Pure.

A dead-man timer at the venue is refreshed out of the same share, so that what it takes leaves readings less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.model.venue import RateLimit, VenueTraits
from killswitch.ratelimit.limits import added_up


@dataclass(frozen=True, slots=True)
class Refresh:
    """A dead-man timer that is started anew every so many seconds; `symbols`: for how many, where it is for one."""

    every: float
    symbols: int = 1


@dataclass(frozen=True, slots=True)
class Reader:
    """One account that is read. `share`: the part of every limit that reading leaves alone. `refresh`: of its timer."""

    account: str
    venue: str
    traits: VenueTraits
    share: Decimal
    refresh: Refresh | None = None


class ReadingCost(Struct, frozen=True):
    """What readings take of one limit. Units in `per` seconds, of all the accounts that share it.

    `takes`: at the interval; `allowed`: by the venue; `for_reading`: of that, what closing does not keep. `least`: the
    shortest interval in seconds at which every reading has its room. `accounts`: how many accounts share the limit.
    `refreshes`: what of `takes` refreshing dead-man timers comes to.
    """

    limit: str
    by: Literal["account", "symbol", "address"]
    per: float
    allowed: int
    for_reading: int
    a_reading: int
    takes: float
    least: float
    accounts: int
    refreshes: float = 0.0

    @property
    def too_fast(self) -> bool:
        """Whether readings at the interval, and refreshes, do not all find room."""
        alone = 0 if self.refreshes else self.a_reading
        return self.takes > self.for_reading * (1 + 1e-9) and self.takes > alone


def reading_costs(readers: Sequence[Reader], interval: float) -> dict[str, tuple[ReadingCost, ...]]:
    """By account, what reading takes of each limit that it, or its timer, counts against.

    `interval` in seconds, above 0. ValueError if traits contradict themselves.
    """
    costs = {reader.account: added_up(reader.traits) for reader in readers}
    found = {}
    for reader in readers:
        rows = []
        for limit in reader.traits.limits:
            sharers = [each for each in readers if each.venue == reader.venue] if limit.by == "address" else [reader]
            taken = [costs[each.account].get(("snapshot", limit.name), (0, 0))[0] for each in sharers]
            own = costs[reader.account].get(("snapshot", limit.name), (0, 0))[0]
            if not own and not _refreshes(reader, limit):
                continue
            shared = [units for units in taken if units]
            for_reading = limit.allowed - int(limit.allowed * reader.share)
            refreshes = sum((_refreshes(each, limit) for each in sharers), 0.0)
            rows.append(
                ReadingCost(
                    limit=limit.name,
                    by=limit.by,
                    per=limit.per,
                    allowed=limit.allowed,
                    for_reading=for_reading,
                    a_reading=own,
                    takes=sum(shared) * limit.per / interval + refreshes,
                    least=_least(shared, int(for_reading - refreshes), limit.per),
                    accounts=len(shared),
                    refreshes=refreshes,
                )
            )
        found[reader.account] = tuple(rows)
    return found


def refresh_units(traits: VenueTraits, limit: str, symbols: int) -> int:
    """Units of the limit that starting the dead-man timer anew takes: once, or once for each of so many symbols."""
    units, each = added_up(traits).get(("dead_man", limit), (0, 0))
    by_symbol = traits.dead_man is not None and traits.dead_man.reach == "symbol"
    return (units + each) * symbols if by_symbol else units


def _refreshes(reader: Reader, limit: RateLimit) -> float:
    """Units in `per` seconds. What is counted for each symbol apart, readings do not draw on."""
    if reader.refresh is None or limit.by == "symbol":
        return 0.0
    return refresh_units(reader.traits, limit.name, reader.refresh.symbols) * limit.per / reader.refresh.every


def _least(shared: Sequence[int], for_reading: int, per: float) -> float:
    """Seconds. One account's readings fit a whole number of times into `per`; one that never fits goes alone."""
    if not shared:
        return 0.0
    if len(shared) == 1:
        return per / max(1, for_reading // shared[0])
    return max(sum(shared) * per / max(for_reading, 1), *(per / max(1, for_reading // each) for each in shared))
