"""Which resting orders a decision cancels.

Only `reduce_only` as a real boolean is believed (the model refuses strings). An order that could add risk is
an entry; one that can only reduce an open position is protection, whatever its flag says.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from killswitch.graph.nodes import Action, CancelOrders
from killswitch.model.decision import Cancel
from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView


def is_entry(order: Order, account: AccountSnapshot) -> bool:
    """Whether the order can open or add to a position."""
    if order.reduce_only is True:
        return False
    if account.positions is None and order.trigger_price is not None:
        return False  # a stop of a position that nobody can see now
    if account.position_mode == "hedge" and order.position_side is not None:
        return (order.side == "buy") == (order.position_side == "long")
    reduces = "long" if order.side == "sell" else "short"
    held = sum((p.contracts for p in account.positions or () if p.symbol == order.symbol and p.side == reduces), ZERO)
    left: Decimal = order.amount - (order.filled or ZERO)
    return left > held


def cancels(view: ScopeView, actions: Sequence[Action]) -> tuple[Cancel, ...]:
    """The orders to cancel: entries before closing; the rest, where a stage says so, after it."""
    kinds = {action.kind for action in actions if isinstance(action, CancelOrders)}
    found = []
    for account in view.sound:
        for order in account.orders or ():
            entry = is_entry(order, account)
            if entry and kinds:
                found.append(Cancel(account.account, order.symbol, order.id, "entry"))
            elif not entry and "all" in kinds:
                found.append(Cancel(account.account, order.symbol, order.id, "all"))
    return tuple(found)
