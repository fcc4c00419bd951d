"""The orders of a decision, folded from its journal: how each was sent, what came of it, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Literal

from msgspec import Struct, structs

from killswitch.incident.record.decision_basis import DecidedOn, Purpose
from killswitch.incident.record.decision_basis import Key as Key
from killswitch.model.decision import Decision, Rung, Unwinding
from killswitch.model.snapshot import Position, Snapshot
from killswitch.model.store import JournalEntry
from killswitch.risk.trading_cost import Marked, delay_cost, slipped

Fate = Literal["final", "in flight", "set aside", "abandoned"]
"""abandoned: the venue was asked to the end and did not say; it may be filled all the same."""

_CLOSE_ENOUGH = Decimal("0.001")
"""Of the notional: how far a linear contract's P&L may be from (mark − entry) × size and still count as linear."""
_ANSWERS = frozenset({"acknowledged", "unknown", "rejected", "absent", "filled", "set_aside", "abandoned"})
RESTING, ACCEPTED = "resting at the venue", "accepted by the venue"
"""The outcome of an order that the venue has, as long as it says no more: a limit order rests, any other does not."""
_FATES: Mapping[str, Fate] = {
    "rejected": "final", "absent": "final", "filled": "final", "set_aside": "set aside", "abandoned": "abandoned",
}  # fmt: skip


class Bound(Struct, frozen=True):
    """The slippage that was declared for an order, and what became of it; fractions of the mark that it was sent at.

    `sent` is false for an order that went without a limit: what it slipped, nothing held. `slipped` is null where
    nothing was filled or the price is unknown, below 0 for a better price than the mark. `kept` compares the two.
    `beyond_limit`: the venue filled it at a worse price than the order's own limit.
    """

    declared: Decimal
    sent: bool
    slipped: Decimal | None
    kept: bool | None
    beyond_limit: bool = False


class OrderLine(Struct, frozen=True):
    """One attempt: what was sent, and what the venue said of it. Null where it has not said, or it is not known.

    `kind` is `limit_ioc`, `market` or `limit`, `rung` the step of the ladder (from 0), `limit` its price. `mark` is the
    decision's, `arrival_mark` that at which the order was sent. `slippage` is what the fill was worse than the latter,
    `delay` what the market moved from the first to the second, `realised` is before the fee, all in the account's
    currency.
    """

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
    fate: Fate = "in flight"
    kind: str | None = None
    rung: int | None = None
    limit: Decimal | None = None
    purpose: Purpose = "reduce"
    mark: Decimal | None = None
    slippage: Decimal | None = None
    realised: Decimal | None = None
    bound: Bound | None = None
    was_unknown: bool = False
    """Whether its fate was unknown for a while: no answer said what had happened."""
    arrival_mark: Decimal | None = None
    delay: Decimal | None = None
    fee_unknown: str | None = None
    """Why its fee is not known, once its fills were asked for it; what was paid in another asset is told here."""

    @property
    def did_nothing(self) -> bool:
        """Whether the venue refused it, or never had it."""
        return self.is_absent or self.outcome.startswith("rejected")

    @property
    def is_absent(self) -> bool:
        """Whether the venue, asked for it, had no such order."""
        return self.outcome.startswith("never reached")


def order_lines(
    decision: Decision, journal: Sequence[JournalEntry], snapshot: Snapshot | None
) -> tuple[OrderLine, ...]:
    """Each `sending` with the last thing that was said about it. One sent again under its name is one line more.

    `journal`: the decision's entries in sequence. `snapshot`: what it was decided on, where that was kept.
    """
    marks, decided_on = _marks(journal), DecidedOn(decision, snapshot)
    found: list[OrderLine] = []
    arrivals: list[Marked | None] = []
    latest: dict[str, int] = {}
    for entry in journal:
        if entry.kind == "sending" and entry.account is not None and entry.symbol is not None:
            latest[entry.client_order_id or ""] = len(found)
            found.append(_sent(decided_on, entry))
            arrivals.append(_marked(entry))
        elif entry.kind in _ANSWERS:
            index = latest.get(entry.client_order_id or "")
            if index is not None:
                found[index] = _answered(found[index], entry)
        elif entry.kind == "charged" and (index := latest.get(entry.client_order_id or "")) is not None:
            fee, why = number(entry, "fee"), entry.data.get("text")
            found[index] = structs.replace(found[index], fee=fee, fee_unknown=why)
    return tuple(
        _counted(line, decided_on, decision.unwinding, marks.get(position_of(line)), arrival)
        for line, arrival in zip(found, arrivals, strict=True)
    )


