"""Resting orders that a decision cancels, as the snapshot showed them that was decided on: what each is, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from killswitch.incident.filters import amount
from killswitch.model.decision import Cancel
from killswitch.model.snapshot import Order, Snapshot

Resting = Mapping[tuple[str | None, str | None, str | None], Order]
"""Account, symbol and the venue's own id of an order → the order."""

FIRST = 3
"""So many of many orders of one kind are named."""


def resting_orders(snapshot: Snapshot | None) -> Resting:
    """Every order that the snapshot shows; empty where none was kept."""
    accounts = () if snapshot is None else snapshot.accounts
    return {(account.account, order.symbol, order.id): order for account in accounts for order in account.orders or ()}


def kind_of(why: str | None, order: Order | None) -> str:
    """`entry`, `protective` (one with a trigger, or that blocks a close) or `exit`; empty where nothing tells.

    `why`: of the cancel, as it was decided and journaled.
    """
    if why == "entry":
        return "entry"
    if why == "blocks the close":
        return "protective"
    if why != "all":
        return ""
    if order is None:
        return "exit or protective"
    return "exit" if order.trigger_price is None else "protective"


def terms(order: Order) -> str:
    """`buy 1 at 50`, `sell 2, trigger 90`."""
    price = "" if order.price is None else f" at {amount(order.price)}"
    trigger = "" if order.trigger_price is None else f", trigger {amount(order.trigger_price)}"
    return f"{order.side} {amount(order.amount)}{price}{trigger}"


def cancel_lines(cancels: Sequence[Cancel], resting: Resting) -> Iterator[str]:
    """What is cancelled: entries before the orders of the close, the rest after them; of many alike the first few."""
    for when, why in (("first", "entry"), ("at the end", "all")):
        alike: dict[tuple[str, str, str], list[Cancel]] = {}
        for cancel in cancels:
            if cancel.why == why:
                kind = kind_of(why, resting.get(_key(cancel)))
                alike.setdefault((cancel.account, cancel.symbol, kind), []).append(cancel)
        for (account, symbol, kind), found in alike.items():
            of = f"{symbol} on {account}"
            if len(found) <= FIRST:
                yield from (f"cancel {when}: {kind} order {_named(each, resting)} of {of}" for each in found)
                continue
            named = ", ".join(_named(each, resting) for each in found[:FIRST])
            yield f"cancel {when}: {len(found)} {kind} orders of {of}: {named} and {len(found) - FIRST} more"


def _named(cancel: Cancel, resting: Resting) -> str:
    order = resting.get(_key(cancel))
    return cancel.order if order is None else f"{cancel.order} ({terms(order)})"


def _key(cancel: Cancel) -> tuple[str, str, str]:
    return (cancel.account, cancel.symbol, cancel.order)
