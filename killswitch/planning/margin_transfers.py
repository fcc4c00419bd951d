"""Margin that policies move to an account: the amount, what of earlier ones is on the way, and what bounds the next.

With maintenance margin M, margin balance B and target ratio r, M ÷ r − B is missing until M ÷ B is r. What was decided
counts as moved until the venue shows a row of exactly its amount, whatever the answer to the request was: from then on
it is a part of the balance, and has left the source. After a day it is forgotten, with the bound that it used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.effects import Transfer
from killswitch.model.instant import DAY
from killswitch.model.snapshot import AccountSnapshot, Flow
from killswitch.valuation.position_measures import ZERO

STEP = Decimal("0.00000001")
"""The step of amounts: no currency of a venue has a finer one."""
_UP, _DOWN = Context(prec=50, rounding=ROUND_CEILING), Context(prec=50, rounding=ROUND_FLOOR)


class MovedMargin(Struct, frozen=True, omit_defaults=True):
    """A transfer that was decided at `at` (microseconds).

    `arrived` and `left`: the ids of the rows that show it in the account and in the source; None while none does.
    """

    at: int
    source: str
    account: str
    amount: Decimal
    arrived: str | None = None
    left: str | None = None


class MarginNeed(Struct, frozen=True):
    """An account's maintenance margin and balance, the latter with what is on the way, and the ratio to reach.

    `partial`: the ratio that a smaller amount must reach; None: no smaller one is moved.
    """

    maintenance: Decimal
    balance: Decimal
    ratio: Decimal
    partial: Decimal | None = None

    @property
    def whole(self) -> Decimal:
        """The amount after which the ratio is reached, rounded up; 0 if it is."""
        missing = _UP.subtract(_UP.divide(self.maintenance, self.ratio), self.balance)
        return max(ZERO, missing.quantize(STEP, context=_UP))

    def amount(self, available: Decimal) -> Decimal | None:
        """What is moved of `available`: the whole amount, or as much as there is if that reaches `partial`.

        None if neither does, and there is something to move.
        """
        whole = self.whole
        if available >= whole:
            return whole
        part = available.quantize(STEP, context=_DOWN)
        is_enough = self.partial is not None and self.maintenance <= self.partial * (self.balance + part)
        return part if part > ZERO and is_enough else None


def moved_by(transfer: Transfer, now: int) -> MovedMargin:
    """The record of a transfer that is decided at `now` (microseconds)."""
    return MovedMargin(now, transfer.source, transfer.account, transfer.amount)


def of_day(moved: Iterable[MovedMargin], now: int) -> list[MovedMargin]:
    """Those of the last 24 hours."""
    return [each for each in moved if now - each.at < DAY]


def used(moved: Iterable[MovedMargin], now: int) -> Decimal:
    """What was moved in the last 24 hours."""
    return sum((each.amount for each in of_day(moved, now)), ZERO)


def arriving(moved: Iterable[MovedMargin], account: str, now: int) -> Decimal:
    """What is on the way to the account."""
    return sum((it.amount for it in of_day(moved, now) if it.account == account and it.arrived is None), ZERO)


def leaving(moved: Iterable[MovedMargin], source: str, now: int) -> Decimal:
    """What the source still shows, and has given away."""
    return sum((it.amount for it in of_day(moved, now) if it.source == source and it.left is None), ZERO)


def shown(
    moved: Sequence[MovedMargin], accounts: Iterable[AccountSnapshot], taken: Collection[str], now: int
) -> list[MovedMargin]:
    """The transfers of the last 24 hours, with the rows of a snapshot that show them, each row for one.

    `taken`: the ids of rows that show other transfers.
    """
    rows = {account.account: account.flows or () for account in accounts}
    ids = set(taken)
    found = []
    for each in of_day(moved, now):
        arrived = each.arrived or _row(rows.get(each.account, ()), each.amount, each.account, ids)
        left = each.left or _row(rows.get(each.source, ()), -each.amount, each.source, ids)
        found.append(replace(each, arrived=arrived, left=left))
    return found


def rows_of(moved: Iterable[MovedMargin]) -> set[str]:
    """The ids of the rows that show these transfers."""
    return {row for each in moved for row in (each.arrived, each.left) if row is not None}


def _row(flows: Iterable[Flow], amount: Decimal, account: str, taken: set[str]) -> str | None:
    """The id of the first row of this amount that shows no other transfer, which then is taken."""
    for flow in flows:
        key = f"{account}/{flow.id}"
        if flow.kind in ("transfer", "deposit", "withdrawal") and flow.amount == amount and key not in taken:
            taken.add(key)
            return key
    return None
