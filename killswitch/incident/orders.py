"""Every order of an incident and its outcome, what is still open, and what the close came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation

from killswitch.incident.record import Ended, Money, OrderOutcome, PositionLeft
from killswitch.incident.results import OrderLine, Result
from killswitch.model.decision import Decision
from killswitch.model.store import JournalEntry

Key = tuple[str | None, str | None, str | None]
"""Account, symbol and side of a position."""

_PENDING = ("no answer yet", "resting at the venue", "fate unknown")


def outcomes(decision: Decision, journal: Sequence[JournalEntry], result: Result, first: int) -> list[OrderOutcome]:
    """The orders of one decision in the order in which they were sent, numbered from `first`."""
    marks = _marks(journal)
    return [
        _outcome(decision, line, marks.get((line.account, line.symbol, line.position_side)), number)
        for number, line in enumerate(result.orders, start=first)
    ]


def _marks(journal: Sequence[JournalEntry]) -> dict[Key, tuple[Decimal, Decimal]]:
    """Position → (mark, currency that one contract moves when the mark doubles), as it was decided on."""
    found: dict[Key, tuple[Decimal, Decimal]] = {}
    for entry in journal:
        if entry.kind in ("planned", "sending"):
            mark, value = decimal(entry.data.get("mark")), decimal(entry.data.get("value"))
            if mark is not None and value is not None and mark > 0:
                found.setdefault(_key(entry), (mark, value))
    return found


def _outcome(decision: Decision, line: OrderLine, mark: tuple[Decimal, Decimal] | None, number: int) -> OrderOutcome:
    return OrderOutcome(
        number=number,
        decision=decision.id,
        stage=decision.stage or "close by hand",
        account=line.account,
        symbol=line.symbol,
        position_side=line.position_side,
        side=line.side,
        attempt=line.attempt,
        client_order_id=line.client_order_id,
        sent_at=line.sent_at,
        answered_at=line.answered_at,
        amount=line.amount,
        filled=line.filled,
        price=line.price,
        mark=None if mark is None else mark[0],
        slippage=_slippage(line, mark),
        fee=line.fee,
        outcome=line.outcome,
        text=line.text,
        final=not line.outcome.startswith(_PENDING),
    )


def _slippage(line: OrderLine, mark: tuple[Decimal, Decimal] | None) -> Decimal | None:
    """(mark − price) ÷ mark × value of what was filled, turned round for a purchase; as the closing counts cost."""
    if mark is None or line.price is None or not line.filled:
        return None
    fall = (mark[0] - line.price) / mark[0]
    return line.filled * mark[1] * (fall if line.side == "sell" else -fall)


def positions(journals: Iterable[tuple[Decision, Sequence[JournalEntry]]]) -> list[PositionLeft]:
    """Every position that was planned to be reduced, at the smallest target, as the venue showed it last."""
    planned: dict[Key, tuple[str, Decimal]] = {}
    shown: dict[Key, JournalEntry] = {}
    for decision, journal in journals:
        for entry in journal:
            key = _key(entry)
            target = decimal(entry.data.get("target"))
            if entry.kind == "planned" and entry.symbol is not None and target is not None:
                known = planned.get(key)
                planned[key] = (decision.id, target if known is None else min(known[1], target))
            elif entry.kind == "verified" and (key not in shown or entry.sequence >= shown[key].sequence):
                shown[key] = entry
    return [_position(key, *wanted, shown.get(key)) for key, wanted in planned.items()]


def _position(key: Key, decision: str, target: Decimal, shown: JournalEntry | None) -> PositionLeft:
    held = None if shown is None else decimal(shown.data.get("position"))
    to_close = None if held is None else max(Decimal(0), held - target)
    account, symbol, side = key
    return PositionLeft(
        decision, account or "", symbol or "", side, target, held, to_close, None if shown is None else shown.at
    )


def endings(decision: Decision, journal: Sequence[JournalEntry], result: Result) -> list[Ended]:
    """How the work on each account ended; one that has not is `closing`."""
    ended = [Ended(decision.id, each.account, each.status, each.at, each.reason) for each in result.endings]
    names = dict.fromkeys(e.account for e in journal if e.kind == "planned" and e.account is not None)
    finished = {each.account for each in ended}
    return ended + [Ended(decision.id, name, "closing", None, None) for name in names if name not in finished]


def money_of(results: Sequence[Result], orders: Sequence[OrderOutcome], currency: str | None) -> Money:
    """What all closes came to; None wherever a part is unknown, an order's fate too, and where nothing was filled."""
    filled = [order for order in orders if order.filled]
    if not filled or not all(order.final for order in orders):
        return Money(None, None, None, None, currency)
    realised = _sum([result.realised for result in results if any(order.filled for order in result.orders)])
    fees, slippage = _sum([order.fee for order in filled]), _sum([order.slippage for order in filled])
    cost = None if fees is None or slippage is None else fees + slippage
    return Money(realised, fees, slippage, cost, currency)


def _sum(parts: Sequence[Decimal | None]) -> Decimal | None:
    known = [part for part in parts if part is not None]
    return sum(known, Decimal(0)) if len(known) == len(parts) else None


def _key(entry: JournalEntry) -> Key:
    return (entry.account, entry.symbol, entry.position_side)


def decimal(text: str | None) -> Decimal | None:
    """A number of the journal; None, unknown, for what is no finite number."""
    try:
        value = None if text is None else Decimal(text)
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None
