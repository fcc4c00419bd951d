"""Binance's deposits, withdrawals and transfers as flows, reported when the balance changes and not when they complete.

A withdrawal leaves the balance when it is requested, completes minutes or hours later, and is returned if it fails. The
venue finds all of them by their start time. So requests go days back, and a row has the same id each time: an observer
that sees it twice counts it once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    decimal,
    identifier,
    optional_text,
    required_number,
    required_text,
    time_of,
)
from killswitch.model.snapshot import Flow

LOOK_BACK: Final = 3 * 86_400_000
"""Milliseconds before the requested time from which on rows are fetched: some are pending for days."""
CREDITED: Final = frozenset({"1", "6"})
"""`status` of a deposit that is in the balance; 6 may not be withdrawn yet."""
NOT_CREDITED: Final = frozenset({"0", "2", "7", "8"})
"""Pending, rejected, of another person, waiting for confirmation by the owner."""
LEFT_BALANCE: Final = frozenset({"0", "2", "4", "6"})
"""`status` of a withdrawal that has left the balance: mail sent, awaiting approval, processing, completed."""
RETURNED: Final = frozenset({"1", "3", "5"})
"""Cancelled, rejected, failed."""
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class BalanceFlows:
    """The flows of one account; nothing that completed before the first request is reported."""

    def __init__(self) -> None:
        self._reported_from = _NEVER
        self._pending: set[str] = set()

    def begin(self, since: int) -> None:
        """Record a request for flows from `since` (UTC ms) on; the first one decides which rows are too old."""
        if self._reported_from is _NEVER:
            self._reported_from = datetime.fromtimestamp(since / 1000, UTC)

    def deposits(self, rows: Iterable[Row], now: datetime) -> list[Flow]:
        """Deposits that are in the balance, except those that were there before the first request."""
        found = []
        for row in rows:
            if _is_funding_wallet(row):
                continue
            name, at, status = f"deposit:{_id(row)}", _at(row.get("insertTime")), str(row.get("status"))
            if status not in CREDITED | NOT_CREDITED:
                raise UnreadableError(f"{name}: unknown state {status!r}")
            if status not in CREDITED:
                self._pending.add(name)
            elif at >= self._reported_from or name in self._pending:
                amount = abs(required_number(row.get("amount"), "the amount of a deposit"))
                # The flow is dated with the credit, whose time the venue states for some deposits.
                at = _completed_at(row) or (now if name in self._pending else at)
                coin = required_text(row.get("coin"), f"the coin of {name}")
                found.append(Flow(name, at, "deposit", amount, coin))
        return found

    def withdrawals(self, rows: Iterable[Row], now: datetime) -> list[Flow]:
        """Withdrawals with their fees at the request, and again with the other sign where they failed."""
        found = []
        for row in rows:
            if _is_funding_wallet(row):
                continue
            name, at, status = f"withdrawal:{_id(row)}", _at(row.get("applyTime")), str(row.get("status"))
            if status not in LEFT_BALANCE | RETURNED:
                raise UnreadableError(f"{name}: unknown state {status!r}")
            amount = abs(required_number(row.get("amount"), "the amount of a withdrawal"))
            amount += decimal(row.get("transactionFee")) or Decimal(0)
            is_new, coin = at >= self._reported_from, required_text(row.get("coin"), f"the coin of {name}")
            if is_new:
                found.append(Flow(name, at, "withdrawal", -amount, coin))
            if status in LEFT_BALANCE:
                self._pending.add(name)
            elif is_new or name in self._pending:
                found.append(Flow(f"{name}:back", _completed_at(row) or now, "withdrawal", amount, coin))
        return found

    def transfers(self, rows: Iterable[Row], sign: int, now: datetime) -> list[Flow]:
        """Transfers between wallets of the same owner; an unconfirmed one is reported after its confirmation."""
        found = []
        for row in rows:
            name, at = f"transfer:{optional_text(row.get('tranId'))}", time_of(row.get("timestamp"), "a transfer")
            is_confirmed = str(row.get("status", "CONFIRMED")) == "CONFIRMED"
            if not is_confirmed:
                self._pending.add(name)
            elif at >= self._reported_from or name in self._pending:
                amount = sign * required_number(row.get("amount"), "the amount of a transfer")
                asset = required_text(row.get("asset"), f"the asset of {name}")
                found.append(Flow(name, now if name in self._pending else at, "transfer", amount, asset))
        return found


def _is_funding_wallet(row: Row) -> bool:
    """Whether a row concerns the funding wallet, which is no part of the account."""
    return str(row.get("walletType", "0")) == "1"


def _id(row: Row) -> str:
    return optional_text(row.get("id")) or identifier(row.get("txId"), "a deposit or withdrawal")


def _completed_at(row: Row) -> datetime | None:
    """The venue's completion time; None where it states none."""
    return _at(completed) if (completed := row.get("completeTime")) else None


def _at(value: Any) -> datetime:
    """The time of a row, in milliseconds or as `2026-01-31 12:00:00` in UTC. UnreadableError for anything else."""
    written = str(value or "")
    if written.isdecimal():
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(written))
    try:
        return datetime.strptime(written, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise UnreadableError(f"{value!r} is no time of a deposit or withdrawal") from None
