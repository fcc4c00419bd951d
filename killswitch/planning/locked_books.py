"""The books of accounts under a trading lock: each position's least size since, and what fills have added to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Fill, Side, WrittenLock
from killswitch.planning.reducing import enlarged_by
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.trust import reason_positions_missing, reason_positions_unusable

COUNTED: Final = 2000
"""Number of the newest fills by whose ids a repetition is recognised; they are stored."""


class LockedPosition(Struct, frozen=True):
    """A position under a lock. Amounts in contracts.

    `least`: its smallest size since the lock was written. `filled`: what fills since then have added on its side.
    """

    symbol: str
    side: Side
    least: Decimal
    filled: Decimal = ZERO


class LockedAccount(Struct, frozen=True):
    """The book of an account since the lock of `decision` was written; it is empty before the first snapshot since."""

    decision: str
    account: str
    positions: tuple[LockedPosition, ...]
    resting: tuple[str, ...]
    """Ids of the orders that rested when the lock was written."""
    observed_at: datetime | None
    """The time of the last snapshot: an account that was not polled repeats it, with its fills."""
    by_resting: bool = True
    """Whether all fills since were of such orders."""
    is_blind: bool = False
    """Whether fills were unknown in a snapshot since, so that nobody knows who enlarged a position."""
    awaits_owners: bool = False
    """Whether the owners of the positions were unknown ever since: the book begins once a strategy's part is known."""
    unowned: dict[str, Decimal] = {}
    """Symbol → contracts of fills that may be the strategy's, while the owners are unknown."""
    counted: tuple[str, ...] = ()
    """The ids of the newest fills, which the first poll of the next run reports again."""


def is_unknown(account: AccountSnapshot) -> bool:
    """Whether its positions are unknown."""
    return (reason_positions_unusable(account) or reason_positions_missing(account)) is not None


def may_be_older(account: AccountSnapshot, lock: WrittenLock) -> bool:
    """Whether the positions may be older than the lock file."""
    seen = account.positions_as_of or account.observed_at
    return seen is None or seen < lock.since


def opened(lock: WrittenLock, account: AccountSnapshot) -> LockedAccount:
    """The book of the first snapshot after the lock was written."""
    positions = tuple(LockedPosition(*key, size) for key, size in sizes_of(account).items())
    resting = tuple(order.id for order in account.orders or ())
    counted = _newest((), account.fills or ())
    return LockedAccount(lock.decision, account.account, positions, resting, account.observed_at, counted=counted)


def followed(book: LockedAccount, account: AccountSnapshot, lock: WrittenLock) -> LockedAccount:
    """The book after a further snapshot. Where a position is smaller than ever, its fills are counted again from 0."""
    if account.observed_at is not None and account.observed_at == book.observed_at:
        return book
    known = {(each.symbol, each.side): each for each in book.positions}
    is_known = account.positions is not None
    fills = [
        fill
        for fill in account.fills or ()
        if fill.cause == "trade" and fill.at >= lock.since and fill.id not in book.counted
    ]
    sizes, added = sizes_of(account), _added(fills)
    positions = []
    for key in dict.fromkeys((*known, *sizes, *added)):
        before, size = known.get(key, LockedPosition(*key, ZERO)), sizes.get(key, ZERO)
        filled = before.filled + added.get(key, ZERO)
        is_least = is_known and size < before.least
        positions.append(LockedPosition(*key, size) if is_least else replace(before, filled=filled))
    opening = [fill for fill in fills if _has_opened(fill, sizes)]
    by_resting = book.by_resting and all(fill.order in book.resting for fill in opening)
    is_blind = book.is_blind or account.fills is None
    return replace(
        book, positions=tuple(positions), observed_at=account.observed_at, by_resting=by_resting, is_blind=is_blind,
        counted=_newest(book.counted, account.fills or ()),
    )  # fmt: skip


def _newest(counted: tuple[str, ...], fills: Iterable[Fill]) -> tuple[str, ...]:
    """The ids of the fills so far, at most so many: a run reads an hour back, and further after an outage only."""
    new = [fill.id for fill in fills if fill.id not in counted]
    return (*counted, *new)[-COUNTED:] if new else counted


def sizes_of(account: AccountSnapshot) -> dict[tuple[str, Side], Decimal]:
    """(symbol, side) → contracts of all rows."""
    sizes: dict[tuple[str, Side], Decimal] = {}
    for row in account.positions or ():
        sizes[row.key] = sizes.get(row.key, ZERO) + row.contracts
    return sizes


def _has_opened(fill: Fill, sizes: Mapping[tuple[str, Side], Decimal]) -> bool:
    """Whether the account holds a position that the fill can have opened or enlarged."""
    key = enlarged_by(fill.symbol, fill.side, fill.position_side)
    return key is not None and sizes.get(key, ZERO) > ZERO


def _added(fills: Iterable[Fill]) -> dict[tuple[str, Side], Decimal]:
    added: dict[tuple[str, Side], Decimal] = {}
    for fill in fills:
        if (key := enlarged_by(fill.symbol, fill.side, fill.position_side)) is not None:
            added[key] = added.get(key, ZERO) + fill.amount
    return added
