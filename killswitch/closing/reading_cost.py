"""What readings take of the venues' limits at an interval, and the least interval that closing allows. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.closing.limits import added_up
from killswitch.model.venue import VenueTraits


@dataclass(frozen=True, slots=True)
class Reader:
    """One account that is read. `share`: the part of every limit that reading leaves alone."""

    account: str
    venue: str
    traits: VenueTraits
    share: Decimal


class ReadingCost(Struct, frozen=True):
    """What readings take of one limit. Units in `per` seconds, of all the accounts that share it.

    `takes`: at the interval; `allowed`: by the venue; `for_reading`: of that, what closing does not keep. `least`: the
    shortest interval in seconds at which every reading has its room. `accounts`: how many accounts share the limit.
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

    @property
    def too_fast(self) -> bool:
        """Whether readings at the interval do not all find room."""
        return self.takes > self.for_reading * (1 + 1e-9) and self.takes > self.a_reading


def reading_costs(readers: Sequence[Reader], interval: float) -> dict[str, tuple[ReadingCost, ...]]:
    """By account, what reading takes of each limit that a snapshot counts against; `interval` in seconds, above 0.

    ValueError if traits contradict themselves.
    """
    address: Mapping[tuple[str, str], list[int]] = defaultdict(list)
    """(venue, limit) → what each account's reading takes."""
    units: dict[tuple[str, str], int] = {}
    for reader in readers:
        costs = added_up(reader.traits)
        for limit in reader.traits.limits:
            taken = costs.get(("snapshot", limit.name), (0, 0))[0]
            units[reader.account, limit.name] = taken
            if taken and limit.by == "address":
                address[reader.venue, limit.name].append(taken)
    found = {}
    for reader in readers:
        rows = []
        for limit in reader.traits.limits:
            own = units[reader.account, limit.name]
            if not own:
                continue
            shared = address[reader.venue, limit.name] if limit.by == "address" else [own]
            for_reading = limit.allowed - int(limit.allowed * reader.share)
            rows.append(
                ReadingCost(
                    limit=limit.name,
                    by=limit.by,
                    per=limit.per,
                    allowed=limit.allowed,
                    for_reading=for_reading,
                    a_reading=own,
                    takes=sum(shared) * limit.per / interval,
                    least=_least(shared, for_reading, limit.per),
                    accounts=len(shared),
                )
            )
        found[reader.account] = tuple(rows)
    return found


def _least(shared: Sequence[int], for_reading: int, per: float) -> float:
    """Seconds. One account's readings fit a whole number of times into `per`; one that never fits goes alone."""
    if len(shared) == 1:
        return per / max(1, for_reading // shared[0])
    return max(sum(shared) * per / max(for_reading, 1), *(per / max(1, for_reading // each) for each in shared))
