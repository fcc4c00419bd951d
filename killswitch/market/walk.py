"""The inside of a bar: conditional orders trigger, orders fill, margins are checked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO
from killswitch.market.liquidation import Liquidator
from killswitch.market.matching import Matching
from killswitch.market.order import PaperOrder
from killswitch.market.tape import MarketBar, Tape, path
from killswitch.model.venue import OrderRequest


class BarWalk:
    """Moves the accounts of a market along the paths of its bars."""

    def __init__(self, accounts: Mapping[str, PaperAccount], matching: Matching) -> None:
        self._accounts = accounts
        self._tapes = matching.tapes
        self._matching = matching
        self._liquidator = Liquidator(matching)

    def is_eventful(self, bars: Mapping[str, MarketBar]) -> bool:
        """Whether anything can happen inside the bars; otherwise only their closes matter."""
        return any(each.working or not self._liquidator.is_out_of_reach(each, bars) for each in self._accounts.values())

    def along(self, at: datetime, bars: Mapping[str, MarketBar]) -> None:
        """Pass the four points of all the bars' paths, together."""
        paths = {symbol: path(bar) for symbol, bar in bars.items()}
        marks = {symbol: tape.last for symbol, tape in self._tapes.items() if tape.last is not None}
        for point in range(4):
            after = marks | {symbol: prices[point] for symbol, prices in paths.items()}
            before = {**after, **marks} if point else after  # to the open prices jump: there is nothing between
            for symbol, price in after.items():
                self._tapes[symbol].last = price
            for account in self._accounts.values():
                begin = self._trigger(account, before, after, at)
                self._fill_working(account, point, at)
                self._liquidator.liquidate_between(account, begin, after, at)
            marks = after

    def _trigger(self, account: PaperAccount, before: Marks, after: Marks, at: datetime) -> Marks:
        """Trigger the conditional orders that are reached; return the marks at the last of them, else those before.

        The venue first liquidates what is due before.
        """
        passed = before
        for found in triggered(account, before, after, self._tapes):
            here = self._liquidator.between(before, after, found.share) if found.share else dict(before)
            here[found.order.request.symbol] = found.price
            self._liquidator.liquidate_between(account, passed, here, at)
            send_triggered(self._matching, account, found, self._tapes[found.order.request.symbol], at)
            passed = here
        return passed

    def _fill_working(self, account: PaperAccount, point: int, at: datetime) -> None:
        """Fill market orders at the open, and limit orders at their price."""
        for order in tuple(account.working):
            if order.state != "open" or order.is_waiting:
                continue  # an earlier order has closed its position, or it waits for its trigger
            tape = self._tapes[order.request.symbol]
            if tape.is_shut:
                continue
            if order.request.type == "limit":
                self._matching.fill_resting(account, order, tape, tape.last or ZERO, at)
            elif point == 0:
                self._matching.fill_now(account, order, tape, at)
        account.drop_done()


Marks = Mapping[str, Decimal]


class TriggeredOrder(Struct, frozen=True):
    """A conditional order that triggers after `share` of the way, when its symbol's price is `price`."""

    order: PaperOrder
    share: Decimal
    price: Decimal


def is_met(request: OrderRequest, price: Decimal) -> bool:
    """Whether `price` has reached the order's trigger. Touching it is enough."""
    trigger = request.trigger_price
    if trigger is None:
        return True
    return price <= trigger if request.trigger_when == "falls" else price >= trigger


def triggered(account: PaperAccount, before: Marks, after: Marks, tapes: Mapping[str, Tape]) -> list[TriggeredOrder]:
    """The account's orders that trigger while the marks move evenly from `before` to `after`, in that order.

    After a jump over the trigger the order is sent at the price after the jump.
    """
    found = []
    for order in account.working:
        request = order.request
        if not order.is_waiting or order.state != "open" or tapes[request.symbol].is_shut:
            continue
        begin, end = before[request.symbol], after[request.symbol]
        if is_met(request, begin):
            found.append(TriggeredOrder(order, ZERO, begin))
        elif is_met(request, end):
            assert request.trigger_price is not None  # else it would not wait
            found.append(TriggeredOrder(order, (request.trigger_price - begin) / (end - begin), request.trigger_price))
    return sorted(found, key=lambda each: each.share)


def send_triggered(matching: Matching, account: PaperAccount, found: TriggeredOrder, tape: Tape, at: datetime) -> None:
    """Send a triggered order as a plain one; it is rejected where the symbol does not accept such orders."""
    order = found.order
    if order.state != "open":
        return  # its position was closed by an earlier order
    order.is_waiting = False
    last, tape.last = tape.last, found.price
    if _is_refused(order.request, tape, matching):
        order.state = "rejected"
    else:
        matching.enter(account, order, tape, at)
    tape.last = last


def _is_refused(request: OrderRequest, tape: Tape, matching: Matching) -> bool:
    if request.type == "market":
        return not tape.has_market_orders
    return tape.instrument.state == "post_only" and matching.is_marketable(request, tape)
