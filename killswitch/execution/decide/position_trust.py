"""Position trust: which snapshots are good enough to conclude that a position is closed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.report_validation import finite, venue_text
from killswitch.journal.entries import PositionKey
from killswitch.journal.lifecycle import ZERO
from killswitch.model.snapshot import AccountSnapshot, Position

_MARGINED = frozenset({"swap", "future", "margin"})

Contracts = Mapping[PositionKey, Decimal]
"""Contracts of each position."""


class TrustedBook(Struct, frozen=True):
    """The positions of a trusted snapshot. A position that is missing is not held, unless it is `unconfirmed`."""

    positions: Mapping[PositionKey, Position]
    unconfirmed: frozenset[PositionKey] = frozenset()
    """Positions that are missing without explanation, and not yet often enough for that to be accepted."""

    def contracts(self, key: PositionKey) -> Decimal:
        """Contracts held, 0 if none."""
        position = self.positions.get(key)
        return ZERO if position is None else position.contracts


class Distrust(Struct, frozen=True):
    """Why a snapshot is not trusted. `repeatable`: the snapshot is accepted if it repeats."""

    reason: str
    repeatable: bool = False


def positions_of(account: AccountSnapshot) -> TrustedBook | Distrust:
    """The positions of a snapshot, or why it is not trusted.

    An empty book with margin in use contradicts itself. One without a margin figure may be an incomplete answer, and is
    accepted only if it repeats. A size that is negative or not a number makes the answer invalid.
    """
    if account.quality != "ok":
        return Distrust(f"the venue's answer is {account.quality}: {account.reason or 'no reason given'}")
    if account.positions is None:
        return Distrust("the venue returned no positions")
    for position in account.positions:
        size = finite(position.contracts)
        if size is None or size < ZERO:
            return Distrust(
                f"{position.symbol} {position.side} has an invalid size: {venue_text(position.contracts)} contracts"
            )
    positions = {position.key: position for position in account.positions if position.contracts > ZERO}
    if len(positions) < len(account.positions) and not positions:
        return Distrust("every position has size 0", repeatable=True)
    if not positions and account.market in _MARGINED:
        return _empty(finite(account.margin_used))
    return TrustedBook(positions)


def _empty(margin: Decimal | None) -> TrustedBook | Distrust:
    """The trusted empty book, or why it is not trusted with `margin` in use."""
    if margin is None:
        return Distrust("an empty book without a figure for the margin in use", repeatable=True)
    if margin > ZERO:
        return Distrust(f"an empty book with {margin} of margin in use")
    return TrustedBook({})


class PositionTrust:
    """Derives trusted positions from successive snapshots, and counts how often a suspicious one is repeated.

    A position that disappears is suspicious in every market, unless our own orders can have closed it: an incomplete
    answer, or a missing page of it, looks the same. It is accepted once it has been repeated for a while.
    """

    def __init__(self, pace: ClosingPace) -> None:
        self._pace = pace
        self._odd = 0
        self._gone: dict[PositionKey, tuple[int, float]] = {}

    def evaluate(self, account: AccountSnapshot, expected: Contracts, now: float) -> TrustedBook | Distrust:
        """The trusted positions of this snapshot, or why there are none.

        `expected`: the contracts that our own orders leave of each position, at least. `now` in monotonic seconds.
        """
        found = positions_of(account)
        if isinstance(found, Distrust) and not found.repeatable:
            self._odd, self._gone = 0, {}
            return found
        positions = {} if isinstance(found, Distrust) else found.positions
        unconfirmed = self._count_gone(positions, expected, now)
        if isinstance(found, TrustedBook):
            self._odd = 0
            return TrustedBook(positions, unconfirmed)
        self._odd += 1
        return found if self._odd < self._pace.confirm_snapshots else TrustedBook({}, unconfirmed)

    def _count_gone(
        self, positions: Mapping[PositionKey, Position], expected: Contracts, now: float
    ) -> frozenset[PositionKey]:
        """Count the positions that are missing without explanation; returns those not missing often and long enough."""
        missing = [key for key, least in expected.items() if least > ZERO and key not in positions]
        counted = {key: self._gone.get(key, (0, now)) for key in missing}
        self._gone = {key: (count + 1, since) for key, (count, since) in counted.items()}
        return frozenset(
            key
            for key, (count, since) in self._gone.items()
            if count < self._pace.confirm_snapshots or now - since < self._pace.confirm_after
        )
