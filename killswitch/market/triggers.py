"""Conditional orders: which are reached on a way of the prices, and where on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO
from killswitch.market.matching import Matching
from killswitch.market.order import PaperOrder
from killswitch.market.tape import Tape
from killswitch.model.venue import OrderRequest

Marks = Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Reached:
    """A conditional order that is reached after `share` of the way, when its symbol's price is `price`."""

    order: PaperOrder
    share: Decimal
    price: Decimal


def is_met(request: OrderRequest, price: Decimal) -> bool:
    """Whether `price` has reached the order's trigger. Touching it is enough."""
    trigger = request.trigger_price
    if trigger is None:
        return True
    return price <= trigger if request.trigger_when == "falls" else price >= trigger


def reached(account: PaperAccount, before: Marks, after: Marks, tapes: Mapping[str, Tape]) -> list[Reached]:
    """The account's orders that are reached while the marks move evenly from `before` to `after`, in that order.

    A price that jumped over the trigger is what the order is sent at: there was nothing between.
    """
    found = []
    for order in account.working:
        request = order.request
        if not order.waits or order.state != "open" or tapes[request.symbol].is_shut:
            continue
        begin, end = before[request.symbol], after[request.symbol]
        if is_met(request, begin):
            found.append(Reached(order, ZERO, begin))
        elif is_met(request, end):
            assert request.trigger_price is not None  # else it would not wait
            found.append(Reached(order, (request.trigger_price - begin) / (end - begin), request.trigger_price))
    return sorted(found, key=lambda each: each.share)


def fire(matching: Matching, account: PaperAccount, found: Reached, tape: Tape, at: datetime) -> None:
    """Send the order as the plain one that it otherwise is; where the symbol does not take such, it is rejected."""
    order = found.order
    if order.state != "open":
        return  # its position has gone meanwhile
    order.waits = False
    last, tape.last = tape.last, found.price
    if _is_refused(order.request, tape, matching):
        order.state = "rejected"
    else:
        matching.begin(account, order, tape, at)
    tape.last = last


def _is_refused(request: OrderRequest, tape: Tape, matching: Matching) -> bool:
    state = tape.instrument.state
    if request.type == "market":
        return state in {"limit_only", "post_only"}
    return state == "post_only" and matching.is_marketable(request, tape)
