"""The verdict on a line, the target of one decision on one position: which order it may send now. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from enum import Enum

from killswitch.execution.closing_pace import ClosingPace
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Instrument

_RULED_OUT = frozenset({"below_minimum"})
"""Refusals that no further order changes."""
_RULES = frozenset({"below_minimum", "market_closed", "permission"})
"""Refusals that follow from the venue's rules: what they leave is blocked, not merely residual."""

Slot = tuple[str, ...]
"""The key that only one line at a time may trade: a position, or a line that is counted by its own fills."""


class LineAction(Enum):
    NOTHING = "at target"
    WAIT = "wait"
    SEND = "send"
    CONTRADICTED = "the venue shows more than our fills have left"
    BLOCKED = "the venue's rules forbid it"
    GIVE_UP = "too many attempts"
    ABANDON = "an order's status was never known"


@dataclass(frozen=True, slots=True)
class LineVerdict:
    """What to do about a line: `amount` is set with SEND, `reason` with every action that ends the line."""

    do: LineAction
    amount: Decimal = ZERO
    reason: str | None = None

    @property
    def is_final(self) -> bool:
        return self.do in (LineAction.BLOCKED, LineAction.GIVE_UP, LineAction.ABANDON)


WAIT = LineVerdict(LineAction.WAIT)


def ended(do: LineAction, line: PositionTarget, why: str) -> LineVerdict:
    """The verdict that ends a line, with the reason."""
    return LineVerdict(do, reason=f"{line.symbol}: {why}")


def evaluate_line(
    line: PositionTarget,
    shown: Decimal,
    ledger: PositionLedger,
    instrument: Instrument | None,
    *,
    attempts: int,
    believe_venue: bool = False,
) -> LineVerdict:
    """The verdict on `line`, of whose position the venue shows `shown` contracts.

    A trim never sends more than was decided, over all attempts; a full close goes on until the venue shows no position.
    `believe_venue`: the venue has shown more than our fills have left for so long that it is accepted. For a line that
    is counted by its own fills, `shown` is what is left to trade. `attempts`: number of orders in a row without a fill
    after which a line is given up, unless it is a full close.
    """
    if line.is_in_flight or line.state is TargetState.SETTLED:
        return WAIT
    if shown <= line.target:
        return LineVerdict(LineAction.NOTHING)
    if line.refusal in _RULED_OUT:
        return LineVerdict(LineAction.BLOCKED, reason=f"{shown} of {line.symbol} is below the venue's minimum")
    if line.attempts_without_fill >= attempts and not _goes_on(line):
        do = LineAction.BLOCKED if line.refusal in _RULES else LineAction.GIVE_UP
        why = "none of them filled" if line.refusal is None else f"the last one: {line.refusal}"
        return ended(do, line, f"{line.attempts_without_fill} orders in a row closed nothing ({why})")
    wanted = _held(line, shown, ledger, believe_venue=believe_venue) - line.target
    if line.target > ZERO:
        wanted = min(wanted, left_to_close(line, ledger))
    if wanted <= ZERO:
        return _left_over(line, shown, ledger, believe_venue=believe_venue)
    return size_order(line, wanted, instrument)


def _goes_on(line: PositionTarget) -> bool:
    """Whether the line is a full close: it never ends while the venue shows a position, even if orders are refused."""
    return line.target == ZERO and not line.is_counted_by_fills


def left_to_close(line: PositionTarget, ledger: PositionLedger) -> Decimal:
    """The part of the decided amount that no decision has closed yet: two decisions that halve leave a half."""
    return line.decided - (ledger.closed - line.closed_before) - line.outstanding


def _held(line: PositionTarget, shown: Decimal, ledger: PositionLedger, *, believe_venue: bool) -> Decimal:
    """The part of the position that an order of this line may count on."""
    if line.is_counted_by_fills:
        return shown - line.outstanding
    if believe_venue and (line.is_capped_by_venue or not ledger.outstanding):
        return shown
    return ledger.closable(shown, is_capped_by_venue=line.is_capped_by_venue)


