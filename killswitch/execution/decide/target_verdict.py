"""The verdict on the target of one decision on one position: which order may be sent towards it now. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from enum import Enum
from typing import Literal

from msgspec import Struct

from killswitch.execution.closing_pace import ClosingPace
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Instrument
from killswitch.render.formats import count_of

_RULED_OUT = frozenset({"below_minimum"})
"""Refusals that no further order changes."""
_RULES = frozenset({"below_minimum", "market_closed", "permission"})
"""Refusals that follow from the venue's rules: what they leave is blocked, not merely residual."""

Slot = tuple[str, ...]
"""The key that only one target at a time may trade: a position, or a target that is counted by its own fills."""


class TargetAction(Enum):
    NOTHING = "at target"
    WAIT = "wait"
    SEND = "send"
    CONTRADICTED = "the venue shows more than our fills have left"
    BLOCKED = "the venue's rules forbid it"
    GIVE_UP = "too many attempts"
    ABANDON = "an order's status was never known"


class TargetVerdict(Struct, frozen=True):
    """What to do about a target: `amount` is set with SEND, `reason` with every action that ends the target."""

    do: TargetAction
    amount: Decimal = ZERO
    reason: str | None = None

    @property
    def is_final(self) -> bool:
        return self.do in (TargetAction.BLOCKED, TargetAction.GIVE_UP, TargetAction.ABANDON)


WAIT = TargetVerdict(TargetAction.WAIT)


def ended(do: TargetAction, target: PositionTarget, why: str) -> TargetVerdict:
    """The verdict that ends a target, with the reason."""
    return TargetVerdict(do, reason=f"{target.symbol}: {why}")


def evaluate_target(
    target: PositionTarget,
    shown: Decimal,
    ledger: PositionLedger,
    instrument: Instrument | None,
    *,
    attempts: int,
    believe_venue: bool = False,
    grown: Decimal = ZERO,
) -> TargetVerdict:
    """The verdict on `target`, of whose position the venue shows `shown` contracts.

    A trim never sends more than was decided, over all attempts; a full close goes on until the venue shows no position.
    `believe_venue`: the venue has shown more than our fills have left for so long that it is accepted. `grown`: what
    others have surely added since our last fill, by the venue's list of fills. For a target that is counted by its own
    fills, `shown` is what is left to trade. `attempts`: number of orders in a row without a fill after which a target
    is given up, unless it is a full close.
    """
    if target.is_in_flight or target.state is TargetState.SETTLED:
        return WAIT
    if shown <= target.target_size:
        return TargetVerdict(TargetAction.NOTHING)
    if target.refusal in _RULED_OUT:
        return TargetVerdict(TargetAction.BLOCKED, reason=f"{shown} of {target.symbol} is below the venue's minimum")
    if target.attempts_without_fill >= attempts and not _goes_on(target):
        do = TargetAction.BLOCKED if target.refusal in _RULES else TargetAction.GIVE_UP
        why = "none of them filled" if target.refusal is None else f"the last one: {target.refusal}"
        return ended(do, target, f"{count_of(target.attempts_without_fill, 'order')} in a row closed nothing ({why})")
    wanted = _held(target, shown, ledger, grown, believe_venue=believe_venue) - target.target_size
    is_explained = ZERO < wanted <= grown
    if target.target_size > ZERO or target.is_own_part:
        wanted = min(wanted, left_to_close(target, ledger))
    if wanted <= ZERO:
        return _left_over(target, shown, ledger, believe_venue=believe_venue or is_explained)
    return size_order(target, wanted, instrument)


def _goes_on(target: PositionTarget) -> bool:
    """Whether the target is zero: a full close never ends while the venue shows a position, even if refused."""
    return target.target_size == ZERO and not target.is_counted_by_fills and not target.is_own_part


def left_to_close(target: PositionTarget, ledger: PositionLedger) -> Decimal:
    """The part of the decided amount that no decision has closed yet: two decisions that halve leave a half."""
    return target.decided - (ledger.closed - target.closed_before) - target.outstanding


def _held(
    target: PositionTarget, shown: Decimal, ledger: PositionLedger, grown: Decimal, *, believe_venue: bool
) -> Decimal:
    """The part of the position that an order of this target may count on."""
    if target.is_counted_by_fills:
        return shown - target.outstanding
    if believe_venue and (target.is_capped_by_venue or not ledger.outstanding):
        return shown
    return ledger.closable(shown, grown, is_capped_by_venue=target.is_capped_by_venue)


