"""Every order of an incident and its outcome, what is still open, and what the close came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.document import Ended, Money, OrderOutcome, PositionLeft
from killswitch.incident.record.order_lines import OrderLine
from killswitch.incident.record.results import Result
from killswitch.incident.record.totals import missing_of, sum_of
from killswitch.journal.entries import Entry, Place, is_plan
from killswitch.model.decision import Decision


def outcomes(decision: Decision, result: Result, first: int) -> list[OrderOutcome]:
    """The orders of one decision in the order in which they were sent, numbered from `first`."""
    return [_outcome(decision, line, number) for number, line in enumerate(result.orders, start=first)]


def _outcome(decision: Decision, line: OrderLine, number: int) -> OrderOutcome:
    return OrderOutcome(
        number=number,
        decision=decision.id,
        stage=stage_of(decision),
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
        mark=line.mark,
        slippage=line.slippage,
        fee=line.fee,
        outcome=line.outcome,
        text=line.text or line.fee_unknown,
        final=line.fate == "final",
        fate=line.fate,
        kind=line.kind,
        rung=line.rung,
        limit=line.limit,
        purpose=line.purpose,
        realised=line.realised,
        bound=line.bound,
        was_unknown=line.was_unknown,
        arrival_mark=line.arrival_mark,
        delay=line.delay,
    )


def stage_of(decision: Decision) -> str:
    """The stage that fired; what stands in its place where none did."""
    if decision.kind == "hedge":
        return "temporary hedge"
    return decision.stage or "close by hand"


def positions(
    journals: Iterable[tuple[Decision, Sequence[Entry]]], became: Sequence[ClosedPosition]
) -> list[PositionLeft]:
    """Every position that was planned to be reduced, at the smallest target, as the venue showed it last."""
    first: dict[Place, str] = {}
    for decision, journal in journals:
        for entry in journal:
            if is_plan(entry):
                first.setdefault(entry.place, decision.id)
    return [_position(first.get((each.account, each.symbol, each.side), ""), each) for each in became]


def _position(decision: str, became: ClosedPosition) -> PositionLeft:
    return PositionLeft(
        decision,
        became.account,
        became.symbol,
        became.side,
        became.target,
        became.left,
        None if became.left is None else max(Decimal(0), became.left - became.target),
        became.seen_at,
        became.dust,
        became.worth,
    )


def endings(decision: Decision, journal: Sequence[Entry], result: Result) -> list[Ended]:
    """How the work on each account ended; one that has not is `closing`."""
    ended = [Ended(decision.id, each.account, each.status, each.at, each.reason) for each in result.endings]
    names = dict.fromkeys(e.account for e in journal if is_plan(e) and e.account is not None)
    finished = {each.account for each in ended}
    return ended + [Ended(decision.id, name, "closing", None, None) for name in names if name not in finished]


def money_of(lines: Sequence[OrderLine], currency: str | None, *, swept: bool) -> Money:
    """What all closes came to; None wherever a part is unknown, an order's fate too, and where nothing was sent.

    Orders are numbered as `outcomes` numbers them: from 1, in the order of `lines`. `swept`: a whole-book request has
    closed something besides.
    """
    missing = missing_of(lines, swept=swept)
    if not any(line.filled for line in lines):
        unclear = swept or any(line.fate != "final" for line in lines)
        if unclear or not lines:
            return Money(None, None, None, None, currency, missing if unclear else ())
    fees, slippage = sum_of("fees", lines, swept=swept), sum_of("slippage", lines, swept=swept)
    cost = None if fees is None or slippage is None else fees + slippage
    realised, delay = sum_of("realised", lines, swept=swept), sum_of("delay", lines, swept=swept)
    return Money(realised, fees, slippage, cost, currency, missing, delay)
