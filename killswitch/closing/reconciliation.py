"""What the venue's own account of the world is worth: only a trusted reading can say that a position is closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from killswitch.closing.life import ZERO, PositionKey
from killswitch.model.snapshot import AccountSnapshot, Position

_MARGINED = frozenset({"swap", "future", "margin"})


@dataclass(frozen=True, slots=True)
class Reading:
    """The positions of a trusted snapshot; what is not in them is not held."""

    positions: Mapping[PositionKey, Position]

    def contracts(self, key: PositionKey) -> Decimal:
        """Contracts held, 0 if none."""
        position = self.positions.get(key)
        return ZERO if position is None else position.contracts


@dataclass(frozen=True, slots=True)
class Distrust:
    """Why a snapshot says nothing about positions. `repeatable`: believed if it comes again and again."""

    reason: str
    repeatable: bool = False


def read(account: AccountSnapshot) -> Reading | Distrust:
    """The positions, if the snapshot is good for them.

    An empty book with margin in use contradicts itself; one whose margin is not given may be an answer that
    got lost, and must repeat itself.
    """
    if account.quality != "ok":
        return Distrust(f"the venue's answer is {account.quality}: {account.reason or 'no reason given'}")
    if account.positions is None:
        return Distrust("the venue did not say what is held")
    positions = {position.key: position for position in account.positions if position.contracts > ZERO}
    if len(positions) < len(account.positions) and not positions:
        return Distrust("every position has size 0", repeatable=True)
    if not positions and account.market in _MARGINED:
        if account.margin_used is None:
            return Distrust("an empty book, and the margin in use is not given", repeatable=True)
        if account.margin_used > ZERO:
            return Distrust(f"an empty book with {account.margin_used} of margin in use")
    return Reading(positions)


class Trust:
    """Turns snapshots into readings, one after the other; remembers how often an odd one has repeated itself."""

    def __init__(self, reads: int) -> None:
        """`reads` in a row make an odd answer believable."""
        self._reads = reads
        self._odd = 0

    def take(self, account: AccountSnapshot) -> Reading | Distrust:
        """The reading that this snapshot gives, or why it gives none."""
        found = read(account)
        if isinstance(found, Reading) or not found.repeatable:
            self._odd = 0
            return found
        self._odd += 1
        return found if self._odd < self._reads else Reading({})
