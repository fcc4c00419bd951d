"""The orders of an incident with their outcomes, the positions left, and the sums of the close."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.document import AccountClose, Money, OrderOutcome, PositionLeft
from killswitch.incident.record.order_lines import OrderLine
from killswitch.incident.record.results import RecordedDecision, Result
from killswitch.incident.record.totals import add_up
from killswitch.journal.entries import Place, is_plan
from killswitch.model.decision import Decision

_AS_FOLDED = set(OrderOutcome.__struct_fields__) & set(OrderLine.__struct_fields__) - {"text"}


def outcomes(recorded: Iterable[tuple[Decision, Result]]) -> tuple[OrderOutcome, ...]:
    """Return the orders of the decisions in the order of sending, numbered from 1."""
    lines = [(decision, line) for decision, result in recorded for line in result.orders]
    return tuple(_outcome(decision, line, number) for number, (decision, line) in enumerate(lines, start=1))


def _outcome(decision: Decision, line: OrderLine, number: int) -> OrderOutcome:
    folded: dict[str, Any] = {name: getattr(line, name) for name in _AS_FOLDED}
    return OrderOutcome(
        number=number,
        decision=decision.id,
        stage=stage_text(decision),
        text=line.text or line.fee_unknown,
        final=line.fate == "final",
        **folded,
    )


def stage_text(decision: Decision) -> str:
    """Return the stage that fired, or the text that replaces it where none did."""
    if decision.kind == "hedge":
        return "temporary hedge"
    return decision.stage or "close by hand"


def positions_left(recorded: Iterable[RecordedDecision], closed: Sequence[ClosedPosition]) -> list[PositionLeft]:
    """Return every position that was planned to be reduced, with the smallest target, as the venue showed it last."""
    first: dict[Place, str] = {}
    for each in recorded:
        for entry in each.journal:
            if is_plan(entry):
                first.setdefault(entry.place, each.decision.id)
    return [_position(first.get(one.place, ""), one) for one in closed]


def _position(decision: str, one: ClosedPosition) -> PositionLeft:
    to_close = None if one.left is None else max(Decimal(0), one.left - one.target)
    return PositionLeft(
        decision, one.account, one.symbol, one.side, one.target, one.left, to_close, one.seen_at, one.dust, one.worth
    )


def account_closes(recorded: RecordedDecision) -> list[AccountClose]:
    """Return how the work on each account ended; `closing` for work under way."""
    id_ = recorded.decision.id
    ended = [AccountClose(id_, each.account, each.status, each.at, each.reason) for each in recorded.result.endings]
    names = dict.fromkeys(e.account for e in recorded.journal if is_plan(e) and e.account is not None)
    finished = {each.account for each in ended}
    return ended + [AccountClose(id_, name, "closing", None, None) for name in names if name not in finished]


def close_money(lines: Sequence[OrderLine], currency: str | None, *, has_whole_book: bool) -> Money:
    """Return the sums of all closes; None wherever a part is unknown, or nothing was sent.

    Orders are numbered as in `outcomes`. `has_whole_book` says that a whole-book request closed something as well.
    """
    sums = add_up(lines, has_whole_book=has_whole_book)
    if not any(line.filled for line in lines):
        unclear = has_whole_book or any(line.fate != "final" for line in lines)
        if unclear or not lines:
            return Money(None, None, None, None, currency, sums["missing"] if unclear else ())
    fees, slippage = sums["fees"], sums["slippage"]
    return Money(cost=None if fees is None or slippage is None else fees + slippage, currency=currency, **sums)
