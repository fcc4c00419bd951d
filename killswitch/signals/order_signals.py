"""Order signals: our own orders without a fate or refused, and the rate and the size of the orders of others.

Orders of this program are left out of the rate and the size: closing must not fire the next rule. Refusals are those of
our own orders, because venues do not report the refusals of a bot's orders to anybody else.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from killswitch.model.instant import to_micros
from killswitch.signals.arguments import WINDOW, Argument
from killswitch.signals.declaration import (
    NO_AXIOMS,
    NOT_NEGATIVE,
    Axioms,
    SignalSpec,
    condition,
)
from killswitch.signals.equity_levels import of_equity
from killswitch.signals.history.order_flow import OwnRefusals, SeenOrders
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

WITHOUT_FATE = ("pending", "unconfirmed")


def _unconfirmed(view: ScopeView, age: int) -> Interval:
    """Own orders sent more than `age` ago whose fate is not known."""
    own = None if view.tick is None else view.tick.own_orders
    if own is None:
        return UNKNOWN
    accounts = {account.account for account in view.accounts}
    return known(
        sum(
            order.fate in WITHOUT_FATE and order.account in accounts and view.as_of - to_micros(order.sent_at) > age
            for order in own
        )
    )


def _rejected(history: History, view: ScopeView, window: int) -> Interval:
    found = history.collectors.of(OwnRefusals).count(view.as_of, window)
    if found is None:
        return UNKNOWN
    count, is_complete = found
    return float(count), float(count) if is_complete else math.inf


def _rate(history: History, view: ScopeView, window: int) -> Interval:
    return float(history.collectors.of(SeenOrders).count(view.as_of, window)), math.inf


def _largest_share(view: ScopeView) -> Interval:
    """The largest order of all accounts ÷ equity; unbounded above if the value of one is unknown."""
    if view.unknown is not None or view.equity is None:
        return UNKNOWN
    low = high = 0.0
    for facts in view.facts:
        rate = view.conversion(facts.account.currency).rate
        if rate is None:
            return UNKNOWN
        least, most = facts.largest_order
        low, high = max(low, least * float(rate)), max(high, most * float(rate))
    equity = float(view.equity)
    return _share(low, equity), _share(high, equity)


def _share(value: float, equity: float) -> float:
    """Without equity, any order is more than all of it; no order is nothing of it."""
    return value / equity if equity > 0.0 else math.inf if value > 0.0 else 0.0


AGE = Argument(
    key="age",
    kind="duration",
    meaning="The time since an order was sent; only older ones count.",
    example="30s",
)

_condition = partial(condition, range=NOT_NEGATIVE)
"""A condition of orders."""

SIGNALS: tuple[SignalSpec, ...] = (
    _condition(
        name="orders.unconfirmed",
        unit="count",
        arguments=(AGE,),
        axioms=Axioms(falls_with=("age",)),
        meaning=(
            "Orders of this program that were sent longer ago than `age` and whose fate at the venue is not known: no "
            "answer, or none that states it. They are queried until it is known."
        ),
        partly_known="never",
        unknown="the recording is of a version without own orders",
        collects=(),
        reader=lambda _, view, age: _unconfirmed(view, age),
    ),
    _condition(
        name="orders.rejected",
        unit="count",
        arguments=(WINDOW,),
        axioms=Axioms(grows_with=("window",)),
        meaning=(
            "Refusals of this program's own orders in the window; a refusal because nothing is left to reduce is none. "
            "Refusals of a bot's orders are not visible to anybody else."
        ),
        partly_known="the window is not wholly observed: it is at least what was seen",
        unknown="the recording is of a version without own orders",
        collects=(OwnRefusals,),
        reader=_rejected,
    ),
    _condition(
        name="orders.rate",
        unit="count",
        arguments=(WINDOW,),
        axioms=Axioms(grows_with=("window",)),
        meaning=(
            "Orders of others than this program that were first seen in the window, by open orders and fills. Orders "
            "that are placed and gone between two polls are not seen, so that it is a lower bound: compare it with "
            "`at_least`, because `at_most` can never be true."
        ),
        partly_known="always: it is at least what was seen",
        unknown="never",
        collects=(SeenOrders,),
        reader=_rate,
    ),
    _condition(
        name="orders.largest_share",
        equity_at=of_equity(lambda _, view: _largest_share(view)),
        unit="ratio",
        needs_equity=True,
        arguments=(),
        axioms=NO_AXIOMS,
        meaning=(
            "The unfilled value of the largest open order that may add risk ÷ equity: contracts × price, at the mark "
            "for a market order. Orders that are marked reduce-only do not count; a stop far away does, and so does a "
            "take-profit without that mark. 0 without orders; infinite for an order without equity."
        ),
        partly_known=(
            "orders are unknown, or the price, the filled amount or the contract size of one is: it is at least that "
            "of the others"
        ),
        unknown="equity is unknown",
        collects=(),
        reader=lambda _, view: _largest_share(view),
    ),
)
