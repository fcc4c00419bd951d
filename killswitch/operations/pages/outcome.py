"""The page of an operator command that was processed: its decisions, their results, its notices, and the lock."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from killswitch.incident.record.order_lines import ACCEPTED, RESTING, OrderLine
from killswitch.incident.record.results import Result
from killswitch.model.decision import Decision, Notice, decision_record
from killswitch.model.legible import one_line
from killswitch.operations.pages.wording import amount_in, headline
from killswitch.operations.status import LockView
from killswitch.render.document import Items, Page, Section, section
from killswitch.render.formats import count_of


class CommandOutcome(Struct, frozen=True):
    """What an operator command resulted in."""

    results: tuple[tuple[Decision, Result], ...]
    notices: tuple[Notice, ...]
    continuation: str
    """Which process continues closes that are in progress."""
    fired_again: Decision | None = None
    """The decision that locked the scope again after its reset."""
    lock: LockView | None = None
    """The lock of the scope of a reset; None for other commands, and where no lock is written."""
    closing: tuple[str, ...] = ()
    """Ids of the decisions whose closes keep that lock."""
    splits_notices: bool = False
    """Whether each part of a notice has a line: an `apply` lists every change since its plan."""

    @property
    def is_failed(self) -> bool:
        """Whether the command was refused, or a manual close did not reach its end."""
        # A page about a wait for an account is no failure once the wait is over.
        return any(notice.kind == "nothing_selected" for notice in self.notices) or any(
            decision.kind == "manual" and result.standing not in ("flat", "at target", "nothing to close")
            for decision, result in self.results
        )


def outcome_page(outcome: CommandOutcome) -> Page:
    """One section per decision and notice; the lock of a reset comes last."""
    return Page("Outcome", sections=tuple(_sections(outcome)))


def outcome_record(outcome: CommandOutcome) -> dict[str, object]:
    """The outcome as one JSON object."""
    records = [{"decision": decision_record(decision), "result": result} for decision, result in outcome.results]
    return {"decisions": records, "notices": outcome.notices, "lock": outcome.lock}


def _sections(outcome: CommandOutcome) -> Iterator[Section]:
    for decision, result in outcome.results:
        yield from _decision(decision, *_result(decision, result, outcome.continuation))
    for notice in outcome.notices:
        if outcome.splits_notices:
            first, *others = notice.text.split("; ")
            yield Section(first, (Items(tuple(others)),))
        else:
            yield from section("", notice.text)
    if outcome.fired_again is not None:
        yield from _decision(outcome.fired_again, "it fired again: its triggers are still true")
    if outcome.lock is not None:
        yield from section("", _lock_text(outcome.lock, outcome.closing))


def _decision(decision: Decision, *lines: str) -> Iterator[Section]:
    yield from section(f"{headline(decision)}  [{decision.id}]", Items(lines))


def _result(decision: Decision, result: Result, continuation: str) -> list[str]:
    if decision.kind == "reset":
        return ["back to normal"]
    in_progress = [f"in progress: {continuation}"] if result.standing == "closing" else []
    return [*result_lines(result), *in_progress]


def _lock_text(lock: LockView, closing: tuple[str, ...]) -> str:
    if not lock.ordered:
        return f"{lock.scope} is not locked"
    if not lock.has_own:
        return f"{lock.scope} has no lock of its own, but is locked by {', '.join(lock.wider)}: {lock.reason}"
    if closing:
        return f"{lock.scope} stays locked until the close of {', '.join(closing)} ends"
    return f"{lock.scope} is still locked: {lock.reason}"


def result_lines(result: Result) -> list[str]:
    """Status of a close, what was reduced and paid, and why positions remain."""
    positions = f"{count_of(result.closed, 'position')} reduced"
    reasons = [f"{ending.account}: {ending.reason}" for ending in result.endings if ending.reason]
    reasons += [f"{account}: no order was sent: the account is not armed" for account in result.unsent]
    if result.standing == "closing":
        reasons += _remaining(result)
    return [f"{result.standing}, {positions}, fees {amount_in(result.currencies, result.fees)}", *reasons]


def _remaining(result: Result) -> Iterator[str]:
    """Positions that are not at their target, the reason by their last order, and what an operator can do."""
    hints: dict[str, None] = {}
    ended = {ending.account for ending in result.endings}  # the ending has the reason
    for each in result.positions:
        held = each.start if each.left is None else each.left
        if held <= each.target or each.account in ended:
            continue
        place = (each.account, each.symbol, each.side)
        sent = [it for it in result.orders if (it.account, it.symbol, it.position_side) == place]
        why, hint = _reason_and_hint(sent[-1]) if sent else ("no order sent yet", "")
        yield f"left: {held - each.target:f} {each.symbol} {each.side or ''}".rstrip() + f": {why}"
        hints |= {hint: None} if hint else {}
    yield from hints


def _reason_and_hint(order: OrderLine) -> tuple[str, str]:
    detail = f" ({one_line(order.text)})" if order.text else ""
    if order.outcome in (RESTING, ACCEPTED):
        return (
            f"the venue holds the order and has not filled it{detail}",
            "if trading is halted, a resting order fills when trading resumes; cancel it at the venue to withdraw it",
        )
    if order.outcome == f"rejected: {MARKET_CLOSED}":
        return (
            f"the venue accepts no orders for it now: the market is closed or trading is halted{detail}",
            "rejected orders are sent again when trading resumes, while a runner is alive",
        )
    return f"its last order: {order.outcome}{detail}", ""


MARKET_CLOSED = "market_closed"
"""Rejection reason of a closed or halted market."""
