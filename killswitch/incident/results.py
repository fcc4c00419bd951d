"""What came of a decision, read from its journal: orders, fills, and how it ended on each account."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import DecodeError, Struct

from killswitch.model.decision import Decision
from killswitch.model.snapshot import Position, Snapshot, decode_snapshot
from killswitch.model.store import JournalEntry, Store

Standing = Literal[
    "recorded only", "nothing to close", "closing", "flat", "at target", "residual", "blocked", "abandoned"
]

_CLOSE_ENOUGH = Decimal("0.001")
"""Of the notional: how far a linear contract's P&L may be from (mark − entry) × size and still count as linear."""


class OrderLine(Struct, frozen=True):
    """One attempt: what was sent, and what the venue said of it. Null where it has not said."""

    account: str
    symbol: str
    position_side: str | None
    side: str | None
    attempt: int | None
    client_order_id: str | None
    sent_at: datetime
    amount: Decimal | None
    outcome: str
    answered_at: datetime | None = None
    filled: Decimal | None = None
    price: Decimal | None = None
    fee: Decimal | None = None
    text: str | None = None


class Verification(Struct, frozen=True):
    """What the venue's own account of a position said last."""

    account: str
    symbol: str
    position_side: str | None
    at: datetime
    position: Decimal
    target: Decimal


class Ending(Struct, frozen=True):
    """How the decision's work on one account ended."""

    account: str
    at: datetime
    status: str
    reason: str | None
    cost: Decimal | None


class Result(Struct, frozen=True):
    """A decision's results. `fees` and `realised` (before fees) are null where any part of them is unknown."""

    standing: Standing
    orders: tuple[OrderLine, ...]
    verified: tuple[Verification, ...]
    endings: tuple[Ending, ...]
    locked_at: datetime | None
    cancelled: tuple[str, ...]
    closed: int
    """Number of positions that were reduced."""
    fees: Decimal | None
    realised: Decimal | None


def result_of(decision: Decision, journal: Sequence[JournalEntry], snapshot: Snapshot | None) -> Result:
    """Fold `journal`, the decision's entries in sequence. `snapshot`: what it was decided on, where that was kept."""
    orders = _orders(journal)
    filled = [order for order in orders if order.filled]
    verified = {(e.account, e.symbol, e.position_side): e for e in journal if e.kind == "verified"}
    endings = tuple(
        Ending(e.account, e.at, e.data.get("status") or "abandoned", e.data.get("reason"), _number(e, "cost"))
        for e in journal
        if e.kind == "finished" and e.account is not None
    )
    return Result(
        standing=_standing(decision, journal, endings),
        orders=orders,
        verified=tuple(_verification(entry) for entry in verified.values()),
        endings=endings,
        locked_at=next((entry.at for entry in journal if entry.kind == "locked"), None),
        cancelled=tuple(entry.data.get("order") or "" for entry in journal if entry.kind == "cancelled"),
        closed=len({(order.account, order.symbol, order.position_side) for order in filled}),
        fees=_sum([order.fee for order in filled]),
        realised=_sum([_realised(order, snapshot) for order in filled]),
    )


def _standing(decision: Decision, journal: Sequence[JournalEntry], endings: tuple[Ending, ...]) -> Standing:
    ordered = [entry.account for entry in journal if entry.kind == "planned"]
    planned = {account for account in ordered if account is not None}
    if not planned:
        observed = not ordered and (decision.intents or decision.cancels or decision.lock)
        return "recorded only" if observed else "nothing to close"
    if planned - {ending.account for ending in endings}:
        return "closing"
    statuses = {ending.status for ending in endings}
    if statuses == {"flat"}:
        return "flat" if all(intent.target == 0 for intent in decision.intents) else "at target"
    for worst in ("blocked", "residual"):
        if worst in statuses:
            return "blocked" if worst == "blocked" else "residual"
    return "abandoned"


