"""`cancel_orders`: cancels the scope's resting orders: entries before closing, and with `all` the rest after it.

`reduce_only` counts only as a real boolean (the model rejects strings). An order that could add risk is an entry; an
order that can only reduce an open position is protective, whatever its flag.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.model.effects import Cancel, Cancels
from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.planning.actions.kind import ActionPlan, Context, Most, MostContext, Planned
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView


def is_entry(order: Order, account: AccountSnapshot) -> bool:
    """Whether the order can open or add to a position."""
    if order.reduce_only is True:
        return False
    if account.positions is None and order.trigger_price is not None:
        return False  # a stop of a position that is not visible now
    if account.position_mode == "hedge" and order.position_side is not None:
        return (order.side == "buy") == (order.position_side == "long")
    reduces = "long" if order.side == "sell" else "short"
    held = sum((p.contracts for p in account.positions or () if p.symbol == order.symbol and p.side == reduces), ZERO)
    left: Decimal = order.amount - (order.filled or ZERO)
    return left > held


def cancels(view: ScopeView, kind: Literal["entry", "all"]) -> Cancels:
    """Orders of sound accounts to cancel: entries, and with `all` also the others."""
    found = []
    for account in view.sound:
        for order in account.orders or ():
            if is_entry(order, account):
                found.append(Cancel(account.account, order.symbol, order.id, "entry"))
            elif kind == "all":
                found.append(Cancel(account.account, order.symbol, order.id, "all"))
    return Cancels(tuple(found))


def most_cancels(account: AccountSnapshot, kind: Literal["entry", "all"]) -> Most:
    """Worst case of cancels: entries first, and with `all` the others at the end."""
    resting = [(order, is_entry(order, account)) for order in account.orders or ()]
    return Most(
        first={place: order.symbol for place, (order, entry) in enumerate(resting) if entry},
        last={place: order.symbol for place, (order, entry) in enumerate(resting) if not entry and kind == "all"},
    )


def _plan(action: CancelOrders, context: Context) -> Planned:
    return Planned(effects=(cancels(context.book.view, action.kind),))


def _most(action: CancelOrders, context: MostContext) -> Most:
    return most_cancels(context.account, action.kind)


KIND = ActionPlan(key="cancel_orders", plan=_plan, most=_most)
