"""The largest resting order of an account that may add risk, in the account's currency.

An order may add risk unless it is marked reduce-only, is on the closing side of its position in hedge mode, or sells
from a spot account. A take-profit without the mark therefore counts, and so does a stop far away. Orders of this
program only reduce, and do not count.
"""

from __future__ import annotations

import math
from decimal import Decimal

from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.model.venue import is_ours
from killswitch.valuation.position_measures import ZERO, Instruments, contract_value, is_inverse, is_option

Bounds = tuple[float, float]


def largest_opening_order(account: AccountSnapshot, rules: Instruments) -> Bounds:
    """Bounds of the value that the largest order may still add: unfilled contracts × value of a contract × price.

    The price is that of the order, its trigger price, or for a market order the mark. An order whose value is unknown
    leaves it unbounded above; unknown orders do, too.
    """
    if account.orders is None:
        return 0.0, math.inf
    low = high = 0.0
    for order in account.orders:
        if may_add_risk(order, account) and not is_ours(order.client_order_id):
            least, most = _unfilled_value(order, account, rules)
            low, high = max(low, least), max(high, most)
    return low, high


def may_add_risk(order: Order, account: AccountSnapshot) -> bool:
    """Whether the order could open or enlarge a position."""
    if order.reduce_only is True:
        return False
    if account.market == "spot":
        return order.side == "buy"
    if account.position_mode == "hedge" and order.position_side is not None:
        return (order.side == "buy") == (order.position_side == "long")
    return True


def _unfilled_value(order: Order, account: AccountSnapshot, rules: Instruments) -> Bounds:
    """Without a filled amount, it is between nothing and that of the whole order."""
    if order.amount <= ZERO:
        return 0.0, 0.0  # at some venues the order of a whole position, which it only closes
    rule = rules.get((account.account, order.symbol))
    value, price = contract_value(account, order.symbol, rule), _price(order, account)
    if value is None or not price or price <= ZERO or is_option(order.symbol):
        return 0.0, math.inf
    each = value / price if is_inverse(order.symbol, rule) else value * price
    if order.filled is None:
        return 0.0, float(order.amount * each)
    left = float(max(ZERO, order.amount - order.filled) * each)
    return left, left


def _price(order: Order, account: AccountSnapshot) -> Decimal | None:
    """The price at which the order fills; None for a market order of a symbol without a mark."""
    if order.price:
        return order.price
    if order.trigger_price:
        return order.trigger_price
    marks = (
        *(each.mark_price for each in account.positions or () if each.symbol == order.symbol),
        *(each.mark_price for each in account.marks or () if each.symbol == order.symbol),
        *(each.mark_price for each in account.watched or () if each.symbol == order.symbol),
    )
    return next((mark for mark in marks if mark is not None), None)