def _orders(journal: Sequence[JournalEntry]) -> tuple[OrderLine, ...]:
    """Each `sending` with the last thing that was said about it. One sent again under its name is one line more."""
    found: list[OrderLine] = []
    latest: dict[str, int] = {}
    for entry in journal:
        if entry.kind == "sending" and entry.account is not None and entry.symbol is not None:
            latest[entry.client_order_id or ""] = len(found)
            found.append(
                OrderLine(
                    entry.account, entry.symbol, entry.position_side, entry.data.get("side"), entry.attempt,
                    entry.client_order_id, entry.at, _number(entry, "amount"), "no answer yet",
                )
            )  # fmt: skip
        elif entry.kind in ("acknowledged", "unknown", "rejected", "absent", "filled"):
            index = latest.get(entry.client_order_id or "")
            if index is not None:
                found[index] = _answered(found[index], entry)
    return tuple(found)


def _answered(order: OrderLine, entry: JournalEntry) -> OrderLine:
    words = {
        "acknowledged": "resting at the venue",
        "unknown": "fate unknown, being asked about",
        "rejected": f"rejected: {entry.data.get('reason') or 'no reason given'}",
        "absent": "never reached the venue",
        "filled": entry.data.get("state") or "filled",
    }
    return OrderLine(
        order.account, order.symbol, order.position_side, order.side, order.attempt, order.client_order_id,
        order.sent_at, order.amount, words[entry.kind], entry.at,
        _number(entry, "filled"), _number(entry, "price"), _number(entry, "fee"), entry.data.get("text"),
    )  # fmt: skip


def _verification(entry: JournalEntry) -> Verification:
    return Verification(
        entry.account or "", entry.symbol or "", entry.position_side, entry.at,
        _number(entry, "position") or Decimal(0), _number(entry, "target") or Decimal(0),
    )  # fmt: skip


def _realised(order: OrderLine, snapshot: Snapshot | None) -> Decimal | None:
    """P&L of a fill before fees, from the entry price that was seen; None unless the contract is surely linear."""
    position = _position(order, snapshot)
    if position is None or order.price is None or order.filled is None or not position.contracts:
        return None
    entry, mark, pnl, notional = (
        position.entry_price, position.mark_price, position.unrealized_pnl, position.notional,
    )  # fmt: skip
    if entry is None or mark is None or pnl is None or notional is None or not mark:
        return None
    size = notional / mark / position.contracts
    sign = 1 if position.side == "long" else -1
    if abs(sign * (mark - entry) * size * position.contracts - pnl) > _CLOSE_ENOUGH * notional:
        return None
    return sign * (order.price - entry) * size * order.filled


def _position(order: OrderLine, snapshot: Snapshot | None) -> Position | None:
    if snapshot is None:
        return None
    for account in snapshot.accounts:
        if account.account == order.account:
            for position in account.positions or ():
                if position.symbol == order.symbol and position.side == order.position_side:
                    return position
    return None


def _number(entry: JournalEntry, key: str) -> Decimal | None:
    text = entry.data.get(key)
    return None if text is None else Decimal(text)


def _sum(parts: list[Decimal | None]) -> Decimal | None:
    """The sum, or None if a part is unknown."""
    known = [part for part in parts if part is not None]
    return sum(known, Decimal(0)) if len(known) == len(parts) else None


def kept_snapshot(stored: bytes | None) -> Snapshot | None:
    """The snapshot that was kept with a decision; None, too, for one that this version cannot read any more."""
    try:
        return None if stored is None else decode_snapshot(stored)
    except (DecodeError, UnicodeDecodeError):
        return None


def decided(store: Store, limit: int) -> tuple[tuple[Decision, Result], ...]:
    """The newest `limit` decisions with their results, newest first."""
    found = []
    for stored in store.decisions(limit):
        whole = store.decision(stored.decision.id)
        snapshot = None if whole is None else kept_snapshot(whole.snapshot)
        found.append((stored.decision, result_of(stored.decision, store.journal(stored.decision.id), snapshot)))
    return tuple(found)
