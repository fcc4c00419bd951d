"""Builds the next order of a line: its name, kind, price and amount, and its journal entry."""

from __future__ import annotations

from decimal import Decimal
from itertools import count

from killswitch.execution.account_context import AccountContext
from killswitch.execution.client_order_id import client_order_id, validity
from killswitch.execution.decide.ladder import execution_style, next_step
from killswitch.execution.decide.line_verdict import LineAction, left_to_close, size_order
from killswitch.execution.send.queued_orders import QueuedOrder
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
    line: PositionTarget,
    amount: Decimal,
    held: Decimal,
    seen: Position | None,
    instrument: Instrument | None,
    *,
    slice_after: bool = False,
) -> QueuedOrder:
    """The next order of `line` over `amount` contracts.

    `held`: the position assumed to be held before it; `seen`: the position as the venue showed it last.
    """
    step_index = next_step(job.ladder, line.execution_step, line.failed_tries)
    style = execution_style(job.ladder, step_index, line.side, line.band, seen, instrument)
    used_names = {*line.detached, *line.counted_orders, *line.abandoned}
    for attempt in count(line.attempt + line.is_id_used):
        name = client_order_id(line.decision, line.index, attempt, context.traits.client_ids)
        if name not in used_names:  # an entry that cannot be decoded may have used it: fills are counted once per name
            break
    request = OrderRequest(
        client_order_id=name,
        symbol=line.symbol,
        side=line.side,
        position_side=line.position_side,
        amount=amount,
        reduce_only=line.reduce_only,
        type="market" if style.price is None else "limit",
        price=style.price,
        time_in_force="gtc" if style.price is None or style.rests else "ioc",
        valid_for=validity(context.traits.order_life, context.pace, line.expired_orders),
    )
    mark, value = mark_and_value(seen)
    entry = OrderSending(
        *context.entry_head(line, name, attempt),
        side=line.side,
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
    return QueuedOrder(line, request, entry)


def next_slice(line: PositionTarget, ledger: PositionLedger, instrument: Instrument | None) -> Decimal | None:
    """The amount of the slice that may follow a completely filled one at once; None if none may.

    It is computed from fills alone, so it never counts on more than was held before them.
    """
    if line.state is not TargetState.SETTLED or not line.is_fully_filled or line.is_in_whole_close:
        return None
    held = line.remaining if line.is_counted_by_fills else ledger.anchor
    if held is None or line.detached or (ledger.outstanding and not line.is_counted_by_fills):
        return None
    wanted = held - line.target
    if line.target > ZERO:
        wanted = min(wanted, left_to_close(line, ledger))
    if wanted <= ZERO:
        return None
    verdict = size_order(line, wanted, instrument)
    return verdict.amount if verdict.do is LineAction.SEND else None


def is_untouched(line: PositionTarget, ledger: PositionLedger) -> bool:
    """Whether no order of ours was ever sent for the line's position."""
    return line.state is TargetState.READY and line.attempt == 0 and not line.detached and ledger.anchor is None