def number(entry: JournalEntry, name: str) -> Decimal | None:
    """A number of a journal entry; None, unknown, for what is no finite number."""
    text = entry.data.get(name)
    try:
        value = None if text is None else Decimal(text)
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


def key_of(entry: JournalEntry) -> Key:
    """The position that an entry is about."""
    return (entry.account, entry.symbol, entry.position_side)


def position_of(order: OrderLine) -> Key:
    """The position that an order is about."""
    return (order.account, order.symbol, order.position_side)


def _sent(decided_on: DecidedOn, entry: JournalEntry) -> OrderLine:
    rung = entry.data.get("rung")
    return OrderLine(
        account=entry.account or "",
        symbol=entry.symbol or "",
        position_side=entry.position_side,
        side=entry.data.get("side"),
        attempt=entry.attempt,
        client_order_id=entry.client_order_id,
        sent_at=entry.at,
        amount=number(entry, "amount"),
        outcome="no answer yet",
        kind=entry.data.get("order"),
        rung=int(rung) if rung is not None and rung.isascii() and rung.isdigit() else None,
        limit=number(entry, "price"),
        purpose=decided_on.purpose(key_of(entry), entry.client_order_id),
    )


def _answered(order: OrderLine, entry: JournalEntry) -> OrderLine:
    words = {
        "acknowledged": RESTING if order.kind == "limit" else ACCEPTED,
        "unknown": "fate unknown, being asked about",
        "set_aside": "fate unknown, set aside: its position goes on without it",
        "abandoned": "fate unknown, and asked about no more",
        "rejected": f"rejected: {entry.data.get('reason') or 'no reason given'}",
        "absent": "never reached the venue",
        "filled": entry.data.get("state") or "filled",
    }
    return structs.replace(
        order,
        outcome=words[entry.kind],
        answered_at=entry.at,
        filled=number(entry, "filled"),
        price=number(entry, "price"),
        fee=number(entry, "fee"),
        text=entry.data.get("text"),
        fate=_FATES.get(entry.kind, "in flight"),
        was_unknown=order.was_unknown or entry.kind in ("unknown", "set_aside", "abandoned"),
    )


def _marks(journal: Sequence[JournalEntry]) -> dict[Key, Marked]:
    """Position → its mark as it was decided on."""
    planned = [(key_of(entry), _marked(entry)) for entry in journal if entry.kind == "planned"]
    return {key: marked for key, marked in reversed(planned) if marked is not None}


def _marked(entry: JournalEntry) -> Marked | None:
    return Marked.of(number(entry, "mark"), number(entry, "value"))


def _counted(
    line: OrderLine,
    decided_on: DecidedOn,
    unwinding: Unwinding | None,
    decided: Marked | None,
    arrival: Marked | None,
) -> OrderLine:
    key = position_of(line)
    slippage = None
    if arrival is not None and line.price is not None and line.filled:
        slippage = arrival.cost(line.side, line.filled, line.price)
    return structs.replace(
        line,
        mark=None if decided is None else decided.mark,
        arrival_mark=None if arrival is None else arrival.mark,
        slippage=slippage,
        delay=delay_cost(line.side, line.filled, decided, arrival) if line.filled else None,
        realised=_realised(line, decided_on.held(key)) if line.purpose == "reduce" else None,
        bound=_bound(line, decided_on.band(key), unwinding, arrival),
    )


def _bound(line: OrderLine, band: Decimal | None, unwinding: Unwinding | None, arrival: Marked | None) -> Bound | None:
    """None where no bound was declared for the position, or the order was sent by a program that knew none."""
    if band is None or line.kind is None:
        return None
    by = None
    if arrival is not None and line.price is not None and line.filled:
        by = slipped(line.side, arrival.mark, line.price)
    worse = False
    if line.limit is not None and line.price is not None and line.filled:
        worse = line.price < line.limit if line.side == "sell" else line.price > line.limit
    kept = None if by is None else by <= band
    return Bound(band, line.limit is not None and _is_bounded(line, unwinding), by, kept, worse)


def _is_bounded(line: OrderLine, unwinding: Unwinding | None) -> bool:
    """Whether the rung limits the order by the band; a rung that is not known does not."""
    ladder: Sequence[Rung] = () if unwinding is None else unwinding.ladder
    if line.rung is None or line.rung >= len(ladder):
        return False
    return ladder[line.rung].order != "market"


def _realised(order: OrderLine, position: Position | None) -> Decimal | None:
    """P&L of a fill before fees, from the entry price that was seen; None unless the contract is surely linear."""
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
