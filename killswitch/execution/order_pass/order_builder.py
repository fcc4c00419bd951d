"""Builds the next order of a target: its name, kind, price and amount, and its journal entry."""

from __future__ import annotations

from decimal import Decimal
from itertools import count

from killswitch.execution.account_context import AccountContext
from killswitch.execution.client_order_id import client_order_id, validity
from killswitch.execution.decide.ladder import execution_style, next_step
from killswitch.execution.decide.target_verdict import TargetAction, left_to_close, size_order
from killswitch.execution.send.order_queue import QueuedOrder
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.intents import mark_and_value
from killswitch.journal.entries import NEXT_SLICE, OrderSending
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Instrument, Position
from killswitch.model.venue import OrderRequest


def build_order(
    context: AccountContext,
    job: AccountJob,
    target: PositionTarget,
    amount: Decimal,
    held: Decimal,
    seen: Position | None,
    instrument: Instrument | None,
    *,
    slice_after: bool = False,
) -> QueuedOrder:
    """The next order of `target` over `amount` contracts.

    `held`: the position assumed to be held before it; `seen`: the position as the venue showed it last.
    """
    step_index = next_step(job.ladder, target.execution_step, target.failed_tries, at_market=target.at_market)
    style = execution_style(job.ladder, step_index, target.side, target.band, seen, instrument)
    used_names = {*target.detached, *target.counted_orders, *target.abandoned}
    for attempt in count(target.attempt + target.is_id_used):
        name = client_order_id(target.decision, target.index, attempt, context.traits.client_ids)
        if name not in used_names:  # an entry that cannot be decoded may have used it: fills are counted once per name
            break
    request = OrderRequest(
        client_order_id=name,
        symbol=target.symbol,
        side=target.side,
        position_side=target.position_side,
        amount=amount,
        reduce_only=target.reduce_only,
        type="market" if style.price is None else "limit",
        price=style.price,
        time_in_force="gtc" if style.price is None or style.rests else "ioc",
        valid_for=validity(context.traits.order_life, context.pace, target.expired_orders),
    )
    mark, value = mark_and_value(seen)
    entry = OrderSending(
        *context.entry_head(target, name, attempt),
        side=target.side,
        amount=amount,
        position=held,
        order=style.order,
        rung=style.step,
        price=style.price,
        after=NEXT_SLICE if slice_after else None,
        mark=mark,
        value=value,
        valid_for=None if request.valid_for is None else Decimal(f"{request.valid_for:g}"),
    )
    return QueuedOrder(target, request, entry)


def next_slice(target: PositionTarget, ledger: PositionLedger, instrument: Instrument | None) -> Decimal | None:
    """The amount of the slice that may follow a completely filled one at once; None if none may.

    It is computed from fills alone, so it never counts on more than was held before them.
    """
    if target.state is not TargetState.SETTLED or not target.is_fully_filled or target.is_in_whole_close:
        return None
    held = target.remaining if target.is_counted_by_fills else ledger.anchor
    if held is None or target.detached or (ledger.outstanding and not target.is_counted_by_fills):
        return None
    wanted = held - target.target_size
    if target.target_size > ZERO:
        wanted = min(wanted, left_to_close(target, ledger))
    if wanted <= ZERO:
        return None
    verdict = size_order(target, wanted, instrument)
    return verdict.amount if verdict.do is TargetAction.SEND else None


def is_untouched(target: PositionTarget, ledger: PositionLedger) -> bool:
    """Whether no order of ours was ever sent for the target's position."""
    return target.state is TargetState.READY and target.attempt == 0 and not target.detached and ledger.anchor is None