def _left_over(target: PositionTarget, shown: Decimal, ledger: PositionLedger, *, believe_venue: bool) -> TargetVerdict:
    """The verdict where more than the target is shown, and nothing may be sent."""
    if target.detached or (ledger.is_waiting and not target.is_counted_by_fills):
        return WAIT
    if target.abandoned or (ledger.outstanding and not target.is_counted_by_fills):
        return ended(TargetAction.ABANDON, target, "the status of an order of ours was never known")
    if not believe_venue:
        return TargetVerdict(TargetAction.CONTRADICTED)
    grown = f"the venue shows {shown}: the position has grown meanwhile"
    return ended(TargetAction.GIVE_UP, target, f"all {target.decided} decided contracts are closed, and {grown}")


def size_order(target: PositionTarget, wanted: Decimal, instrument: Instrument | None) -> TargetVerdict:
    """Size one order for `wanted` contracts within the venue's rules; planning has already sized the first one exactly.

    It leaves no remainder that is too small to be sent afterwards, and no slice is too small for the venue.
    """
    step = None if instrument is None else instrument.amount_step
    if instrument is None or not step:
        most = wanted if instrument is None or not instrument.max_amount else min(wanted, instrument.max_amount)
        return TargetVerdict(TargetAction.SEND, min(most, target.largest))
    is_first_order = target.attempt == 0 and target.purpose == "reduce"
    least = step if is_first_order else max(step, instrument.min_amount or ZERO)
    rounded = _floor(wanted, step)
    if rounded < least:
        return TargetVerdict(
            TargetAction.BLOCKED, reason=f"dust: {wanted} of {target.symbol} is below the venue's minimum"
        )
    most = rounded if not instrument.max_amount else max(least, min(rounded, _floor(instrument.max_amount, step)))
    amount = min(most, max(least, _floor(target.largest, step)))
    if ZERO < rounded - amount < (instrument.min_amount or ZERO):
        amount = rounded if rounded <= most else max(least, _floor(rounded - (instrument.min_amount or ZERO), step))
    return TargetVerdict(TargetAction.SEND, min(amount, most))


def _floor(amount: Decimal, step: Decimal) -> Decimal:
    return (amount / step).to_integral_value(rounding=ROUND_FLOOR) * step


def select_active(
    targets: Iterable[PositionTarget], is_final: Callable[[PositionTarget], bool]
) -> list[PositionTarget]:
    """The one target for each position that may send: the smallest, then the most urgent, then the active one.

    Targets that have ended are skipped where another decision's target may try after them. Sorted by rank. `is_final`
    is called only where several targets meet.
    """
    slots: dict[Slot, list[PositionTarget]] = {}
    for target in targets:
        slots.setdefault(target.name if target.is_counted_by_fills else target.key, []).append(target)
    chosen = (found[0] if len(found) == 1 else _smallest(found, is_final) for found in slots.values())
    return sorted((target for target in chosen if target is not None), key=lambda target: (target.rank, target.index))


def _smallest(targets: Iterable[PositionTarget], is_final: Callable[[PositionTarget], bool]) -> PositionTarget | None:
    unfinished = (target for target in targets if not is_final(target))
    return min(unfinished, key=lambda target: (target.target_size, target.urgency, -target.attempt), default=None)


class Stall(Struct, frozen=True):
    """Why a target that is still retried needs an operator. `kind`: what is to be done is another for each."""

    kind: Literal["unknown", "unfilled", "refused", "open"]
    reason: str


def stall_reason(target: PositionTarget, now: datetime, pace: ClosingPace) -> Stall | None:
    """Why a target that is still retried needs an operator; None if it does not."""
    for order in target.detached.values():
        if (now - order.sent_at).total_seconds() < pace.absence_after:
            continue
        problem = f"has unknown status{_since(order.sent_at)} and is being queried"
        return Stall("unknown", f"order {order.name} on {target.symbol} {problem}")
    if target.state is not TargetState.AT_TARGET and target.attempts_without_fill >= pace.fruitless_attempts:
        if target.last_refusal is None:
            return Stall("unfilled", f"{target.symbol} does not fill and is retried")
        return Stall("refused", f"{target.symbol} is refused repeatedly ({target.last_refusal}) and is retried")
    if target.is_in_flight and target.sent_at is not None:
        if (now - target.sent_at).total_seconds() < pace.notify_after:
            return None
        sent = f"order {target.client_order_id} on {target.symbol}"
        is_open = target.state is TargetState.WORKING
        state = "been open" if is_open else "unknown status"
        return Stall("open" if is_open else "unknown", f"{sent} has {state}{_since(target.sent_at)}")
    return None


def _since(at: datetime) -> str:
    return f" since {at:%Y-%m-%d %H:%M:%S} UTC"