def _left_over(line: PositionTarget, shown: Decimal, ledger: PositionLedger, *, believe_venue: bool) -> LineVerdict:
    """The verdict where more than the target is shown, and nothing may be sent."""
    if line.detached or (ledger.is_waiting and not line.is_counted_by_fills):
        return WAIT
    if line.abandoned or (ledger.outstanding and not line.is_counted_by_fills):
        return ended(LineAction.ABANDON, line, "the status of an order of ours was never known")
    if not believe_venue:
        return LineVerdict(LineAction.CONTRADICTED)
    grown = f"the venue shows {shown}: the position has grown meanwhile"
    return ended(LineAction.GIVE_UP, line, f"all {line.decided} decided contracts are closed, and {grown}")


def size_order(line: PositionTarget, wanted: Decimal, instrument: Instrument | None) -> LineVerdict:
    """Size one order for `wanted` contracts within the venue's rules; planning has already sized the first one exactly.

    It leaves no remainder that is too small to be sent afterwards, and no slice is too small for the venue.
    """
    step = None if instrument is None else instrument.amount_step
    if instrument is None or not step:
        most = wanted if instrument is None or not instrument.max_amount else min(wanted, instrument.max_amount)
        return LineVerdict(LineAction.SEND, min(most, line.largest))
    is_first_order = line.attempt == 0 and line.purpose == "reduce"
    least = step if is_first_order else max(step, instrument.min_amount or ZERO)
    rounded = _floor(wanted, step)
    if rounded < least:
        return LineVerdict(LineAction.BLOCKED, reason=f"dust: {wanted} of {line.symbol} is below the venue's minimum")
    most = rounded if not instrument.max_amount else max(least, min(rounded, _floor(instrument.max_amount, step)))
    amount = min(most, max(least, _floor(line.largest, step)))
    if ZERO < rounded - amount < (instrument.min_amount or ZERO):
        amount = rounded if rounded <= most else max(least, _floor(rounded - (instrument.min_amount or ZERO), step))
    return LineVerdict(LineAction.SEND, min(amount, most))


def _floor(amount: Decimal, step: Decimal) -> Decimal:
    return (amount / step).to_integral_value(rounding=ROUND_FLOOR) * step


def select_active(lines: Iterable[PositionTarget], is_final: Callable[[PositionTarget], bool]) -> list[PositionTarget]:
    """The one line for each position that may send: the smallest target, then the most urgent, then the active one.

    Lines that have ended are skipped where another decision's line may try after them. Sorted by rank. `is_final` is
    called only where several lines meet.
    """
    slots: dict[Slot, list[PositionTarget]] = {}
    for line in lines:
        slots.setdefault(line.name if line.is_counted_by_fills else line.key, []).append(line)
    chosen = (found[0] if len(found) == 1 else _smallest(found, is_final) for found in slots.values())
    return sorted((line for line in chosen if line is not None), key=lambda line: (line.rank, line.index))


def _smallest(lines: Iterable[PositionTarget], is_final: Callable[[PositionTarget], bool]) -> PositionTarget | None:
    unfinished = (line for line in lines if not is_final(line))
    return min(unfinished, key=lambda line: (line.target, line.urgency, -line.attempt), default=None)


def stall_reason(line: PositionTarget, now: datetime, pace: ClosingPace) -> str | None:
    """Why a line that is still retried needs an operator; None if it does not."""
    for order in line.detached.values():
        if (now - order.sent_at).total_seconds() < pace.absence_after:
            continue
        return f"order {order.name} on {line.symbol} has unknown status{_since(order.sent_at)} and is being queried"
    if line.state is not TargetState.AT_TARGET and line.attempts_without_fill >= pace.fruitless_attempts:
        problem = "does not fill" if line.last_refusal is None else f"is refused repeatedly ({line.last_refusal})"
        return f"{line.symbol} {problem} and is retried"
    if line.is_in_flight and line.sent_at is not None:
        if (now - line.sent_at).total_seconds() < pace.notify_after:
            return None
        problem = "has been open" if line.state is TargetState.WORKING else "has unknown status"
        return f"order {line.client_order_id} on {line.symbol} {problem}{_since(line.sent_at)}"
    return None


def _since(at: datetime) -> str:
    return f" since {at:%Y-%m-%d %H:%M:%S} UTC"
