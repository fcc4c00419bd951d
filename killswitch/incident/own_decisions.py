"""What other decisions of this program have closed of a decision's positions: that is no change by others.

A close that a killed process has begun goes on in the next one, beside what a person or a policy decides there anew.
Each decision has its own journal, so that to each the orders of the other are none of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal

from msgspec.structs import replace

from killswitch.incident.closed_positions import ClosedPosition
from killswitch.incident.order_lines import Key, OrderLine, order_lines
from killswitch.model.store import Store

LOOKED_THROUGH = 200
"""Of so many of the newest decisions, those on the same positions are looked at."""


def credit_own_decisions(
    store: Store, positions: tuple[ClosedPosition, ...], since: datetime, own: Collection[str]
) -> tuple[ClosedPosition, ...]:
    """The positions with `others` divided: what orders of other decisions have closed, and what none of ours has.

    `own`: the decisions that the positions are of, and `since` when the first was made. Where an order's fate is not
    known, both parts are unknown. The store is asked only where something went without an order of `own`.
    """
    gaps = {(each.account, each.symbol, each.side) for each in positions if each.others is not None and each.others > 0}
    if not gaps:
        return positions
    lines = _lines_elsewhere(store, gaps, since, own)
    return tuple(
        _credited(each, lines.get((each.account, each.symbol, each.side), [])) if each.others else each
        for each in positions
    )


def _lines_elsewhere(
    store: Store, keys: Collection[Key], since: datetime, own: Collection[str]
) -> dict[Key, list[OrderLine]]:
    """The orders of other decisions on these positions that may have filled after `since`."""
    found: dict[Key, list[OrderLine]] = {}
    for stored in store.decisions(LOOKED_THROUGH):
        decision = stored.decision
        if decision.id in own or not any((i.account, i.symbol, i.position_side) in keys for i in decision.intents):
            continue
        for line in order_lines(decision, store.journal(decision.id), None):
            key = (line.account, line.symbol, line.position_side)
            is_over = line.fate == "final" and line.answered_at is not None and line.answered_at < since
            if key in keys and line.purpose == "reduce" and not is_over and not line.did_nothing:
                found.setdefault(key, []).append(line)
    return found


def _credited(position: ClosedPosition, lines: list[OrderLine]) -> ClosedPosition:
    others, seen_at = position.others, position.seen_at
    lines = [line for line in lines if seen_at is None or line.sent_at <= seen_at]
    if others is None or others <= 0 or not lines:
        return position
    if any(line.fate != "final" or line.filled is None for line in lines):
        return replace(position, others=None, other_decisions=None)
    ours = min(others, sum((line.filled or Decimal(0) for line in lines), Decimal(0)))
    return replace(position, others=others - ours, other_decisions=ours)
