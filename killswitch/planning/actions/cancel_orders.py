"""`cancel_orders`: cancels the scope's resting orders: entries before closing, and with `all` the rest after it.

Which orders are entries is judged in `killswitch.planning.resting_orders`, for all orders of an account together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.model.effects import Cancel, Cancels, Effect, of_kind
from killswitch.model.snapshot import AccountSnapshot, Side
from killswitch.planning.actions.kind import ActionPlan, Context, Most, MostContext, Planned
from killswitch.planning.resting_orders import concerns_side, entry_indexes
from killswitch.valuation.scope_view import ScopeView


def cancels(view: ScopeView, kind: Literal["entry", "all"], unseen: Collection[str] = ()) -> Cancels:
    """Orders of sound accounts to cancel: entries, and with `all` also the others.

    `unseen`: accounts whose positions are unknown, although the view has some.
    """
    found = []
    for account in view.sound:
        entries = entry_indexes(replace(account, positions=None) if account.account in unseen else account)
        for index, order in enumerate(account.orders or ()):
            if index in entries:
                found.append(Cancel(account.account, order.symbol, order.id, "entry"))
            elif kind == "all":
                found.append(Cancel(account.account, order.symbol, order.id, "all"))
    return Cancels(tuple(found))


def cancels_about(
    view: ScopeView, symbols: Collection[str] | None, side: Side | None, kind: Literal["entry", "all"] = "all"
) -> Cancels:
    """Orders of sound accounts that are about positions of these symbols and of this side; None: of all."""
    orders = {(account.account, each.id): each for account in view.sound for each in account.orders or ()}

    def is_about(cancel: Cancel) -> bool:
        order = orders[cancel.account, cancel.order]
        is_of_symbols = symbols is None or order.symbol in symbols
        return is_of_symbols and concerns_side(order, side, is_entry=cancel.why == "entry")

    return Cancels(tuple(filter(is_about, cancels(view, kind).cancels)))


def cancelled_orders(effects: Iterable[Effect]) -> tuple[tuple[str, str], ...]:
    """Account and id of each order that the effects cancel."""
    found = of_kind(effects, Cancels)
    return () if found is None else tuple((each.account, each.order) for each in found.cancels)


def most_cancels(account: AccountSnapshot, kind: Literal["entry", "all"]) -> Most:
    """Worst case of cancels: entries first, and with `all` the others at the end."""
    entries = entry_indexes(account)
    symbols = {index: order.symbol for index, order in enumerate(account.orders or ())}
    return Most(
        first={index: symbol for index, symbol in symbols.items() if index in entries},
        last={index: symbol for index, symbol in symbols.items() if index not in entries and kind == "all"},
    )


def _plan(action: CancelOrders, context: Context) -> Planned:
    return Planned(effects=(cancels(context.book.view, action.kind, context.book.unseen),))


def _most(action: CancelOrders, context: MostContext) -> Most:
    return most_cancels(context.account, action.kind)


KIND = ActionPlan(key="cancel_orders", plan=_plan, most=_most)
