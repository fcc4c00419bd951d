"""The page of an operator command that was processed: its decisions, their results, its notices, and the lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from killswitch.incident.record.order_outcomes import ACCEPTED, REJECTED, RESTING, OrderOutcome
from killswitch.incident.record.results import Result
from killswitch.model.decision import Decision, LockOrder, Notice, decision_record
from killswitch.model.effects import Cancels, Lock, kind_of, locked_place, of_kind
from killswitch.model.legible import STORE_OPTION, one_line, with_store
from killswitch.operations.pages.wording import amount_in, headline
from killswitch.operations.status import LockView
from killswitch.render.document import Items, Page, Section, section
from killswitch.render.formats import count_of, instant


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
    bases: Mapping[str, str] = {}
    """Id of a reset's decision → the equity of its scope, from which stages measure their losses then."""
    store: str = ""
    """The store of the command, for the commands that follow it."""
    splits_notices: bool = False
    """Whether each part of a notice has a line: an `apply` lists every change since its plan."""

    @property
    def is_failed(self) -> bool:
        """Whether the command was refused, or a manual close did not reach its end."""
        # A page about a wait for an account is no failure once the wait is over.
        refused = any(notice.kind == "nothing_selected" for notice in self.notices)
        return refused or any(_is_failed(*each) for each in self.results)


def outcome_page(outcome: CommandOutcome) -> Page:
    """One section per decision and notice; the lock of a reset comes last."""
    return Page("Outcome", sections=tuple(_sections(outcome)))


def outcome_record(outcome: CommandOutcome) -> dict[str, object]:
    """The outcome as one JSON object."""
    records = [{"decision": decision_record(decision), "result": result} for decision, result in outcome.results]
    return {"decisions": records, "notices": outcome.notices, "lock": outcome.lock}


def _sections(outcome: CommandOutcome) -> Iterator[Section]:
    for decision, result in outcome.results:
        lines = _result(decision, result, outcome)
        if decision.id in outcome.bases:
            lines.append(_basis_line(outcome.bases[decision.id], decision))
        yield from _decision(decision, *lines)
    for notice in outcome.notices:
        if outcome.splits_notices:
            first, *others = notice.text.split("; ")
            yield Section(first, (Items(tuple(others)),))
        else:
            yield from section("", with_store(notice.text, outcome.store))
    if outcome.fired_again is not None:
        yield from _decision(outcome.fired_again, "it fired again: its triggers are still true")
    if outcome.lock is not None:
        is_unlock = any(decision.is_unlock for decision, _ in outcome.results)
        yield from section("", _lock_text(outcome.lock, outcome.closing, is_unlock=is_unlock))


def _decision(decision: Decision, *lines: str) -> Iterator[Section]:
    yield from section(f"{headline(decision)}  [{decision.id}]", Items(lines))


def _is_failed(decision: Decision, result: Result) -> bool:
    if decision.is_hold:
        effects = decision.effects
        if of_kind(effects, Lock) is not None and result.locked_at is None:
            return True
        if of_kind(effects, Cancels) is None:
            return False
    return decision.kind == "manual" and result.standing not in ("flat", "at target", "nothing to close")


def _result(decision: Decision, result: Result, outcome: CommandOutcome) -> list[str]:
    if decision.kind == "reset":
        return ["no lock by hand is left" if decision.is_unlock else "back to normal; the loss is accepted"]
    lines = hold_lines(decision, result) if decision.is_hold else result_lines(result)
    lock = of_kind(decision.effects, Lock)
    if lock is not None and result.standing != "recorded only":
        verb = "resume" if decision.command == "pause" else "unlock"
        lines.append(_lock_line(lock.order, verb, outcome.store, is_written=result.locked_at is not None))
    return [*lines, *([f"in progress: {outcome.continuation}"] if result.standing == "closing" else [])]


def _basis_line(equity: str, reset: Decision) -> str:
    """From what stages measure after a reset by an operator."""
    return f"the next stage measures from {equity}, the equity at {instant(reset.as_of)}: start, peak and windows"


def _lock_line(order: LockOrder, verb: str, store: str, *, is_written: bool) -> str:
    """The lock of a command in one line, and the command that lifts it."""
    where = locked_place(order)
    if not is_written:
        return (
            f"the lock of {where} ({order.mode}) is not written yet, and a runner repeats it: bots may still "
            "trade there"
        )
    end = f"until {instant(order.until)}" if order.until else f"until `{_lifting_command(order.scope, store, verb)}`"
    return f"{where} is locked ({order.mode}) {end}"


def _lifting_command(scope: str, store: str, verb: str) -> str:
    return with_store(f"ksctl {verb} {scope} --reason '' {STORE_OPTION}", store)


def _lock_text(lock: LockView, closing: tuple[str, ...], *, is_unlock: bool) -> str:
    if not lock.ordered:
        return f"{lock.scope} is not locked"
    if not lock.has_own:
        return f"{lock.scope} has no lock of its own, but is locked by {', '.join(lock.wider)}: {lock.reason}"
    if closing:
        return f"{lock.scope} stays locked until the close of {', '.join(closing)} ends"
    remedy = (
        f"; `ksctl reset {lock.scope}` ends every lock and latch of the scope, and accepts the loss"
        if is_unlock
        else ""
    )
    return f"{lock.scope} is still locked: {lock.reason}{remedy}"


def hold_lines(decision: Decision, result: Result) -> list[str]:
    """What a halt or a cancel has cancelled, and what it leaves; nothing for a plain lock."""
    if decision.command is None:
        return []
    if result.standing == "recorded only":
        return ["nothing is locked or cancelled: no account of the scope is armed"]
    cancels = of_kind(decision.effects, Cancels)
    cancelled, wanted = len(result.cancelled), 0 if cancels is None else kind_of(cancels).size(cancels)
    reasons = [f"{ending.account}: {ending.reason}" for ending in result.endings if ending.reason]
    reasons += [f"{account}: nothing was cancelled: the account is not armed" for account in result.unsent]
    return [f"{cancelled} of {count_of(wanted, 'resting order')} cancelled; no position is closed", *reasons]


def result_lines(result: Result) -> list[str]:
    """Status of a close, what was reduced and paid, and why positions remain."""
    positions = f"{count_of(result.closed, 'position')} reduced"
    reasons = [f"{ending.account}: {ending.reason}" for ending in result.endings if ending.reason]
    reasons += [f"{account}: no order was sent: the account is not armed" for account in result.unsent]
    if result.standing == "closing":
        reasons += _remaining(result)
    # Without an order there is no fee, and no currency of one.
    fees = f", fees {amount_in(result.currencies, result.fees)}" if result.currencies or result.fees is None else ""
    return [f"{result.standing}, {positions}{fees}", *reasons]


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


def _reason_and_hint(order: OrderOutcome) -> tuple[str, str]:
    detail = f" ({one_line(order.text)})" if order.text else ""
    if order.outcome in (RESTING, ACCEPTED):
        return (
            f"the venue holds the order and has not filled it{detail}",
            "if trading is halted, a resting order fills when trading resumes; cancel it at the venue to withdraw it",
        )
    if order.outcome == f"{REJECTED}: {MARKET_CLOSED}":
        return (
            f"the venue accepts no orders for it now: the market is closed or trading is halted{detail}",
            "rejected orders are sent again when trading resumes, while a runner is alive",
        )
    return f"its last order: {order.outcome}{detail}", ""


MARKET_CLOSED = "market_closed"
"""Rejection reason of a closed or halted market."""
